"""A service with the scientific stack under it; says which worker answers."""

import json
import os

import numpy
import pandas
import scientific  # noqa: F401
import scipy.linalg


def app(_environment, start_response):  # noqa: ANN001, ANN201
    """A bit of linear algebra and a table: calls into the libraries."""
    solved = scipy.linalg.solve(numpy.diag([1.0, 2.0, 4.0]), numpy.ones(3))
    table = pandas.DataFrame({"group": [0, 0, 1], "number": solved}).groupby("group").sum()
    body = json.dumps({"name": table["number"].tolist(), "worker": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
