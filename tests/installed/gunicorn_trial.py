"""Serves with the configuration sopin.gunicorn (python/src), rewrites the extension that the
workers have loaded, and sends requests again.

    gunicorn_trial.py EXTENSION [USER]

Exits with 42 if every response was right and no worker was replaced, with 43 if
a worker died of the rewriting.
"""

import http.client
import os
import pwd
import signal
import socket
import subprocess
import sys
import time

DEADLINE = time.monotonic() + 50
APPLICATION = """
import importlib.util, os
specification = importlib.util.spec_from_file_location("_json", {extension!r})
extension = importlib.util.module_from_spec(specification)
specification.loader.exec_module(extension)

def app(environ, start_response):
    word = extension.scanstring('"right"', 1)[0]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{word}} {{os.getpid()}} {{os.getuid()}}".encode()]
"""


def wait_for(condition, what):
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < DEADLINE, f"never: {what}"
        time.sleep(0.01)


def ask(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        word, pid, uid = connection.getresponse().read().decode().split()
        return word, int(pid), int(uid)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def workers_that_answer(port):
    """Waits until both workers have answered, and returns them."""
    seen = {}

    def both():
        answer = ask(port)
        if answer:
            seen[answer[1]] = answer
        return len(seen) == 2

    wait_for(both, "two workers")
    return seen


def shows(pid, text):
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return text in maps.read()


def main():
    extension, *user = sys.argv[1:]
    with open("service.py", "w", encoding="ascii") as file:
        file.write(APPLICATION.format(extension=extension))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # This HOME belongs to the master, and workers of another user cannot enter it.
    os.mkdir("home", 0o700)
    environment = dict(os.environ, HOME=os.path.abspath("home"))
    environment.pop("XDG_CACHE_HOME", None)
    environment.pop("CACHE_DIRECTORY", None)
    command = [sys.executable, "-m", "gunicorn", "-c", "python:sopin.gunicorn"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "2"]
    command += [word for name in user for word in ("--user", name)] + ["service:app"]
    with open("gunicorn.log", "wb") as log:
        service = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        before = workers_that_answer(port)
        uid = pwd.getpwnam(user[0]).pw_uid if user else os.getuid()
        assert all(word == "right" and its == uid for word, _, its in before.values()), before
        protected = shows(service.pid, "/libsopin.so")
        assert all(shows(pid, "/libsopin.so") == protected for pid in before)
        if protected and user:
            # A worker has the objects that it has loaded in private memory, because it
            # may not write to the HOME that it inherits.
            assert all(shows(pid, "/memfd:sopin:") for pid in before)
            assert all(shows(pid, os.path.abspath("home/.cache/sopin")) for pid in before)
        with open(extension, "rb") as file:
            content = file.read()
        with open(extension, "wb") as file:
            file.write(content)
        for _ in range(20):
            answer = ask(port)
            if answer is None or answer[1] not in before:
                return 43
            assert answer[0] == "right", answer
        assert workers_that_answer(port).keys() == before.keys()
        return 42 if protected else 1
    finally:
        os.killpg(service.pid, signal.SIGTERM)
        try:
            service.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(service.pid, signal.SIGKILL)
        with open("gunicorn.log", encoding="utf-8") as log:
            sys.stderr.write(log.read())


sys.exit(main())
