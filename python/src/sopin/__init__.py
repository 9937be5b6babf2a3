"""Keeps this process alive while its shared objects are rewritten on disk.

    import sopin            # first, before anything with compiled extensions
    sopin.start()

    sopin.pin("/srv/shop/venv/lib/python3.12/site-packages/numpy/_core/_multiarray_umath.so")
    sopin.pin_all()
    for item in sopin.status().objects: print(item)

Importing the package is enough to protect what the process loads afterwards:

* In a process that was started with LD_PRELOAD=libsopin.so, by `sopin run`, or in an
  environment in which `sopin enable` was run, it uses the library that is loaded.
  Everything is pinned already.
* Otherwise importing it loads the package's own library with RTLD_GLOBAL: whatever is
  imported later is pinned before its constructors run. The writable data of objects
  that are already loaded is copied while all threads have stopped. Where they cannot
  be stopped, it stays in the file, and the rest is pinned. So import it first, or
  better use `sopin run`.

It searches for the library in the process, then beside this file, and nowhere else. If
SOPIN_LIBRARY is set, it takes that file instead of its own. If there is no library, the
import succeeds with a warning, because a program that is merely not protected must start.
Every function then raises ImportError with the reason.

What could not be pinned is reported by warnings.warn, once for each object and reason.
The settings are the library's own: SOPIN_MODE, SOPIN_LOG and the others.
"""

from ._library import Error, NotPinned, Object, Status, pin, pin_all, status
from ._periodic import start, stop

__all__ = ["Error", "NotPinned", "Object", "Status", "pin", "pin_all", "start", "status", "stop"]
