"""Finds out from Cargo which packages are in the files that are published.

Reads `cargo metadata`, for each of the platforms that are published. It distinguishes what is
linked into the files from what only runs while they are built.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
ARCHITECTURES = ("x86_64", "aarch64")
# The packages of the published files, each with its platforms.
ROOTS = {
    "sopin": [f"{architecture}-unknown-linux-gnu" for architecture in ARCHITECTURES],
    "sopin-cli": [f"{architecture}-unknown-linux-musl" for architecture in ARCHITECTURES],
}


@dataclass
class Package:
    """A package of Cargo that a published file needs."""

    name: str
    version: str
    license: str
    repository: str
    directory: Path
    # Of the archive in the registry; empty for a member of the workspace.
    sha256: str
    is_linked: bool = False
    # By name and version.
    dependencies: set[tuple[str, str]] = field(default_factory=set)


def published() -> dict[tuple[str, str], Package]:
    """Returns the packages by name and version, sorted."""
    lock = tomllib.loads((CHECKOUT / "Cargo.lock").read_text())
    checksums = {(entry["name"], entry["version"]): entry.get("checksum", "") for entry in lock["package"]}
    found: dict[tuple[str, str], Package] = {}
    for root, platforms in ROOTS.items():
        for platform in platforms:
            _add(found, checksums, root, _metadata(platform))
    return dict(sorted(found.items()))


def _metadata(platform: str) -> dict:
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--locked", "--format-version", "1"]
    done = subprocess.run(
        [*command, "--filter-platform", platform], cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def _add(found: dict[tuple[str, str], Package], checksums: dict, root: str, metadata: dict) -> None:
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    members = [packages[identifier] for identifier in metadata["workspace_members"]]
    seen: set[tuple[str, bool]] = set()
    todo = [(package["id"], True) for package in members if package["name"] == root]
    while todo:
        identifier, is_linked = todo.pop()
        about = packages[identifier]
        # The compiler loads these; nothing of them is in the files.
        is_linked = is_linked and not any("proc-macro" in target["kind"] for target in about["targets"])
        if (identifier, is_linked) in seen:
            continue
        seen.add((identifier, is_linked))
        key = (about["name"], about["version"])
        package = found.setdefault(
            key,
            Package(
                name=about["name"],
                version=about["version"],
                # A slash is the old form of OR.
                license=(about["license"] or "").replace("/", " OR "),
                repository=about["repository"] or "",
                directory=Path(about["manifest_path"]).parent,
                sha256=checksums[key],
            ),
        )
        package.is_linked |= is_linked
        for dependency in nodes[identifier]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            if kinds == {"dev"}:
                continue
            needed = packages[dependency["pkg"]]
            package.dependencies.add((needed["name"], needed["version"]))
            todo.append((dependency["pkg"], is_linked and None in kinds))
