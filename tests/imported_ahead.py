"""What commands import, also what they import when they first need it: for the process that tests fork from."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # numba and its dependencies warn about themselves while importing
    import sklearn.datasets  # noqa: F401
    import sklearn.mixture  # noqa: F401
    import umap  # noqa: F401

import engine.cli.commands  # noqa: F401
import engine.data.ingest  # noqa: F401
import engine.runs.compute  # noqa: F401
import engine.runs.options  # noqa: F401
