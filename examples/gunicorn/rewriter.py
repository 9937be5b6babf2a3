"""Rewrites shared objects in place, as old pip, `cp` and `rsync --inplace` do:
the same inode, truncated and filled again."""

from __future__ import annotations

import time
from pathlib import Path

from environment import Packages, Site


class Rewriter:
    """The contents of the objects of a site, and those of other builds."""

    def __init__(self, site: Site, packages: Packages) -> None:
        self.originals = {path: path.read_bytes() for path in site.shared_objects}
        self.others: dict[Path, bytes] = {}
        for path, original in self.originals.items():
            if not path.is_relative_to(site.packages):
                continue
            other = packages.other_builds / path.relative_to(site.packages)
            if other.is_file() and (content := other.read_bytes()) != original:
                self.others[path] = content
        missing = [path.name for path in site.extensions if path not in self.others]
        if missing or not self.others:
            raise SystemExit(f"no other build of {missing or 'anything'}: the demonstration would show nothing")

    def same_bytes(self) -> None:
        """Writes the original contents."""
        for path, content in self.originals.items():
            write_in_place(path, content)

    def other_build(self) -> None:
        """Installs other builds of the objects that have one, and the same bytes of the others."""
        for path, content in self.originals.items():
            write_in_place(path, self.others.get(path, content))

    def empty_for(self, seconds: float) -> None:
        """Leaves every object at zero length for a while."""
        for path in self.originals:
            write_in_place(path, b"")
        time.sleep(seconds)
        self.same_bytes()


def write_in_place(path: Path, content: bytes) -> None:
    """Writes as many installers do: `open(path, "wb")` truncates and keeps the inode."""
    with open(path, "wb") as file:
        file.write(content)
