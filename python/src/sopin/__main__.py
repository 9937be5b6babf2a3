"""`python -m sopin`: executes the command `sopin` of the environment, in the same process."""

from __future__ import annotations

import os
import sys
from importlib import metadata


def _command() -> str:
    """Returns the path of the command that was installed with this package, wherever the installer put it."""
    distribution = metadata.distribution("sopin")
    paths = [str(file.locate()) for file in distribution.files or () if file.parts[-2:] == ("bin", "sopin")]
    # `pip install --target` puts it here, and notes another path.
    paths.append(str(distribution.locate_file("bin/sopin")))
    for path in paths:
        if os.path.isfile(path):
            # `sopin` finds its library by its own path, so that must be the real one.
            return os.path.realpath(path)
    raise FileNotFoundError(f"no file {' or '.join(paths)}")


def main() -> None:
    try:
        command = _command()
        os.execv(command, ["sopin", *sys.argv[1:]])
    except (OSError, metadata.PackageNotFoundError) as error:
        print(f"python -m sopin: {error}; reinstall the package sopin", file=sys.stderr)
        sys.exit(125)


if __name__ == "__main__":
    main()
