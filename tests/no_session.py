"""Imported first in the process that tests fork from: DuckDB takes a process whose main module has no file for a session in which
a person types, and draws bars of slow queries among what a command prints."""

from __future__ import annotations

import sys

vars(sys.modules["__main__"]).setdefault("__file__", __file__)
