"""Finds out from Cargo which packages are in the files that are published.

Reads `cargo metadata` and `cargo tree`, for each of the platforms that are published. It
distinguishes what is linked into the files from what only runs while they are built.
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
            needed = _tree(root, platform, "normal,build")
            linked = _tree(root, platform, "normal,no-proc-macro")
            _add(found, checksums, _metadata(platform), needed, linked)
    return dict(sorted(found.items()))


def _cargo(*arguments: str) -> str:
    command = [os.environ.get("CARGO", "cargo"), *arguments, "--locked"]
    return subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _metadata(platform: str) -> dict:
    return json.loads(_cargo("metadata", "--format-version", "1", "--filter-platform", platform))


def _tree(root: str, platform: str, edges: str) -> set[tuple[str, str]]:
    """Returns the names and versions of the packages that Cargo builds for a published file.

    `cargo metadata` alone would add some: it turns on the features that any member of the workspace
    asks for, also those that only its tests need.
    """
    printed = _cargo("tree", "-p", root, "--target", platform, "-e", edges, "--prefix", "none", "--format", "{p}")
    words = [line.split() for line in printed.splitlines() if line]
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def _add(
    found: dict[tuple[str, str], Package],
    checksums: dict,
    metadata: dict,
    needed: set[tuple[str, str]],
    linked: set[tuple[str, str]],
) -> None:
    packages = {package["id"]: package for package in metadata["packages"]}
    for node in metadata["resolve"]["nodes"]:
        about = packages[node["id"]]
        key = (about["name"], about["version"])
        if key not in needed:
            continue
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
        package.is_linked |= key in linked
        for dependency in node["deps"]:
            other = packages[dependency["pkg"]]
            is_for_tests = {kind["kind"] for kind in dependency["dep_kinds"]} == {"dev"}
            if not is_for_tests and (other["name"], other["version"]) in needed:
                package.dependencies.add((other["name"], other["version"]))
