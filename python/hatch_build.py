"""Puts the library and the command into the wheel, and gives it the tags that are true for them.

SOPIN_BINARIES names a directory of `target/dist`: the wheel gets those files, which serve every
C library that its tags name, and the licenses of what is linked into them, which are in the
file that SOPIN_LICENSES names. Without it, cargo builds both for this machine, and the wheel
says no more than that.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# hatchling loads this file by its path.
sys.path.insert(0, str(Path(__file__).parent))
import library_sums  # noqa: E402

# glibc since 2.17 and musl since 1.2; tests/dist.rs checks what the files need.
UNIVERSAL = "py3-none-manylinux_2_17_{0}.manylinux2014_{0}.musllinux_1_2_{0}"


class Binaries(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if version == "editable":
            raise RuntimeError("sopin cannot be editable; set PYTHONPATH=python/src and SOPIN_LIBRARY instead")
        if os.environ.get("SOPIN_BINARIES"):
            directory = Path(os.environ["SOPIN_BINARIES"])
            tag = UNIVERSAL.format(directory.name)
            build_data["force_include"][os.environ["SOPIN_LICENSES"]] = "sopin/third-party-licenses.txt"
        else:
            directory = self.build_binaries()
            tag = f"py3-none-linux_{platform.machine()}"
        library = directory / "libsopin.so"
        work = Path(self.root) / "target" / "wheel"
        work.mkdir(parents=True, exist_ok=True)
        sums = work / f"{directory.name}.sums"
        sums.write_text(library_sums.text(library.read_bytes()), encoding="ascii")
        build_data["tag"] = tag
        build_data["pure_python"] = False
        build_data["force_include"][str(library)] = "sopin/libsopin.so"
        build_data["force_include"][str(sums)] = "sopin/libsopin.sums"
        build_data["shared_scripts"][str(directory / "sopin")] = "sopin"

    def build_binaries(self) -> Path:
        """Builds the library and the command for this machine, and returns where they are."""
        cargo = os.environ.get("CARGO", "cargo")
        if shutil.which(cargo) is None:
            raise RuntimeError("no wheel of sopin is for this machine, and building one needs cargo (https://rustup.rs)")
        target = Path(os.environ.get("CARGO_TARGET_DIR", Path(self.root) / "target"))
        packages = ["-p", "sopin", "-p", "sopin-cli"]
        command = [cargo, "build", "--locked", "--release", *packages, "--target-dir", str(target)]
        subprocess.run(command, cwd=self.root, check=True)
        return target / "release"
