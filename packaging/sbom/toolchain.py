"""What a Rust toolchain adds to the published files: the standard library, and what that brings.

Cargo.lock does not have these. The versions are those of one release, so a new release needs a
new list. `/rust/deps/NAME-VERSION` in the command and in the standard library's archives shows
the packages of Cargo, and `tests/packages` compares them with this list. The texts of the licenses
are in toolchain-licenses.txt, because not every installation of the toolchain has them.
"""

from __future__ import annotations

from dataclasses import dataclass

RELEASE = "1.95.0"


@dataclass(frozen=True)
class Part:
    """A project of which the toolchain links parts into the command."""

    name: str
    version: str
    license: str
    repository: str
    is_of_cargo: bool = True


STANDARD = Part("rust-std", RELEASE, "MIT OR Apache-2.0", "https://github.com/rust-lang/rust", is_of_cargo=False)

# The standard library is linked with these.
BELOW_STANDARD = [
    Part("addr2line", "0.25.1", "Apache-2.0 OR MIT", "https://github.com/gimli-rs/addr2line"),
    Part("adler2", "2.0.1", "0BSD OR MIT OR Apache-2.0", "https://github.com/oyvindln/adler2"),
    Part("cfg-if", "1.0.4", "MIT OR Apache-2.0", "https://github.com/rust-lang/cfg-if"),
    Part("gimli", "0.32.3", "MIT OR Apache-2.0", "https://github.com/gimli-rs/gimli"),
    Part("hashbrown", "0.16.1", "MIT OR Apache-2.0", "https://github.com/rust-lang/hashbrown"),
    Part("libc", "0.2.178", "MIT OR Apache-2.0", "https://github.com/rust-lang/libc"),
    Part("memchr", "2.7.6", "Unlicense OR MIT", "https://github.com/BurntSushi/memchr"),
    Part("miniz_oxide", "0.8.9", "MIT OR Zlib OR Apache-2.0", "https://github.com/Frommi/miniz_oxide"),
    Part("object", "0.37.3", "Apache-2.0 OR MIT", "https://github.com/gimli-rs/object"),
    Part("rustc-demangle", "0.1.27", "MIT OR Apache-2.0", "https://github.com/rust-lang/rustc-demangle"),
    # Of LLVM, and like the next one without a version of its own in the toolchain.
    Part(
        "libunwind",
        f"rust-{RELEASE}",
        "Apache-2.0 WITH LLVM-exception",
        "https://github.com/rust-lang/llvm-project",
        is_of_cargo=False,
    ),
    Part(
        "compiler_builtins",
        f"rust-{RELEASE}",
        "MIT AND Apache-2.0 WITH LLVM-exception AND (MIT OR Apache-2.0)",
        "https://github.com/rust-lang/compiler-builtins",
        is_of_cargo=False,
    ),
]


def musl(version: str) -> Part:
    """Returns the C library that the toolchain links into the command."""
    return Part("musl", version, "MIT", "https://git.musl-libc.org/cgit/musl", is_of_cargo=False)


def check(release: str) -> None:
    """Ends the program if the list is of another release."""
    if release != RELEASE:
        raise SystemExit(f"packaging/sbom/toolchain.py is of Rust {RELEASE}, not of {release}: write it anew")
