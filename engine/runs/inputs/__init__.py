"""What the scores of a run read: one declared function for each input, in any module of this package.

Scores name their inputs; `@provides` says of each what it is and what it costs, and the function computes it for a
run. Importing this package declares them all: a new input is one function here, and nothing else to change.
"""

import importlib
import pkgutil

from engine.runs.inputs.computed import (
    At,
    Inputs,
    kept_epochs,
    needs_training,
    provides,
    reads_networks,
    require_test,
    required_epochs,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "At",
    "Inputs",
    "kept_epochs",
    "needs_training",
    "provides",
    "reads_networks",
    "require_test",
    "required_epochs",
]
