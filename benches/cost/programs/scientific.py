"""Imports what a Python process that serves data uses: about 200 shared objects."""

import importlib
import pkgutil

import numpy  # noqa: F401
import pandas  # noqa: F401
import scipy
import sqlalchemy.dialects.sqlite  # noqa: F401

for module in pkgutil.iter_modules(scipy.__path__):
    if not module.name.startswith("_") and module.name != "conftest":
        importlib.import_module(f"scipy.{module.name}")
