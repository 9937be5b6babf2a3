"""Protects a service of gunicorn, however it is started:

    gunicorn -c python:sopin.gunicorn app:app

or, in a configuration file of your own, `import sopin.gunicorn` before everything else.

LD_PRELOAD has to be set when a program starts, and gunicorn reads its configuration
later. So this starts gunicorn again in the same process, before anything of the service
exists; the process id, open descriptors and the command line stay. If you can change the
command line, `sopin run gunicorn app:app` is better, or the drop-in of examples/systemd.
In an environment in which `sopin enable` was run, gunicorn is protected already.
Import this in no other program: it would be started again, too.

With `user` and `group` the master runs as root and the workers do not. Each user
has a store of its own, and a worker may not write to the HOME that it inherits, so
it copies what it loads after the fork to private memory. Set `preload_app`, so that
the master loads everything, or fill the store for all users: `sopin store fill
--used-by PID` with the id of a worker. Do not set SOPIN_STORE or XDG_CACHE_HOME,
because they name the store of one user only.
"""

from __future__ import annotations

import os
import sys

from . import _library


def _command_line() -> list[str]:
    """Returns the interpreter's arguments, its own options included."""
    if sys.version_info >= (3, 10):
        return list(sys.orig_argv)
    with open("/proc/self/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]


def _start_again_protected() -> None:
    if _library.was_loaded:
        return
    if not _library.is_loaded():
        print(f"{_library.PATH}: not loaded; this service is not protected", file=sys.stderr)
        return
    # The start before this one did not load the library, because the loader ignores the
    # variable. A second attempt would not help. Importing the package has loaded it.
    if os.environ.get("SOPIN_STARTED_AGAIN") == str(os.getpid()):
        return
    # The loader takes these for separators or tokens, and LD_PRELOAD has no way to quote
    # them (ld.so(8)).
    if any(character in _library.PATH for character in " :$"):
        return
    os.environ["SOPIN_STARTED_AGAIN"] = str(os.getpid())
    others = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = f"{_library.PATH}:{others}" if others else _library.PATH
    os.execv(sys.executable, [sys.executable, *_command_line()[1:]])


_start_again_protected()
