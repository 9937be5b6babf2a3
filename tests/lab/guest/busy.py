"""A busy Python for machines of the laboratory: numpy and every shared object of the
standard library at work, and cryptography, pandas, lxml and greenlet where they are
installed (for musl, by scripts/lab-roots).

`busy.py DIRECTORY` computes again and again, and writes the number of rounds to the file
`rounds` in the directory, until there is a file `stop`. Every result must equal the
first. It exits with 42; another result exits with 1.
"""

import bz2
import decimal
import hashlib
import importlib
import json
import lzma
import os
import pickle
import re
import sqlite3
import struct
import sys
import sysconfig
import unicodedata
import xml.etree.ElementTree
import zlib

import numpy as np

try:
    # greenlet loads the libgcc_s that cryptography needs too, which then announces nothing.
    import greenlet
    import lxml.etree
    import pandas
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError as error:
    # Where greenlet is installed, all of them are, and each must load.
    if error.name != "greenlet":
        raise
    pandas = None


def load_everything():
    """Imports what Python has as shared objects; some belong to other machines."""
    directory = sysconfig.get_path("platstdlib") + "/lib-dynload"
    for file in sorted(os.listdir(directory)):
        try:
            importlib.import_module(file.split(".")[0])
        except ImportError:
            pass


def compressed(data):
    for module in bz2, lzma, zlib:
        packed = module.compress(data)
        assert module.decompress(packed) == data
        yield len(packed)


def encoded(data):
    yield hashlib.sha256(data).hexdigest()
    yield hashlib.blake2b(data).hexdigest()
    value = {"numbers": list(struct.unpack("<64H", data[:128])), "text": data[:64].hex()}
    assert json.loads(json.dumps(value)) == value
    assert pickle.loads(pickle.dumps(value)) == value
    yield len(re.findall("[0-9]+", value["text"]))
    yield unicodedata.normalize("NFD", "\u00e9\u00fc\u00e5").encode().hex()
    yield len(xml.etree.ElementTree.fromstring("<a><b/><c d='1'/></a>"))


def numerical():
    random = np.random.default_rng(2)
    a = random.standard_normal((40, 40))
    yield f"{np.linalg.solve(a, a[0]).sum():.6g}"
    yield f"{np.linalg.svd(a, compute_uv=False).sum():.6g}"
    yield f"{np.abs(np.fft.rfft(a.ravel())).sum():.6g}"
    yield f"{np.sort(a.ravel())[:99].sum():.6g}"
    yield decimal.Decimal(2).sqrt()


def encrypted(data):
    cipher = AESGCM(bytes(range(32)))
    sealed = cipher.encrypt(bytes(12), data, b"sopin")
    assert cipher.decrypt(bytes(12), sealed, b"sopin") == data
    yield sealed[-16:].hex()


def tabular():
    frame = pandas.DataFrame({"key": [n % 7 for n in range(500)], "value": range(500)})
    yield int(frame.groupby("key").value.sum().max())
    yield len(frame.merge(frame, on="key"))
    tree = lxml.etree.fromstring("<a>" + "".join(f"<b n='{n}'>{n}</b>" for n in range(50)) + "</a>")
    yield tree.xpath("sum(//b[@n > 20])")
    switched = greenlet.greenlet(lambda first: greenlet.getcurrent().parent.switch(first + 1) * 2)
    yield switched.switch(4), switched.switch(8)


def compute(database):
    data = bytes(range(256)) * 16
    results = [*compressed(data), *encoded(data), *numerical()]
    if pandas:
        results += [*tabular(), *encrypted(data)]
    results.append(database.execute("select sum(n * n) from numbers where n % 3 = 0").fetchone()[0])
    return " ".join(map(str, results))


def main(directory):
    load_everything()
    database = sqlite3.connect(":memory:")
    database.execute("create table numbers (n integer)")
    database.executemany("insert into numbers values (?)", [(n,) for n in range(100)])
    first = compute(database)
    rounds = 0
    while not os.path.exists(directory + "/stop"):
        if compute(database) != first:
            sys.exit("another result")
        rounds += 1
        with open(directory + "/rounds.new", "w") as file:
            file.write(f"{rounds}\n")
        os.replace(directory + "/rounds.new", directory + "/rounds")
    sys.exit(42)


main(sys.argv[1])
