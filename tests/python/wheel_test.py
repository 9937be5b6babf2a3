"""Tests of the files that scripts/dist-wheels has made.

    wheel_test.py PACKAGES BINARIES VERSION

BINARIES is the directory of target/dist from which the wheel was made.
"""

import base64
import csv
import hashlib
import itertools
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile
import zlib
from email.parser import Parser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "python"))
import library_sums  # noqa: E402

PACKAGES, BINARIES = map(Path, sys.argv[1:3])
VERSION = sys.argv[3]
(WHEEL,) = PACKAGES.glob("sopin-*.whl")
SOURCES = PACKAGES / f"sopin-{VERSION}.tar.gz"
NOTES = f"sopin-{VERSION}.dist-info"
COMMAND = f"sopin-{VERSION}.data/scripts/sopin"


class Wheel(unittest.TestCase):
    def setUp(self):
        self.wheel = zipfile.ZipFile(WHEEL)
        self.addCleanup(self.wheel.close)

    def text(self, name):
        return self.wheel.read(name).decode()

    def test_it_has_these_files(self):
        modules = ["__init__", "__main__", "_library", "_periodic", "gunicorn"]
        expected = {f"sopin/{name}.py" for name in modules} | {"_sopin_check.py", "_sopin_start.py", "sopin/py.typed"}
        expected |= {"sopin/libsopin.so", "sopin/libsopin.sums", "sopin/third-party-licenses.txt", COMMAND}
        expected |= {f"{NOTES}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
        self.assertEqual(set(self.wheel.namelist()), expected)

    def test_the_binaries_are_those_that_are_published(self):
        library = self.wheel.read("sopin/libsopin.so")
        self.assertEqual(library, (BINARIES / "libsopin.so").read_bytes())
        self.assertEqual(self.wheel.read(COMMAND), (BINARIES / "sopin").read_bytes())

    def test_the_sums_are_those_of_the_library(self):
        library = self.wheel.read("sopin/libsopin.so")
        size, checksum, *quick = self.text("sopin/libsopin.sums").split()
        self.assertEqual((int(size), int(checksum, 16)), (len(library), zlib.crc32(library)))
        self.assertEqual(len(quick), 2)
        with tempfile.TemporaryDirectory() as directory:
            for name in ("_sopin_check.py", "_sopin_start.py", "sopin/libsopin.so", "sopin/libsopin.sums"):
                self.wheel.extract(name, directory)
            ask = "import _sopin_check; print(_sopin_check.defect(), f'{_sopin_check.quick_sum():016x}')"
            asked = subprocess.run([sys.executable, "-B", "-c", ask], cwd=directory, capture_output=True, text=True)
        defect, own = asked.stdout.split()
        self.assertEqual(defect, "None")
        self.assertIn(own, quick)

    def test_the_hash_functions_are_those_of_cpython(self):
        """What `_imp.source_hash` returned in CPython 3.11 and 3.8."""
        content = bytes(range(64))
        self.assertEqual(library_sums.siphash(7, content, 1, 3).hex(), "fed16a021c8b2450")
        self.assertEqual(library_sums.siphash(7, content, 2, 4).hex(), "c4ce645dfee1a177")

    def test_the_licenses_of_what_is_linked_are_there(self):
        licenses = self.text("sopin/third-party-licenses.txt")
        for part in ("lock_api", "clap", "gimli", "musl"):
            self.assertRegex(licenses, rf"(?m)^{part} \S+: ")

    def test_modes(self):
        for entry in self.wheel.infolist():
            mode = 0o755 if entry.filename in (COMMAND, "sopin/libsopin.so") else 0o644
            if not entry.filename.startswith(NOTES):
                self.assertEqual(entry.external_attr >> 16 & 0o777, mode, entry.filename)

    def test_the_record_is_true(self):
        rows = {name: (digest, size) for name, digest, size in csv.reader(self.text(f"{NOTES}/RECORD").splitlines())}
        self.assertEqual(set(rows), set(self.wheel.namelist()))
        for name, (digest, size) in rows.items():
            if name != f"{NOTES}/RECORD":
                content = self.wheel.read(name)
                found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                self.assertEqual((f"sha256={found}", str(len(content))), (digest, size), name)

    def test_tags(self):
        machine = BINARIES.name
        platforms = [f"manylinux_2_17_{machine}", f"manylinux2014_{machine}", f"musllinux_1_2_{machine}"]
        self.assertEqual(WHEEL.name, f"sopin-{VERSION}-py3-none-{'.'.join(platforms)}.whl")
        notes = Parser().parsestr(self.text(f"{NOTES}/WHEEL"))
        self.assertEqual(sorted(notes.get_all("Tag")), sorted(f"py3-none-{name}" for name in platforms))
        self.assertEqual(notes["Root-Is-Purelib"], "false")

    def test_metadata(self):
        notes = Parser().parsestr(self.text(f"{NOTES}/METADATA"))
        expected = {"Name": "sopin", "Version": VERSION, "Requires-Python": ">=3.8", "License-Expression": "Apache-2.0"}
        self.assertEqual({name: notes[name] for name in expected}, expected)
        self.assertIsNone(notes["Requires-Dist"])


class Sources(unittest.TestCase):
    def test_they_are_what_cargo_builds_from(self):
        with tarfile.open(SOURCES) as archive:
            members = archive.getmembers()
        names = {member.name.split("/", 1)[1] for member in members}
        wanted = {"Cargo.toml", "Cargo.lock", "build.rs", "src/lib.rs", "crates/cli/src/main.rs", "pyproject.toml"}
        self.assertEqual(wanted - names, set())
        unwanted = itertools.product(names, ("target/", ".git/", "__pycache__"))
        self.assertEqual([name for name, part in unwanted if part in name], [])
        self.assertEqual({(member.uid, member.gid, member.uname) for member in members}, {(0, 0, "")})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
