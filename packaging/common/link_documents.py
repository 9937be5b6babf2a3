"""Rewrites links in the documents of a package that lead to files that are not in it.

    link_documents.py DIRECTORY URL

Such a link leads to the same file below URL afterwards. DIRECTORY stands for the top of the
checkout.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath

LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def rewrite(document: Path, top: Path, url: str) -> None:
    """Rewrites the links of one document."""

    def destination(found: re.Match) -> str:
        path = normpath(PurePosixPath(document.relative_to(top).parent, found[1]))
        return found[1] if (top / path).exists() else f"{url}/{path}"

    text = document.read_text()
    rewritten = LINK.sub(destination, text)
    if rewritten != text:
        document.write_text(rewritten)


def main() -> int:
    top, url = Path(sys.argv[1]), sys.argv[2]
    for document in sorted(top.rglob("*.md")):
        rewrite(document, top, url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
