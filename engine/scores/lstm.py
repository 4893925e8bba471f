"""The LSTM noise detector: learns from training dynamics what a mislabeled sample looks like (LSTM paper, section 3).

It reads the probability of the given label over the epochs and nothing else, so one detector serves every
dataset, number of classes and length of training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ScoreInputError
from engine.scores.evaluation import evaluate_detection
from engine.scores.registry import score

SHIPPED = "digits+textures"
"""The detector that comes with the package, by what it has learned from. No user's detector can have a + in its name."""

WIDTH = 64
LAYERS = 2
TRAIN_LR = 0.1
FINE_TUNE_LR = 0.03
DIVERGED = 0.6
SLACK = 0.005
"""A fit whose held-out ROC AUC stays below DIVERGED, or further than SLACK below that of the mean of p_given, is
repeated with a tenth of the learning rate: at 0.1 about every second fit ends there and would not transfer."""

APPLY_BATCH = 8192


class Detector(nn.Module):
    """Two LSTM layers of 64 and one output.

    epochs: the length T of the sequences it was trained on; others are resampled to it.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        self.lstm = nn.LSTM(1, WIDTH, LAYERS)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, p_given: Tensor) -> Tensor:
        """p_given (T, B) -> logits (B,) of being mislabeled."""
        hidden, _ = self.lstm(p_given[:, :, None])
        return self.head(hidden[-1])[:, 0]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Fit:
    """A trained detector and what its training was like. Metrics are those of the held-out tenth."""

    detector: Detector
    metrics: dict[str, float]
    lr: float
    notes: tuple[str, ...]


def resample(p_given: Tensor, epochs: int) -> Tensor:
    """Sequences of another length, by linear interpolation between their epochs; first and last stay.

    Args:    p_given (T, N); epochs >= 1
    Returns: (epochs, N); a single epoch is repeated
    """
    if len(p_given) == epochs:
        return p_given
    if len(p_given) == 1:
        return p_given.expand(epochs, -1).contiguous()
    return functional.interpolate(p_given.T[:, None], size=epochs, mode="linear", align_corners=True)[:, 0].T


@score(
    higher_means="harder",
    evidence="label",
    version=2,
    value_range=(0.0, 1.0),
    source="LSTM paper, eq. 3",
    flags_above=0.5,
)
@torch.no_grad()
def lstm_detector(p_given: Tensor, detector: Detector | None) -> Tensor:
    """Probability of being mislabeled, by an LSTM that reads the training dynamics.

    s_i = sigmoid(g(p_{y_i}^(1), ..., p_{y_i}^(T)))

    Args:    p_given (T, N) in [0, 1]; detector: trained on any dataset, of any length; None = the one that ships,
             trained on scikit-learn's digits and on heads on features of textures, 8 to 30 % of the labels wrong
    Returns: (N,) float32 in [0, 1]; higher = harder (mislabeled); > 1/2 flags it (rule `lstm_detector`)
    Raises:  ScoreInputError on a wrong shape or values that are not probabilities
    Departs from the paper: sequences of another length are resampled linearly to the detector's.
    """
    check_sequences(p_given)
    detector = (detector or shipped_detector()).eval()
    sequences = resample(p_given.float(), detector.epochs)
    parts = [torch.sigmoid(detector(part)) for part in torch.split(sequences, APPLY_BATCH, dim=1)]
    return torch.cat(parts)


@cache
def shipped_detector() -> Detector:
    """The detector that comes with the package; see `engine.runs.detectors`."""
    file = resources.files("engine.scores") / "detectors" / f"{SHIPPED}.safetensors"
    return detector_of({name: values.float() for name, values in load(file.read_bytes()).items()})


def detector_of(tensors: dict[str, Tensor]) -> Detector:
    """A detector from its tensors: the state and `epochs`, the length of its sequences."""
    state = dict(tensors)
    detector = Detector(int(state.pop("epochs")))
    detector.load_state_dict(state)
    return detector.eval()


def train_detector(
    p_given: Tensor,
    mislabeled: Tensor,
    seed: int,
    *,
    start: Detector | None = None,
    lr: float | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Fit:
    """Fit a detector to dynamics whose mislabeled samples are known, or fine-tune one.

    Binary cross-entropy, AdamW, gradients clipped to norm 1; a tenth is held out, and the state with the best
    average precision on it is kept. A fine-tuned detector starts as the best, so it is replaced only by a better one.

    Args:    p_given (T, N) in [0, 1]; mislabeled (N,) bool; start: a detector to fine-tune, which is left as it is;
             lr: 0.1 from scratch and 0.03 to fine-tune by default
    Returns: the detector, its held-out metrics, the learning rate that worked and what happened on the way
    Raises:  ScoreInputError when either kind of sample is missing from the held-out tenth or from the rest
    Departs from the paper: gradients are clipped, and a diverged fit is repeated with a tenth of the learning rate,
    twice at most; the best of the fits is returned.
    """
    check_sequences(p_given)
    generator = torch.Generator().manual_seed(seed)
    n, length = len(mislabeled), start.epochs if start else len(p_given)
    if p_given.shape[1] != n:
        raise ScoreInputError(f"{p_given.shape[1]} sequences but {n} labels; they must be of the same samples")
    sequences = resample(p_given.float(), length)
    held_out = _hold_out(mislabeled, generator)
    fit_on = (~held_out).nonzero()[:, 0]

    def fit_once(detector: Detector, started: bool, rate: float) -> Fit:
        best = _evaluate(detector, sequences, mislabeled, held_out) if started else {"average_precision": -1.0}
        state = copy.deepcopy(detector.state_dict())
        optimizer = torch.optim.AdamW(detector.parameters(), lr=rate)
        for epoch in range(epochs):
            detector.train()
            for batch in torch.split(fit_on[torch.randperm(len(fit_on), generator=generator)], batch_size):
                loss = functional.binary_cross_entropy_with_logits(
                    detector(sequences[:, batch]), mislabeled[batch].float()
                )
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
                optimizer.step()
            reached = _evaluate(detector, sequences, mislabeled, held_out)
            if reached["average_precision"] > best["average_precision"]:
                best, state = reached, copy.deepcopy(detector.state_dict())
            report(epoch + 1, epochs)
        detector.load_state_dict(state)
        return Fit(detector.eval(), best, rate, ())

    # What the mean of p_given, no learning at all, reaches: a fit far below it has partly collapsed.
    simple = evaluate_detection(1 - sequences[:, held_out].mean(0).cpu().numpy(), mislabeled[held_out].cpu().numpy())
    enough = max(DIVERGED, simple["roc_auc"] - SLACK)
    first = lr if lr is not None else FINE_TUNE_LR if start else TRAIN_LR
    notes: list[str] = []
    fits: list[Fit] = []
    for rate in (first, first / 10, first / 100):
        torch.manual_seed(seed)
        detector = copy.deepcopy(start) if start else Detector(length)
        fits.append(fit_once(detector.to(p_given.device), bool(start), rate))
        reached = fits[-1].metrics["roc_auc"]
        if reached >= enough:
            break
        notes.append(f"learning rate {rate:g} diverged: held-out AUC {reached:.3f}, a tenth of it was tried next")
    return replace(max(fits, key=lambda fit: fit.metrics["average_precision"]), notes=tuple(notes))


def check_sequences(p_given: Tensor) -> None:
    """Raise ScoreInputError unless (T, N) probabilities with at least one epoch; names the first bad sample."""
    if p_given.ndim != 2 or not len(p_given):
        raise ScoreInputError(f"p_given has shape {tuple(p_given.shape)}; expected (epochs, samples), 1 epoch or more")
    inside = ((p_given >= 0) & (p_given <= 1)).all(0)
    if not bool(inside.all()):
        bad = int((~inside).nonzero()[0])
        raise ScoreInputError(f"p_given of sample {bad} is not a probability at every epoch; allowed: 0 to 1")


def _hold_out(mislabeled: Tensor, generator: torch.Generator) -> Tensor:
    """A random tenth of the mislabeled and of the others, at least one of each."""
    held_out = torch.zeros(len(mislabeled), dtype=torch.bool)
    for wrong in (True, False):
        members = (mislabeled.cpu() == wrong).nonzero()[:, 0]
        if len(members) < 2:
            kind = "mislabeled" if wrong else "correctly labeled"
            raise ScoreInputError(
                f"{len(members)} of {len(mislabeled)} samples are {kind}; a detector needs at least 2 of each: "
                "inject noise into a dataset (winnow ingest --noise symmetric:0.3) and train it there"
            )
        count = max(1, math.floor(len(members) / 10))
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held_out.to(mislabeled.device)


def _evaluate(detector: Detector, sequences: Tensor, mislabeled: Tensor, held_out: Tensor) -> dict[str, float]:
    values = lstm_detector(sequences[:, held_out], detector)
    return evaluate_detection(values.cpu().numpy(), mislabeled[held_out].cpu().numpy())
