"""Rewrites shared objects in place, as old pip, `cp` and `rsync --inplace` do:
the same inode, truncated and filled again."""

from __future__ import annotations

import time
from pathlib import Path

from environment import Packages, Site


class Rewriter:
    """Knows what is in the objects of a site, and what else could be."""

    def __init__(self, site: Site, packages: Packages) -> None:
        self.objects = site.shared_objects
        self.originals = {path: path.read_bytes() for path in self.objects}
        self.others = {}
        for path in self.objects:
            other = (
                packages.other_builds / path.relative_to(site.root).relative_to("site-packages")
                if path.is_relative_to(site.root / "site-packages")
                else None
            )
            if other is not None and other.is_file() and other.read_bytes() != self.originals[path]:
                self.others[path] = other.read_bytes()
        if not self.others:
            raise SystemExit("no object has another build: the demonstration would show nothing")

    def same_bytes(self) -> None:
        """Writes what is there already."""
        for path in self.objects:
            write_in_place(path, self.originals[path])

    def other_build(self) -> None:
        """Installs other builds where there are some, the same bytes elsewhere."""
        for path in self.objects:
            write_in_place(path, self.others.get(path, self.originals[path]))

    def empty_for(self, seconds: float) -> None:
        """Leaves every object with no length for a while."""
        for path in self.objects:
            write_in_place(path, b"")
        time.sleep(seconds)
        self.same_bytes()


def write_in_place(path: Path, content: bytes) -> None:
    """`open(path, "wb")` truncates and keeps the inode: this is the disease."""
    with open(path, "wb") as file:
        file.write(content)
