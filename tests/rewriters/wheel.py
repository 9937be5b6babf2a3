"""Makes a wheel with one compiled object in it.

wheel.py NAME OBJECT DIRECTORY writes DIRECTORY/NAME-1.0-py3-none-any.whl, a
package NAME whose one file is victim/libvictim.so, and prints its path;
wheel.py --unpack WHEEL SITE unpacks it to the place where an installer puts it.
"""
import base64
import hashlib
import sys
import zipfile
from pathlib import Path


def digest(content: bytes) -> str:
    """Returns the hash of a file in the form of RECORD (PEP 376, PEP 427)."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def make(name: str, library: Path, directory: Path) -> Path:
    """Writes the wheel."""
    info = f"{name}-1.0.dist-info"
    files = {
        "victim/libvictim.so": library.read_bytes(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: sopin\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
    }
    rows = [f"{path},{digest(content)},{len(content)}" for path, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    wheel = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


if __name__ == "__main__":
    if sys.argv[1] == "--unpack":
        zipfile.ZipFile(sys.argv[2]).extractall(sys.argv[3])
    else:
        print(make(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
