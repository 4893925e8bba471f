"""Which training samples an order or a sampler keeps, from what a dataset's runs have published."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.data.loader import Samples, load_split, normalization
from engine.errors import SpecError, StorageError, unknown_name
from engine.features.seen import load_seen
from engine.fields import check_range
from engine.queries.connection import connected, runs_of
from engine.runs.planning import trains_seeds
from engine.runs.reuse import Trained, find_trained
from engine.scores.registry import parameters_of
from engine.selection.names import Order, parse_order, scoreless
from engine.selection.samplers import Parts, find_sampler, select
from engine.spec import RunSpec, spec_from_json, spec_hash
from engine.store.tensors import load_tensors
from engine.store.verified import checked_file
from engine.store.workspace import Workspace
from engine.training.kept import load_network
from engine.training.loop import Normalization, evaluation_pass
from engine.training.own_models import allow_trusted

KEPT_SETS = 64
"""Sets of samples that a selection holds, so that the seeds of a point need not choose theirs again."""


def find_scores_run(workspace: Workspace, dataset: str, orders: Sequence[str]) -> str | None:
    """The latest published run that has all that the orders read; None when they read no run.

    Raises: SpecError when no run has it, saying which command makes one
    """
    parsed = [parse_order(order) for order in orders]
    wanted = {order.score for order in parsed} - {""}
    trained = any(find_sampler(order.sampler).reads_network for order in parsed)
    if not wanted and not trained:
        return None
    with connected(workspace, dataset) as connection:
        rows = connection.execute("SELECT run_id, list(DISTINCT score) FROM scores GROUP BY run_id").fetchall()
    having: dict[str, set[str]] = {run: set(names) for run, names in rows}
    specs = {record.run_id: spec for record, spec in workspace.known_runs()}
    with_network = {
        run for run, spec in specs.items() if isinstance(spec, RunSpec) and spec.training and trains_seeds(spec)
    }
    for candidate in reversed(runs_of(workspace, dataset)):
        if wanted <= having.get(candidate, set()) and (not trained or candidate in with_network):
            return candidate
    known = set().union(*having.values()) if having else set()
    missing = sorted(wanted - known)
    scores = f" --scores {','.join(sorted(wanted))}" if wanted else ""
    if missing and known:
        message = unknown_name("order", missing[0], known.union(scoreless()))
        raise SpecError(f"{message}; or `winnow run {dataset} --scores {','.join(missing)}` first")
    if missing or (wanted and not trained):
        raise SpecError(
            f"no published run of '{dataset}' has the scores {', '.join(sorted(wanted))}; "
            f"make one: winnow run {dataset}{scores}"
        )
    raise SpecError(
        f"no published run of '{dataset}' has a trained network"
        + (f" and the scores {', '.join(sorted(wanted))}" if wanted else "")
        + f"; make one: winnow run {dataset}{scores}"
    )


def _find_training(workspace: Workspace, scores_run: str | None) -> Trained | None:
    """The published run whose features and weights samplers read, or None."""
    found = spec_from_json(workspace.read_spec(scores_run)["spec"]) if scores_run else None
    if not isinstance(found, RunSpec) or found.training is None:
        return None
    return find_trained(workspace, found.fingerprint, found.training)


class Selection:
    """Which samples each order keeps.

    samples: the training set; scores_run: the run whose scores, features and weights the orders read, as
    `find_scores_run` finds it; seed: of what is drawn at random; class_balanced: the same share of each given class

    Raises: SpecError when an order needs a truth, features or classes that are not there
    """

    def __init__(
        self,
        workspace: Workspace,
        dataset: str,
        samples: Samples,
        orders: Sequence[str],
        scores_run: str | None,
        *,
        seed: int = 0,
        class_balanced: bool = False,
    ) -> None:
        self.workspace, self.dataset, self.samples, self.scores_run = workspace, dataset, samples, scores_run
        self.seed, self.class_balanced = seed, class_balanced
        self.trained = _find_training(workspace, scores_run)
        self.n = len(samples)
        self._kept: dict[tuple[str, int], Tensor] = {}
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {"labels": samples.labels.cpu(), "n": self.n}
        for name in orders:
            sampler = find_sampler(parse_order(name).sampler)
            if "mislabeled" in sampler.inputs and samples.true_labels is None:
                raise SpecError(
                    f"order '{name}' needs true labels; dataset '{dataset}' has none (use --noise or --labels)"
                )
            if sampler.reads_network and self.trained is None:
                raise SpecError(
                    f"order '{name}' reads the features of a trained network; no run of '{dataset}' has one: "
                    f"winnow run {dataset} makes one"
                )

    def weights(self, order: str, kept: Tensor) -> Tensor | None:
        """The weights (B,) float32 in training of what an order keeps; None where all count the same."""
        parsed = parse_order(order)
        weigh = find_sampler(parsed.sampler).weights
        if weigh is None:
            return None
        names = [name for name in parameters_of(weigh) if name != "kept"]
        return weigh(**{name: self._input(name, parsed) for name in names}, kept=kept)

    def kept(self, order: str, pruned: int, parts: Parts | None = None) -> Tensor:
        """Positions in the training set that stay, (n - pruned,) int64, ascending, on the CPU.

        parts: where a sampler that computes in parts does so, None = here
        """
        with self._lock:  # networks side by side ask for the same sets, and some samplers are slow
            if len(self._kept) > KEPT_SETS:
                self._kept.clear()
            if (order, pruned) not in self._kept:
                self._kept[order, pruned] = self._select(order, pruned, parts)
            return self._kept[order, pruned]

    def _select(self, order: str, pruned: int, parts: Parts | None) -> Tensor:
        if not order:
            return torch.arange(self.n)
        parsed = parse_order(order)
        generator = torch.Generator().manual_seed(int(spec_hash([self.seed, "order", parsed.draws_as]), 16))
        names = [name for name in find_sampler(parsed.sampler).inputs if name not in ("generator", "shares", "parts")]
        inputs = {name: self._input(name, parsed) for name in names}
        inputs |= {"generator": generator, "labels": self._known["labels"]}
        balanced = self.class_balanced
        return select(parsed.sampler, self.n - pruned, inputs, class_balanced=balanced, parts=parts, **parsed.options)

    def _input(self, name: str, order: Order) -> Any:
        key = f"{name} of {order.score}" if order.score and name in ("ranks", "hardness") else name
        if key not in self._known:
            self._known[key] = getattr(self, f"_{name}")(order)
        return self._known[key]

    def _mislabeled(self, order: Order) -> Tensor:
        assert self.samples.true_labels is not None
        return (self.samples.true_labels != self.samples.labels).cpu()

    def _ranks(self, order: Order) -> Tensor:
        return torch.from_numpy(self._score(order.score)["rank"].astype("int64"))

    def _hardness(self, order: Order) -> Tensor:
        found = self._score(order.score)
        values = torch.from_numpy(found["value"].astype("float32"))
        return values if found["higher_means"][0] == "harder" else -values

    def _score(self, score: str) -> dict[str, Any]:
        assert self.scores_run is not None
        with connected(self.workspace, self.dataset, [self.scores_run]) as connection:
            return connection.execute(
                "SELECT value, rank, higher_means FROM scores JOIN score_catalog USING (score) WHERE score = ? "
                "ORDER BY sample_id",
                [score],
            ).fetchnumpy()

    def _features(self, order: Order) -> Tensor:
        assert self.trained is not None
        try:
            found = load_tensors(checked_file(self.trained.folder, "features.safetensors"))
        except StorageError as error:
            raise StorageError(f"{error}; remove that run (winnow remove) and run it again") from error
        assert found is not None
        return torch.from_numpy(found[0]["features"]).float().to(self.samples.device)

    def _probs(self, order: Order) -> Tensor:
        assert self.trained is not None and self.trained.spec.training is not None
        training, device = self.trained.spec.training, self.samples.device
        allow_trusted(self.workspace, training.model)
        samples = load_seen(self.workspace, self.dataset, "train", training.trained_on, device)
        shape = samples.shape
        network = load_network(self.trained.folder, training, shape, samples.classes, 0, training.epochs, device)
        scale = Normalization(*normalization(samples))
        return torch.cat([z.float().softmax(1) for _, z in evaluation_pass(network, samples, scale)])


@dataclass(frozen=True)
class Chosen:
    """The ids (B,) int64 of samples that stay, and the weights (B,) of their losses where the sampler gives some."""

    sample_ids: Tensor
    weights: Tensor | None


def choose_samples(
    workspace: Workspace,
    dataset: str,
    order: str,
    keep: float,
    *,
    class_balanced: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Chosen:
    """What an order or a sampler keeps of the training split.

    Args:    order: as `parse_order` reads it: nli*, kcenter, ccs(nli,beta=0.1); keep: share that stays, above 0 to 1;
             device: where samplers compare features
    Returns: round(keep N) samples, by ascending id
    Raises:  SpecError for an unknown order or option, a share outside 0..1, a missing score, run or truth
    """
    check_range("--keep", keep, 1e-9, 1, "share of the training samples that stays")
    parse_order(order)
    workspace.require_dataset(dataset)
    scores_run = find_scores_run(workspace, dataset, [order])
    samples = load_split(workspace, dataset, "train", device)
    selection = Selection(workspace, dataset, samples, [order], scores_run, seed=seed, class_balanced=class_balanced)
    kept = selection.kept(order, len(samples) - max(1, round(keep * len(samples))))
    return Chosen(samples.sample_ids[kept.to(device)].cpu(), selection.weights(order, kept))
