"""A service that uses the scientific stack. Each response names its worker."""

import json
import os

import numpy
import pandas
import scientific  # noqa: F401
import scipy.linalg


def app(_environment, start_response):  # noqa: ANN001, ANN201
    """Calls the libraries for some linear algebra and a table."""
    solved = scipy.linalg.solve(numpy.diag([1.0, 2.0, 4.0]), numpy.ones(3))
    table = pandas.DataFrame({"group": [0, 0, 1], "number": solved}).groupby("group").sum()
    body = json.dumps({"name": table["number"].tolist(), "worker": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
