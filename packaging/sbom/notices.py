"""Prints the licenses of what is linked into the published files.

    notices.py --rust VERSION --musl VERSION

VERSIONs are those of the Rust toolchain and of the musl that it links into the command. Each
package of Cargo brings the texts of its licenses; those of the toolchain are in
toolchain-licenses.txt, because not every installation of it has them. Equal texts are printed
once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cargo_graph
import toolchain

NAMES = ("license", "licence", "copying", "copyright", "notice", "unlicense")


def texts_of(directory: Path) -> list[str]:
    """Returns the texts in a package's directory that are licenses by their names."""
    files = [path for path in directory.iterdir() if path.is_file() and path.name.lower().startswith(NAMES)]
    return [path.read_text(errors="replace").strip() for path in sorted(files)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rust", required=True)
    parser.add_argument("--musl", required=True)
    options = parser.parse_args()
    linked = [package for package in cargo_graph.published().values() if package.is_linked and package.sha256]
    used: dict[str, list[str]] = {}
    toolchain.check(options.rust)
    print("The files of sopin contain parts of these projects.\n")
    for package in linked:
        print(f"{package.name} {package.version}: {package.license}")
        texts = texts_of(package.directory)
        if not texts:
            raise SystemExit(f"{package.name} {package.version} brings no license, so its text is needed here")
        for text in texts:
            used.setdefault(text, []).append(f"{package.name} {package.version}")
    parts = [toolchain.STANDARD, *toolchain.BELOW_STANDARD, toolchain.musl(options.musl)]
    print("\nThe Rust toolchain adds these.\n")
    for part in parts:
        print(f"{part.name} {part.version}: {part.license}")
    used[Path(__file__).with_name("toolchain-licenses.txt").read_text().strip()] = ["what the Rust toolchain adds"]
    for text, names in sorted(used.items(), key=lambda item: item[1]):
        print(f"\n{'=' * 78}\n{', '.join(names)}\n{'-' * 78}\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
