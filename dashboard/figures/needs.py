"""What a paper's figure is drawn from: found among a dataset's runs, or noted as missing with the command that makes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from dashboard import data


@dataclass
class Needs:
    """A dataset in view, the runs that a figure was drawn from, and what it lacks.

    percentile: of the threshold samples, where the threshold is (AUM); missing: pairs of a sentence and of the commands that
    help ("" where none does).
    """

    view: data.View
    percentile: float = 99.0
    runs: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    def lacks(self, text: str, command: str) -> None:
        """Note what is missing and the commands that make it."""
        self.missing.append((text, command))

    def noisy_and_clean(self) -> tuple[str, str]:
        """The dataset with label noise and the clean one it comes from; "" for one that is not in the workspace."""
        facts, here, names = data.dataset_facts(self.view.at), self.view.at.dataset, data.datasets()
        if facts["parent"] or facts["noise_rate"]:
            return here, facts["parent"] if facts["parent"] in names else ""
        others = {name: data.dataset_facts(data.snapshot(name)) for name in names}
        derived = (name for name, other in others.items() if other["parent"] == here and other["noise_rate"])
        return next(derived, ""), here

    def relatives(self) -> list[str]:
        """The dataset in view, and those with known label noise that come from the same clean one; by name after it."""
        here = self.view.at.dataset
        origin = data.dataset_facts(self.view.at)["parent"] or here
        facts = {name: data.dataset_facts(data.snapshot(name)) for name in data.datasets() if name != here}
        return [here, *(name for name, one in facts.items() if one["wrong"] and origin in (one["parent"], name))]

    def known_noise(self) -> bool:
        """Whether labels of the dataset are known to be wrong; noted as missing where not."""
        if data.dataset_facts(self.view.at)["wrong"]:
            return True
        self.lacks_noise()
        return False

    def lacks_noise(self) -> None:
        """Note that labels known to be wrong are missing: the dataset that has them, or the command that makes one."""
        name, (noisy, _) = self.view.at.dataset, self.noisy_and_clean()
        if noisy and noisy != name:
            self.lacks(f"It needs labels that are known to be wrong: choose {noisy} as the dataset.", "")
        else:
            command = f"winnow ingest {name}-noisy --from dataset:{name} --noise symmetric:0.3"
            self.lacks("It needs labels that are known to be wrong.", command)

    def scores(self, *wanted: str, dataset: str = "") -> tuple[str, Mapping[str, str]]:
        """The run of a dataset (the one in view) with most of the wanted scores; noted as missing where it lacks one.

        Returns: run id, "" when none has any; the scores as the run calls them, by what was wanted
        """
        at = data.snapshot(dataset) if dataset else self.view.at
        run_id, found = data.having(at, "score", wanted)
        if set(wanted) - set(found):
            self.lacks(f"No run of {at.dataset} has {', '.join(wanted)} beside the others.", _run(at.dataset, *wanted))
        if run_id:
            self.runs.append(run_id)
        return run_id, found

    def curve(self, dataset: str, wanted: tuple[str, ...], options: str) -> pd.DataFrame:
        """The points of the psi run with most of the wanted orders; noted as missing where it lacks one.

        Args:    options: of the command that computes the whole curve
        Returns: run_id, order, seed, pruned, kept_fraction, accuracy of the wanted orders, empty when there are none
        """
        at = data.snapshot(dataset)
        run_id, found = data.having(at, "order", wanted)
        scores = sorted({order.removesuffix("*") for order in wanted} - {"random", "oracle"})
        if set(wanted) - set(found):
            _, known = data.having(at, "score", scores)
            orders = [known.get(o.removesuffix("*"), o.removesuffix("*")) + "*" * o.endswith("*") for o in wanted]
            command = f"winnow psi {dataset} --orders {shlex.quote(','.join(orders))} {options}"
            if set(scores) - set(known):
                command = f"{_run(dataset, *scores)}\n{command}"
            absent = ", ".join(order for order in wanted if order not in found)
            self.lacks(f"The curves of {absent} on {dataset} are not there, or not in one run.", command)
        if not run_id:
            return pd.DataFrame()
        self.runs.append(run_id)
        points = data.psi_points([run_id])
        return points[points["order"].isin(found.values())]


def _run(dataset: str, *scores: str) -> str:
    return f"winnow run {dataset} --scores {','.join(scores)}"
