"""A plugin for pytest: writes `RESULT TEST`, one a line, in the order of the tests'
names, to the file that RESULTS_FILE names.

pytest's own list combines tests that were skipped for the same reason, and its order is
that in which the workers of pytest-xdist have finished."""

import os

import pytest

WORST_LAST = ["passed", "expected failure", "unexpected success", "skipped", "failed", "error"]


def word_for(report: pytest.TestReport) -> str:
    """Returns the result of a test in one of its phases: set up, call, tear down."""
    if hasattr(report, "wasxfail"):
        return "expected failure" if report.skipped else "unexpected success"
    if report.failed and report.when != "call":
        return "error"
    return report.outcome


class Results:
    """Collects a word for each test."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.words: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        word = word_for(report)
        self.words[report.nodeid] = max(word, self.words.get(report.nodeid, word), key=WORST_LAST.index)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self.words[report.nodeid] = f"{report.outcome} to collect"

    def pytest_sessionfinish(self) -> None:
        with open(self.path, "w") as file:
            file.writelines(f"{word} {name}\n" for name, word in sorted(self.words.items()))


def pytest_configure(config: pytest.Config) -> None:
    # The workers report to the process that has started them, which writes the file.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(os.environ["RESULTS_FILE"]))
