"""A numerical Python process that uses numpy, scipy, pandas and SQLAlchemy.

The protocol of all hosts here: load everything, compute once, print `ready`. `busy`:
repeat the computation and print `tick` each time, until a line arrives on standard
input. `idle`: do nothing until a line arrives, then compute once more. Every result
must equal the first one; print it, and exit with 42.

SOPIN_TEST_LOAD_ITSELF names libsopin.so if the process is to load it at run time
instead of having it preloaded.
"""

import ctypes
import os
import select
import sys

if "SOPIN_TEST_LOAD_ITSELF" in os.environ:
    ctypes.CDLL(os.environ["SOPIN_TEST_LOAD_ITSELF"], mode=ctypes.RTLD_GLOBAL)

import numpy as np
import pandas as pd
import scipy.fft
import scipy.integrate
import scipy.interpolate
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.signal
import scipy.sparse.linalg
import scipy.spatial
import scipy.special
import scipy.stats
import sqlalchemy
import sqlalchemy.util


def linear_algebra(random):
    a = random.standard_normal((60, 60))
    b = random.standard_normal(60)
    yield np.linalg.solve(a, b).sum()
    yield np.linalg.svd(a, compute_uv=False).sum()
    yield scipy.linalg.lu_factor(a)[0].sum()
    yield scipy.linalg.expm(a / 60).sum()
    sparse = scipy.sparse.csc_matrix(np.diag(b + 10) + np.diag(b[1:], 1))
    yield scipy.sparse.linalg.spsolve(sparse, b).sum()


def signals(random):
    x = random.standard_normal(1 << 10)
    yield np.abs(np.fft.rfft(x)).sum()
    yield np.abs(scipy.fft.fft(x)).sum()
    yield scipy.signal.lfilter([1, 2], [1, 0.5], x).sum()
    yield scipy.ndimage.gaussian_filter1d(x, 3).sum()
    yield scipy.interpolate.CubicSpline(np.arange(x.size), x)(np.arange(1, 1000) + 0.5).sum()


def analysis(random):
    yield scipy.special.gammaln(np.linspace(1, 9, 99)).sum()
    yield scipy.integrate.quad(lambda x: np.exp(-x * x), 0, 3)[0]
    yield scipy.optimize.brentq(lambda x: x**3 - 2, 0, 2)
    yield scipy.stats.norm.cdf(0.3)
    points = random.standard_normal((200, 3))
    yield scipy.spatial.cKDTree(points).query(points[::-1], k=3)[0].sum()


def tables(random):
    frame = pd.DataFrame({"key": np.arange(500) % 7, "value": random.standard_normal(500)})
    yield frame.groupby("key")["value"].agg(["mean", "std"]).to_numpy().sum()
    yield frame["value"].rolling(5).median().sum()
    yield frame.merge(frame.groupby("key").size().rename("n"), on="key")["n"].sum()
    yield frame.sort_values("value")["key"].iloc[:50].sum()


def make_database():
    """Opens SQLite in memory, through SQLAlchemy's compiled extensions."""
    assert sqlalchemy.util.has_compiled_ext(), "SQLAlchemy without its compiled extensions"
    engine = sqlalchemy.create_engine("sqlite://")
    numbers = sqlalchemy.Table("numbers", sqlalchemy.MetaData(), sqlalchemy.Column("n", sqlalchemy.Integer))
    connection = engine.connect()
    numbers.create(connection)
    connection.execute(numbers.insert(), [{"n": n} for n in range(100)])
    return connection, sqlalchemy.select(numbers.c.n).where(numbers.c.n % 3 == 0)


def compute(database):
    random = np.random.default_rng(2)
    results = []
    for work in linear_algebra, signals, analysis, tables:
        # The values are rounded, because SIMD loops add in an order that depends on the
        # address of the array.
        results += [f"{value:.7g}" for value in work(random)]
    connection, query = database
    results.append(str(sum(row.n for row in connection.execute(query))))
    return " ".join(results)


def main(work):
    database = make_database()
    first = compute(database)
    print("ready", flush=True)
    if work == "idle":
        sys.stdin.readline()
        assert compute(database) == first, "another result"
    while work == "busy" and not select.select([sys.stdin], [], [], 0)[0]:
        assert compute(database) == first, "another result"
        print("tick", flush=True)
    print("result", first, flush=True)
    # The status is not 0, so that it differs from that of a process that ended earlier.
    sys.exit(42)


main(sys.argv[1])
