"""Runs a program of examples/python, rewrites every shared object of its environment while it
answers, and looks whether the same processes go on answering.

    service_trial.py PROGRAM HOW ENVIRONMENT

HOW is unprotected, run, enabled, or for gunicorn configured. ENVIRONMENT is a copy that nobody
else uses. Exits with 42 if all answers were right and no process was replaced, with 43 if one died.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

DEADLINE = time.monotonic() + 150
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"
RIGHT = "&lt;right&gt;"
REWRITES = 3
ANSWERS = 40


class Died(Exception):
    """The program does not answer any more, or with other processes."""


def wait_for(condition, what, seconds=90.0):
    deadline = min(DEADLINE, time.monotonic() + seconds)
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Died(what)
        time.sleep(0.01)


def process_of(text):
    """Returns the number of the process that has given this answer."""
    word, pid = text.split()
    if word != RIGHT:
        raise Died(f"wrong answer {text!r}")
    return int(pid)


class Program:
    """A program that is started, and asked through `ask`, which returns the process that answered."""

    workers = 2

    def __init__(self, environment, how):
        self.environment, self.how = environment, how
        self.python = str(environment / "bin" / "python")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.variables = dict(os.environ, PYTHONPATH=str(EXAMPLES), PORT=str(self.port), QUEUE=os.path.abspath("queue"))
        self.variables.update(PYTHONDONTWRITEBYTECODE="1", PYTHONWARNINGS="ignore")
        self.log = open("program.log", "wb")
        self.process = None

    def start(self):
        command = self.command()
        if self.how == "run":
            command = [str(self.environment / "bin" / "sopin"), "run", "--", *command]
        self.process = subprocess.Popen(
            command, env=self.variables, stdout=self.output(), stderr=self.log, start_new_session=True
        )

    def output(self):
        return self.log

    def stop(self):
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


class Server(Program):
    def ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/")
            return process_of(connection.getresponse().read().decode())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Died(f"no answer: {error}") from error
        finally:
            connection.close()


class Gunicorn(Server):
    def command(self):
        configured = ["-c", "python:sopin.gunicorn"] if self.how == "configured" else []
        options = [*configured, "--workers", "2", "--bind", f"127.0.0.1:{self.port}"]
        return [self.python, "-m", "gunicorn", *options, "service:app"]


class Uwsgi(Server):
    def command(self):
        # The wheel's script has the path of another environment in its first line.
        start = "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])"
        return [self.python, "-c", start, "--ini", str(EXAMPLES / "uwsgi.ini"), "--virtualenv", str(self.environment)]


class Uvicorn(Server):
    def command(self):
        options = ["--workers", "2", "--loop", "uvloop", "--port", str(self.port)]
        return [self.python, "-m", "uvicorn", *options, "service:asgi_app"]


class Celery(Program):
    def __init__(self, environment, how):
        super().__init__(environment, how)
        os.environ["QUEUE"] = self.variables["QUEUE"]
        sys.path.insert(0, str(EXAMPLES))
        import tasks

        # A worker may read a message that is not complete yet, and then ends. So messages are
        # written elsewhere and moved.
        self.messages, self.written = Path("queue/messages"), Path("queue/written")
        self.written.mkdir()
        tasks.app.conf.broker_transport_options["data_folder_out"] = str(self.written)
        self.task = tasks.answer_task

    def command(self):
        options = ["--concurrency", "2", "--loglevel", "warning", "--without-mingle", "--without-gossip"]
        return [self.python, "-m", "celery", "-A", "tasks", "worker", *options]

    def ask(self):
        try:
            result = self.task.delay()
            for message in self.written.iterdir():
                message.rename(self.messages / message.name)
            deadline = time.monotonic() + 20
            while True:
                try:
                    answer = result.get(timeout=20, interval=0.02)
                    break
                except ValueError:
                    # The file with the result is not complete yet, either.
                    if time.monotonic() > deadline:
                        raise
        except Exception as error:
            raise Died(f"no answer: {error!r}") from error
        return process_of(answer)


class Scheduler(Program):
    workers = 1

    def __init__(self, environment, how):
        super().__init__(environment, how)
        self.lines = None

    def command(self):
        return [self.python, str(EXAMPLES / "scheduler.py")]

    def output(self):
        return subprocess.PIPE

    def ask(self):
        if self.lines is None:
            self.lines = self.process.stdout
            os.set_blocking(self.lines.fileno(), False)
        line = wait_for(self.lines.readline, "no job runs", 10)
        return process_of(line.decode())


class Jupyter(Program):
    """A kernel, as any server of Jupyter starts it."""

    workers = 1

    def __init__(self, environment, how):
        super().__init__(environment, how)
        self.manager = self.client = None

    def start(self):
        from jupyter_client import KernelManager

        self.manager = KernelManager()
        self.manager.kernel_spec.argv = [self.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(env=self.variables, stdout=self.log, stderr=self.log)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=90)

    def ask(self):
        said = []

        def hook(message):
            if message["msg_type"] == "stream":
                said.append(message["content"]["text"])

        try:
            code = "import service; print(service.answer())"
            self.client.execute_interactive(code, store_history=False, output_hook=hook, timeout=10)
            return process_of("".join(said))
        except Exception as error:
            raise Died(f"no answer: {error!r}") from error

    def stop(self):
        if self.client is not None:
            self.client.stop_channels()
        if self.manager is not None and self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.log.close()


PROGRAMS = {
    "gunicorn": Gunicorn,
    "uwsgi": Uwsgi,
    "uvicorn": Uvicorn,
    "celery": Celery,
    "scheduler": Scheduler,
    "jupyter": Jupyter,
}


def all_workers(program):
    """Asks until every worker has answered, and returns their numbers."""
    seen = set()

    def complete():
        seen.add(program.ask())
        return len(seen) >= program.workers

    wait_for(complete, f"only {seen} answer")
    return seen


def is_ready(program):
    try:
        return bool(program.ask())
    except Died:
        return False


def has_library(pid):
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
        return "/libsopin.so" in maps.read()


def rewrite(objects):
    """Writes the same bytes in place, as cp does."""
    for path in objects:
        content = path.read_bytes()
        with open(path, "wb") as file:
            file.write(content)


def main():
    name, how, environment = sys.argv[1:]
    environment = Path(environment)
    objects = [path for path in environment.glob("lib/python3*/site-packages/**/*.so*") if path.is_file()]
    program = PROGRAMS[name](environment, how)
    if how == "enabled":
        subprocess.run([environment / "bin" / "sopin", "enable"], check=True, stdout=program.log)
    try:
        program.start()
        wait_for(lambda: is_ready(program), "never ready")
        before = all_workers(program)
        protected = how != "unprotected"
        assert all(has_library(pid) == protected for pid in before), before
        # The program answers while the objects are rewritten.
        rewriter = threading.Thread(target=lambda: [rewrite(objects) for _ in range(REWRITES)])
        try:
            rewriter.start()
            answers = 0
            while rewriter.is_alive() or answers < ANSWERS:
                pid = program.ask()
                if pid not in before:
                    raise Died(f"{pid} answers, and not {before}")
                answers += 1
            rewriter.join()
            after = all_workers(program)
        except Died as died:
            print(died, file=sys.stderr)
            return 43
        finally:
            rewriter.join()
        print(f"{len(objects)} objects, {answers} answers by {before}", file=sys.stderr)
        return 42 if after == before and len(objects) > 5 else 43
    finally:
        program.stop()
        with open("program.log", encoding="utf-8", errors="replace") as log:
            sys.stderr.write(log.read()[-4000:])


if __name__ == "__main__":
    sys.exit(main())
