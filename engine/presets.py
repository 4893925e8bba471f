"""The papers' settings by name, and fast forms of them that name what they change.

A preset is a training and the scores, curve and noise that go with it; options that are given explicitly take
precedence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from engine.errors import SpecError, unknown_name
from engine.spec import TrainingSpec


@dataclass(frozen=True)
class Preset:
    """One preset.

    source: paper and place; scores: what the paper computes from this training; noise: label noise it injects, ""
    for none; psi: fields of a PsiSpec; changes: what differs from the paper or its authors' scripts; unknown: what
    neither says, and what stands for it here
    """

    name: str
    source: str
    training: TrainingSpec
    scores: tuple[str, ...]
    noise: str = ""
    psi: dict[str, Any] | None = None
    changes: str = ""
    unknown: str = ""


_SGD = TrainingSpec(
    model="resnet32", optimizer="sgd", lr=0.1, weight_decay=1e-4, batch_size=256, augment="crop+flip", seeds=1
)
_MLP = TrainingSpec(model="mlp", epochs=200, seeds=10, batch_size=64, lr=0.01, observe="eval")
_ORDERS = ("random", "forgetting", "forgetting*", "el2n", "el2n*", "oracle")


def _curve(points: int) -> dict[str, Any]:
    return {"orders": _ORDERS, "points": points, "seeds": 3, "steps": "epochs"}


def _prune(name: str, training: TrainingSpec, points: int) -> Preset:
    return Preset(
        name,
        "PRUNE, section 3.2 and table 1",
        training,
        ("forgetting", "el2n"),
        "symmetric:0.3",
        _curve(points),
        unknown="when a prediction is counted (here in a pass after each epoch), augmentation and weight decay (none)",
    )


_PAPERS = (
    _prune("prune-synthetic", replace(_MLP, batch_size=100), 100),
    _prune("prune-mnist", _MLP, 100),
    _prune("prune-cifar10", replace(_MLP, model="vgg16", lr=0.001), 20),
    Preset(
        "aum-cifar10",
        "AUM, section 4 and small_dataset_aum.sh: 150 epochs without a learning-rate drop, batch 64",
        replace(_SGD, epochs=150, batch_size=64, observe="train"),
        ("aum", "bmm", "gmm"),
        "symmetric:0.4",
        changes="bmm and gmm read an evaluation pass after the last epoch, the paper's the losses of its training pass",
        unknown="the batch of the networks whose losses bmm and gmm read (here the same network)",
    ),
    Preset(
        "lstm-cifar100",
        "LSTM, section 3.1, appendix and generate_td.sh: 200 epochs, a tenth of the learning rate at 100 and 150",
        replace(_SGD, epochs=200, batch_size=128, schedule="step", observe="train"),
        ("lstm_detector", "aum"),
        "symmetric:0.3",
        changes="probabilities of the training pass, as the paper defines them; its runner.py takes them in evaluation "
        "mode from the augmented images after each epoch",
    ),
    Preset(
        "cg-cifar10",
        "CG, table 3: ResNet-18, 200 epochs, cosine",
        replace(
            _SGD,
            model="resnet18",
            epochs=200,
            seeds=5,
            batch_size=128,
            lr=0.05,
            weight_decay=5e-4,
            schedule="cosine",
            observe="eval",
        ),
        ("cg", "cg_partial", "cg_feature", "el2n", "forgetting"),
        psi={"orders": ("random", "cg", "cg*", "el2n", "forgetting"), "points": 10, "seeds": 3, "steps": "fixed"},
        changes="Nesterov momentum, where the paper names momentum alone",
        unknown="when a prediction is counted for forgetting and EL2N (here in a pass after each epoch)",
    ),
    Preset(
        "rop-cifar10n",
        "ROP, appendix C: PreAct ResNet-18, warm-up of 10 epochs, SGD 0.02",
        replace(
            _SGD,
            model="preact_resnet18",
            epochs=10,
            batch_size=128,
            lr=0.02,
            weight_decay=5e-4,
            observe="eval",
        ),
        ("nli", "loss_last", "margin_last", "grand_last_layer", "forgetting"),
        changes="the warm-up is plain cross-entropy, where the paper's is SOP+; labels come from the dataset",
        unknown="the learning rate within the warm-up (here constant), and its seeds (here 1)",
    ),
)


def _fast(preset: Preset, epochs: int, seeds: int, model: str = "") -> Preset:
    """A form that takes a tenth of the time or less: fewer epochs and seeds, a smaller network, fewer points."""
    old = preset.training
    new = replace(old, epochs=epochs, seeds=seeds, model=model or old.model)
    if model:  # a small network, trained as small networks are
        new = replace(new, optimizer="adam", lr=0.002, weight_decay=0.0, batch_size=128, augment="none")
    changes = [f"{epochs} epochs instead of {old.epochs}", f"{seeds} seeds instead of {old.seeds}"]
    if new.seeds == old.seeds:
        changes.pop()
    if model:
        rate = f"{old.optimizer.upper() if old.optimizer == 'sgd' else 'Adam'} {old.lr:g}"
        changes.append(f"{model} with Adam 0.002 and batch 128 instead of {old.model} with {rate}, no augmentation")
    psi = None
    if preset.psi:
        psi = {**preset.psi, "points": 10, "seeds": 1}
        changes.append(f"10 points of 1 seed instead of {preset.psi['points']} of {preset.psi['seeds']}")
    text = "; ".join([*([preset.changes] if preset.changes else []), *changes])
    return replace(preset, name=f"{preset.name}-fast", training=new, psi=psi, changes=text)


_by_name = {preset.name: preset for preset in _PAPERS}

PRESETS: dict[str, Preset] = _by_name | {
    preset.name: preset
    for preset in (
        _fast(_by_name["prune-synthetic"], 20, 3),
        _fast(_by_name["prune-mnist"], 20, 3),
        _fast(_by_name["prune-cifar10"], 20, 3, "cnn"),
        _fast(_by_name["aum-cifar10"], 30, 1, "cnn"),
        _fast(_by_name["lstm-cifar100"], 30, 1, "cnn"),
        _fast(_by_name["cg-cifar10"], 20, 2, "cnn"),
        _fast(_by_name["rop-cifar10n"], 5, 1, "cnn"),
    )
}
"""Every preset by name; the fast forms end in -fast."""


def find_preset(name: str) -> Preset:
    """The preset of that name; SpecError with the nearest one when there is none."""
    if name not in PRESETS:
        raise SpecError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]


def curve_settings(preset: str | None, window: bool = False, **given: Any) -> dict[str, Any]:
    """orders, points, seeds, steps and training of a psi-curve: what was given, else the preset's, else the default.

    given: None where nothing was
    Raises: SpecError for an unknown preset, or one without a curve
    """
    chosen: dict[str, Any] = {"seeds": 3, "steps": "epochs", "training": None}
    chosen |= {"orders": ("random", "el2n", "el2n*", "oracle"), "points": 20}
    if preset:
        found = find_preset(preset)
        if found.psi is None:
            some = ", ".join(name for name, one in PRESETS.items() if one.psi)
            raise SpecError(f"preset '{preset}' holds no psi-curve; allowed: {some}")
        chosen |= found.psi | {"training": found.training}
    if window:  # slides over the ranks of the same scores: their reverse and the truth have no window
        names = tuple(o for o in chosen["orders"] if o != "oracle" and not o.endswith("*"))
        chosen |= {"orders": names, "points": 10}
    return chosen | {name: value for name, value in given.items() if value is not None}
