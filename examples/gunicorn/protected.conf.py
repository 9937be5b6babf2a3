"""A configuration of gunicorn that protects the service, however it is started:

    gunicorn -c protected.conf.py app:app

LD_PRELOAD has to be set when a program starts, and this file is read later. So it
starts gunicorn again in the same process, before anything of the service exists; the
process id, open descriptors and the command line stay. If you can change the command
line, `sopin run gunicorn app:app` is better, or the drop-in of examples/systemd.

With `user` and `group` the master runs as root and the workers do not. Each user
has a store of its own, and a worker may not write to the HOME that it inherits, so
it copies what it loads after the fork to private memory. Set `preload_app`, so that
the master loads everything, or fill the store for all users: `sopin store fill
--used-by PID` with the id of a worker. Do not set SOPIN_STORE or XDG_CACHE_HOME,
because they name the store of one user only.
"""

import os
import sys

LIBRARY = os.environ.get("SOPIN_LIBRARY", "/usr/local/lib/libsopin.so")


def start_again_protected():
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        if "/libsopin.so" in maps.read():
            return
    # The start before this one did not load the library, because the loader ignores the
    # variable. A second attempt would not help.
    if os.environ.get("SOPIN_STARTED_AGAIN") == str(os.getpid()) or not os.access(LIBRARY, os.R_OK):
        print(f"{LIBRARY}: not loaded; this service is not protected", file=sys.stderr)
        return
    os.environ["SOPIN_STARTED_AGAIN"] = str(os.getpid())
    others = os.environ.get("LD_PRELOAD")
    os.environ["LD_PRELOAD"] = f"{LIBRARY}:{others}" if others else LIBRARY
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


start_again_protected()

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = 2
