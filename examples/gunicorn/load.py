"""Keeps all workers of the server busy and checks every answer."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter

from shop import CUSTOMERS, expected_answer


class Load:
    """Threads that ask as fast as they are answered."""

    def __init__(self, port: int, threads: int = 6) -> None:
        self.port = port
        self.served = 0
        self.failures: Counter[str] = Counter()
        self.workers: set[int] = set()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(threads)]

    def start(self) -> None:
        """Begins."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Ends, after the requests under way."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    @property
    def failed(self) -> int:
        """Number of requests that were not answered rightly."""
        return sum(self.failures.values())

    def run(self, number: int) -> None:
        """One thread: customer after customer."""
        while not self.stopping.is_set():
            number = number % CUSTOMERS + 1
            problem, worker = ask(self.port, number)
            with self.lock:
                if problem is None:
                    self.served += 1
                    self.workers.add(worker)
                else:
                    self.failures[problem] += 1
            if problem is not None:
                # Not as fast as a refused connection comes back.
                self.stopping.wait(0.02)


def ask(port: int, number: int) -> tuple[str | None, int]:
    """Asks for one customer: what went wrong, or None, and the worker's pid."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/customer/{number}")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            return f"status {response.status}", 0
        answer = json.loads(body)
        worker = answer.pop("worker")
        return (None, worker) if answer == expected_answer(number) else ("wrong answer", worker)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, 0
    except ValueError:
        return "wrong answer", 0
    finally:
        connection.close()
