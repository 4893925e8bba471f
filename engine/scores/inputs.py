"""What scores may read: the declarations of their inputs, which `engine.runs.inputs` makes and computes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import unknown_name

COSTS = ("free", "inputs", "training")
"""What an input needs, the cheapest first: nothing, the samples' own inputs, trained networks."""


@dataclass(frozen=True)
class Input:
    """Something a score may read, declared once, beside the function that computes it (`engine.runs.inputs`).

    what: shape and meaning, such as "(N, C) logits of one network": T epochs, N samples, C classes, D features,
    K neighbors, M test samples, R runs, E epochs whose networks are kept
    cost: one of COSTS
    heavy: it may take longer than the training itself: N^3, a backward pass per sample, or networks of its own
    from_file: the option of a run whose file stands in for a trained network ("features", "cscores"), "" for none
    dynamics: read from the recorded dynamics, some samples at a time
    checkpoints: reads the network after several epochs of the training
    test: held against the test split
    own_networks: of networks that are trained for it alone; those of the run, one for each seed, play no part
    own_inputs: reads the dataset's own inputs, which are in memory for it
    beside: the input whose function computes this one along with its own, "" for an input with its own function
    seconds: (engine.runs.work.Work) -> rough seconds of it for one network, for the time left
    check: (spec, samples), raises a WinnowError for what would fail after the training. Where the cost is `inputs` the samples
        are with the dataset's own inputs, else as networks see them
    compute: (inputs of the run, network) -> its value; None where whoever computes the score hands it out
    """

    name: str
    what: str
    cost: str
    heavy: bool = False
    from_file: str = ""
    dynamics: bool = False
    checkpoints: bool = False
    test: bool = False
    own_networks: bool = False
    own_inputs: bool = False
    beside: str = ""
    seconds: Callable[[Any], float] | None = None
    check: Callable[[Any, Any], None] | None = None
    compute: Callable[[Any, Any], Any] | None = None

    @property
    def axis(self) -> int | None:
        """The axis along which the samples lie, from the shape in `what`; None where none does."""
        shape = re.match(r"\(([A-Z, ]+)\)", self.what)
        sizes = [size.strip() for size in shape[1].split(",")] if shape else []
        return sizes.index("N") if "N" in sizes else None


INPUTS: dict[str, Input] = {}
"""Every declared input by name; importing `engine.runs.inputs` declares them all."""


def declare_input(declared: Input) -> None:
    """Add an input to INPUTS; TypeError when there is one of that name."""
    if declared.name in INPUTS:
        raise TypeError(f"input {declared.name} is declared twice")
    if declared.cost not in COSTS:
        raise TypeError(f"input {declared.name} has cost {declared.cost!r}; allowed: {', '.join(COSTS)}")
    INPUTS[declared.name] = declared


def find_input(name: str) -> Input:
    """The input of that name; TypeError when none is declared."""
    if name not in INPUTS:
        raise TypeError(f"{unknown_name('input', name, INPUTS)}; inputs are declared in engine.runs.inputs")
    return INPUTS[name]
