"""What Yama permits, in a machine of the laboratory: `sopin pin` of a process, and late pins of
the library in its own process, as root and as another user, with each value of
kernel.yama.ptrace_scope. The last one stays in force until the machine ends.

`yama.py COMMAND LIBRARY DIRECTORY` prints the outcome of each test as the harness does.
"""

import json
import os
import signal
import subprocess
import sys

COMMAND, LIBRARY, DIRECTORY = sys.argv[1:]
SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
ROOT, USER = 0, 65534
SLEEPER = "import sys, time; print('ready', flush=True); time.sleep(1000)"
# The objects of a Python that loads the library late, while another thread runs.
LATE = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(1000,)).start(); "
LATE += f"ctypes.CDLL({LIBRARY!r}); print('ready', flush=True); time.sleep(1000)"


def as_user(user):
    """What makes a program run as a user with a store of its own."""
    store = f"{DIRECTORY}/{user}"
    os.makedirs(store, exist_ok=True)
    os.chown(store, user, user)
    os.chmod(store, 0o700)
    environment = {**os.environ, "SOPIN_STORE": store, "SOPIN_LOG": "info"}
    return {"user": user, "group": user, "extra_groups": [], "env": environment}


class Program:
    """A Python that sleeps, with its lines on standard error."""

    def __init__(self, user, code):
        self.log = open(f"{DIRECTORY}/log", "w+b")
        arguments = [sys.executable, "-I", "-S", "-c", code]
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=self.log, start_new_session=True, **as_user(user)
        )
        assert self.process.stdout.readline() == b"ready\n"

    def said(self):
        self.log.seek(0)
        return self.log.read().decode()

    def states(self):
        """The numbers of its objects that are full, and that are not."""
        answer = run(ROOT, "status", "--json", self.process.pid)[1]["processes"][0]
        return answer["full"], answer["relocated"] + answer["exposed"] + answer["damaged"]

    def end(self):
        """Ends it. Returns whether it ran until now."""
        is_running = self.process.poll() is None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return is_running


def run(user, *words):
    """Runs the command. Returns its exit status and its answer."""
    finished = subprocess.run([COMMAND, *map(str, words)], stdout=subprocess.PIPE, **as_user(user))
    return finished.returncode, json.loads(finished.stdout)


def is_pinned(by, owner):
    program = Program(owner, SLEEPER)
    full_before = program.states()[0]
    status, answer = run(by, "pin", "--json", program.process.pid)
    full, others = program.states()
    print(f"sopin pin: exit {status}, {full_before} full before, {full} full after, {others} not")
    return status == 0 and full > full_before and others == 0 and program.end()


def is_refused(by, owner, remedy):
    program = Program(owner, SLEEPER)
    before = program.states()
    status, answer = run(by, "pin", "--json", program.process.pid)
    print(f"sopin pin: exit {status}, {answer['not_pinned']}, {answer['remedy']}")
    errors = [refused["error"] for refused in answer["not_pinned"]]
    is_right = status == 3 and errors == ["denied"] and remedy in answer["remedy"]
    return is_right and program.states() == before and program.end()


def pins_late(user):
    program = Program(user, LATE)
    full, others = program.states()
    print(f"late: {full} full, {others} not\n{program.said()}")
    return full > 3 and others == 0 and program.end()


def leaves_what_is_late(user, reason):
    program = Program(user, LATE)
    full, others = program.states()
    print(f"late: {full} full, {others} not\n{program.said()}")
    return others > 0 and reason in program.said() and program.end()


UNTIL_RESTARTED = "until the machine is started anew"
TESTS = {
    "0": {
        "a_user_pins_its_own": lambda: is_pinned(USER, USER),
        "a_user_pins_late": lambda: pins_late(USER),
    },
    "1": {
        "a_user_is_told_the_remedy": lambda: is_refused(USER, USER, "ptrace_scope=1"),
        "a_user_pins_nothing_late": lambda: leaves_what_is_late(USER, "ptrace"),
        "root_pins": lambda: is_pinned(ROOT, USER),
        "root_pins_late": lambda: pins_late(ROOT),
    },
    "2": {
        "a_user_is_told_the_remedy": lambda: is_refused(USER, USER, "ptrace_scope=2"),
        "root_pins": lambda: is_pinned(ROOT, USER),
        "root_pins_late": lambda: pins_late(ROOT),
    },
    "3": {
        "root_is_told_that_there_is_no_remedy": lambda: is_refused(ROOT, USER, UNTIL_RESTARTED),
        "root_pins_nothing_late": lambda: leaves_what_is_late(ROOT, "ptrace"),
    },
}

if not os.path.exists(SCOPE):
    sys.exit("this kernel has no Yama")
for scope, tests in TESTS.items():
    with open(SCOPE, "w") as file:
        file.write(scope)
    for name, test in tests.items():
        print(f"test yama::{scope}::{name} ...", "ok" if test() else "FAILED", flush=True)
