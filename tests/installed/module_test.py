"""Tests of the package sopin (python/src), which run in a process of their own."""

import os
import threading
import time
import unittest
import warnings

import sopin

IS_OFF = os.environ["SOPIN_MODE"] == "off"
IS_PRELOADED = "LD_PRELOAD" in os.environ
# Objects that were loaded before the library are pinned whole if threads can be stopped.
IS_WHOLE = IS_PRELOADED or "SOPIN_TEST_UNSTOPPABLE" not in os.environ
DEADLINE_SECONDS = 30


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.005)


def c_library():
    return next(item for item in sopin.status().objects if "/libc.so" in item.path)


class Module(unittest.TestCase):
    def test_status_lists_every_object(self):
        state = sopin.status()
        self.assertEqual(state.mode, os.environ["SOPIN_MODE"])
        self.assertRegex(state.version, r"^\d+\.\d+\.\d+$")
        self.assertEqual(state.objects[0].path, os.path.realpath("/proc/self/exe"))
        self.assertTrue(any("/libsopin.so" in item.path for item in state.objects))
        reached = "full" if IS_WHOLE else "exposed"
        self.assertEqual(c_library().reached, "pending" if IS_OFF else reached)
        self.assertEqual(c_library().bytes > 0, not IS_OFF)
        self.assertEqual(state.count("full") > (3 if IS_WHOLE else 0), not IS_OFF)

    def test_pin(self):
        is_pinned = IS_WHOLE and not IS_OFF
        self.assertIs(sopin.pin(c_library().path), is_pinned)
        self.assertIs(sopin.pin("libc.so.6"), is_pinned)
        self.assertIs(sopin.pin_all(), is_pinned)
        if not IS_OFF:
            with self.assertRaises(FileNotFoundError):
                sopin.pin("/nowhere/libabsent.so")
            with self.assertRaises(sopin.Error) as caught:
                sopin.pin("")
            self.assertEqual(caught.exception.code, -1)
            self.assertEqual(str(caught.exception), "Invalid argument")

    def test_start_pins_now_and_again(self):
        calls = []
        library = sopin._library._library
        real = library.sopin_pin_all
        library.sopin_pin_all = lambda: calls.append(threading.current_thread().name) or real()
        try:
            sopin.start(0.01)
            sopin.start(0.02)
            self.assertEqual(calls[:1], ["MainThread"])
            wait_until(lambda: calls.count("sopin") >= 3)
            names = [thread.name for thread in threading.enumerate()]
            self.assertEqual(names.count("sopin"), 1)
            self.assertTrue(all(thread.daemon for thread in threading.enumerate() if thread.name == "sopin"))
            child = os.fork()
            if child == 0:
                calls.clear()
                try:
                    wait_until(lambda: calls.count("sopin") >= 2)
                    os._exit(42)
                finally:
                    os._exit(1)
            self.assertEqual(os.waitpid(child, 0)[1], 42 << 8)
        finally:
            sopin.stop()
            library.sopin_pin_all = real
        self.assertNotIn("sopin", [thread.name for thread in threading.enumerate()])
        with self.assertRaises(ValueError):
            sopin.start(0)

    def test_what_is_exposed_is_warned_of_once(self):
        answers = [-5, -5, 0]
        exposed = sopin.Object("/x/liba.so", 0, "exposed", 4096, "pin writable ranges: code of the object may have run")
        partial = sopin.Object("/x/libb.so", 0, "relocated", 4096, "pin text: some pages are modified")
        fine = sopin.Object("/x/libc.so", 0, "full", 4096, None)
        state = sopin.Status("1.2.3", "full", [exposed, partial, fine])
        library = sopin._library._library
        real_pin, real_status = library.sopin_pin_all, sopin._library.status
        library.sopin_pin_all = lambda: answers.pop(0)
        sopin._library.status = lambda: state
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                results = [sopin.pin_all() for _ in range(3)]
        finally:
            library.sopin_pin_all, sopin._library.status = real_pin, real_status
        self.assertEqual(results, [False, False, True])
        self.assertEqual(
            [str(item.message) for item in caught],
            [
                "/x/liba.so: exposed: pin writable ranges: code of the object may have run",
                "/x/libb.so: relocated: pin text: some pages are modified",
            ],
        )
        self.assertTrue(all(item.category is sopin.NotPinned for item in caught))
        self.assertEqual({item.filename for item in caught}, {__file__})


if __name__ == "__main__":
    unittest.main()
