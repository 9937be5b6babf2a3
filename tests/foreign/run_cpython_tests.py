"""Runs tests of the standard library's own suite and prints `NAME: RESULT`, one a line,
in the order of the names."""

import os
import sys
import unittest


class Results(unittest.TestResult):
    """Collects a word for each test."""

    def __init__(self) -> None:
        super().__init__()
        self.words: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.words[test.id()] = "ok"

    def addFailure(self, test: unittest.TestCase, err: object) -> None:
        self.words[test.id()] = f"failed: {err[0].__name__}"

    def addError(self, test: unittest.TestCase, err: object) -> None:
        self.words[test.id()] = f"error: {err[0].__name__}"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.words[test.id()] = "skipped"

    def addExpectedFailure(self, test: unittest.TestCase, err: object) -> None:
        self.words[test.id()] = "expected failure"

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.words[test.id()] = "unexpected success"

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: object) -> None:
        if err is not None:
            self.words[subtest.id()] = f"failed: {err[0].__name__}"


def main() -> None:
    """Loads and runs the tests, and prints the results."""
    try:
        import test.support
    except ImportError:
        sys.exit("no tests of the standard library are installed")
    test.support.use_resources = []
    test.support.verbose = 0
    # The tests' own output contains times and addresses, so it is not part of the
    # results.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    results = Results()
    loader = unittest.defaultTestLoader
    suites = [loader.loadTestsFromName(name) for name in sys.argv[1:]]
    # unittest's loader turns a missing module into a test that fails, with and without
    # the library.
    if loader.errors:
        sys.exit("\n".join(loader.errors))
    for suite in suites:
        suite.run(results)
    for name, word in sorted(results.words.items()):
        told.write(f"{name}: {word}\n")
    told.flush()


if __name__ == "__main__":
    main()
