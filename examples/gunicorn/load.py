"""Sends requests to the service and checks every response; can keep all workers busy."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from shop import CUSTOMERS, expected_answer

REQUEST_SECONDS = 5


class Load:
    """Threads that send requests until they are stopped, and the counts of responses."""

    def __init__(self, port: int, served_at_once: int = 1) -> None:
        self.port = port
        # A worker that serves one request at a time began the request of its second
        # response after an event when the event was over.
        self.answers_that_prove = served_at_once + 1
        self.answered_by: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []

    def start(self, threads: int) -> None:
        """Starts so many threads, each of which sends requests as fast as it gets responses."""
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Stops the threads after their current requests."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    @property
    def served(self) -> int:
        """Returns the number of requests with the expected response."""
        return sum(self.answered_by.values())

    @property
    def failed(self) -> int:
        """Returns the number of other requests."""
        return sum(self.failures.values())

    def run(self, number: int) -> None:
        """Runs one thread, which requests one customer after the other."""
        while not self.stopping.is_set():
            number = number % CUSTOMERS + 1
            if not self.request(number):
                # Refused connections return at once; this limits their number.
                self.stopping.wait(0.02)

    def request(self, number: int) -> bool:
        """Sends one request and counts it. Returns whether the response was the expected one."""
        problem, worker = ask(self.port, number)
        with self.lock:
            if problem is None:
                self.answered_by[worker] += 1
            else:
                self.failures[problem] += 1
        return problem is None

    def request_all(self) -> None:
        """Requests all customers at the same time."""
        with ThreadPoolExecutor(CUSTOMERS) as threads:
            list(threads.map(self.request, range(1, CUSTOMERS + 1)))

    def wait_for_each(self, workers: Iterable[int], seconds: float, is_hopeful: Callable[[], bool]) -> bool:
        """Waits until each of these workers has answered a request that it began
        after this call. Returns False when the time is over or `is_hopeful` does."""
        with self.lock:
            before = self.answered_by.copy()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self.lock:
                new = self.answered_by - before
            if all(new[worker] >= self.answers_that_prove for worker in workers):
                return True
            if not is_hopeful():
                return False
            time.sleep(0.01)
        return False


def ask(port: int, number: int) -> tuple[str | None, int]:
    """Requests one customer. Returns what went wrong, or None, and the worker's pid."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
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
    except (ValueError, KeyError, AttributeError):
        return "wrong answer", 0
    finally:
        connection.close()
