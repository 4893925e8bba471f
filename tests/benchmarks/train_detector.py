"""Train the noise detector that ships, and judge it on dynamics of kinds that it has not seen.

    python tests/benchmarks/train_detector.py OUT.safetensors [--judge FILE.npz ...] [--mnist FOLDER] [--against FILE]
                                               [--judge-only]

It learns from networks of two kinds: small ones on scikit-learn's digits, and heads on the features (efficientnet_lite0,
96 pixels) of generated textures, at several lengths of training and shares of wrong labels. Nothing in it is of others'
photographs.

--judge names files with X (N, D) features, y given and t true labels: heads trained on them are judged, and --mnist a
folder with MNIST's train-*-ubyte.gz: networks on 3,000 of its images with 20 % wrong labels are. What is judged takes no
part in the training. --against is another detector's file, judged beside; --judge-only leaves OUT as it is. Each
detector's output is averaged over three networks, as the score lstm_detector is over seeds, and so are the mean of
p_given and aum.

Some 6 minutes of one core. The same versions of torch, NumPy and scikit-learn on the same processor give the same file.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `winnow` itself does; read when torch is imported

import argparse
import gzip
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from detector_textures import CLASSES, SIDE, draw_textures
from sklearn.datasets import load_digits
from torch import Tensor

from engine.data.loader import Samples, normalization
from engine.data.noise import apply_noise
from engine.features.backbones import find_backbone
from engine.features.embedding import Embedding, embed
from engine.scores.evaluation import evaluate_detection
from engine.scores.lstm import SHIPPED, Detector, Fit, detector_of, lstm_detector, resample, train_detector
from engine.spec import TrainingSpec
from engine.store.tensors import load_tensors, save_tensors
from engine.training.loop import Normalization, build_optimizer, train_epochs
from engine.training.models import build_model
from engine.training.recording import DynamicsRecorder, Spill

LENGTH = 20
"""Epochs to which every sequence is resampled."""

TEXTURES, FEWER_CLASSES = 2_000, 6

MLP = TrainingSpec(model="mlp", epochs=20, seeds=1, batch_size=128, lr=0.002)
LENET = TrainingSpec(model="lenet", epochs=6, seeds=1, batch_size=128, lr=0.002)
HEAD = TrainingSpec(model="head", epochs=4, seeds=1, batch_size=256, lr=0.001)
LINEAR = TrainingSpec(model="linear", epochs=5, seeds=1, batch_size=64, lr=0.01)


@dataclass(frozen=True)
class Kind:
    """Networks of one kind: what they are trained on, how, the share of wrong labels, and how many there are."""

    data: str
    training: TrainingSpec
    noise: float
    networks: int


KINDS = (
    Kind("digits", MLP, 0.3, 2),
    Kind("digits", replace(MLP, observe="eval"), 0.3, 2),
    Kind("digits", replace(MLP, lr=0.01, batch_size=64), 0.3, 2),
    Kind("digits", LENET, 0.1, 4),
    Kind("digits", LENET, 0.3, 3),
    Kind("digits", replace(LENET, epochs=12), 0.1, 2),
    Kind("textures", HEAD, 0.08, 4),
    Kind("textures", HEAD, 0.15, 3),
    Kind("textures", HEAD, 0.3, 2),
    Kind("textures", replace(HEAD, epochs=8), 0.3, 2),
    Kind("textures", replace(HEAD, epochs=20), 0.3, 2),
    Kind("textures", LINEAR, 0.2, 2),
    Kind("textures", replace(MLP, epochs=8), 0.3, 1),
    Kind("fewer textures", HEAD, 0.08, 5),
    Kind("fewer textures", HEAD, 0.2, 4),
    Kind("fewer textures", replace(HEAD, epochs=6), 0.1, 3),
)

STEPS = ({"lr": 0.01, "epochs": 4}, {"lr": 0.001, "epochs": 5})
"""The detector is trained twice, from where it was: the second time with a tenth of the learning rate."""

Data = tuple[Tensor, np.ndarray, int]
"""Inputs, true classes, and how many classes there are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--judge", type=Path, nargs="*", default=[])
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--judge-only", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    images, truth = load_digits(return_X_y=True)
    digits = (
        torch.from_numpy((images.reshape(-1, 1, 8, 8) * 255 / 16).round().astype(np.uint8)),
        truth.astype(np.int64),
        10,
    )
    if not given.judge_only:
        save(given.out, train(digits))
    detectors = {SHIPPED: read(given.out)} | ({given.against.stem: read(given.against)} if given.against else {})
    judge("digits, `mlp`, 30 % wrong", relabeled(digits, 0.3, 999), MLP, detectors)
    judge("digits, `lenet`, 10 % wrong", relabeled(digits, 0.1, 998), LENET, detectors)
    for path in given.judge:
        with np.load(path) as file:
            labels, known = (torch.from_numpy(file[name]).long() for name in ("y", "t"))
            samples = Samples(torch.from_numpy(file["X"]).float(), labels, torch.arange(len(labels)), 10, known)
        judge(f"{path.stem}, `head`", samples, HEAD, detectors)
    if given.mnist:
        samples = relabeled(read_mnist(given.mnist, 3000), 0.2, 997)
        judge("MNIST, `lenet`, 20 % wrong", samples, LENET, detectors)
        judge("MNIST, `mlp`, 20 % wrong", samples, MLP, detectors)


def train(digits: Data) -> Fit:
    """The detector, trained on the dynamics of all kinds."""
    features, classes = texture_features()
    few = classes < FEWER_CLASSES
    data = {
        "digits": digits,
        "textures": (features, classes, CLASSES),
        "fewer textures": (features[torch.from_numpy(few)], classes[few], FEWER_CLASSES),
    }
    sequences, wrong = [], []
    for i, kind in enumerate(KINDS):
        for k in range(kind.networks):
            samples = relabeled(data[kind.data], kind.noise, 100 * i + k)
            p_given, _ = dynamics(samples, kind.training, 100 * i + k)
            sequences.append(resample(p_given, LENGTH))
            wrong.append(samples.labels != samples.true_labels)
        print(f"{kind.networks} {kind.training.model} on {kind.data}, {kind.noise:.0%} wrong", flush=True)
    fit = None
    for step in STEPS:
        start = fit.detector if fit else None
        fit = train_detector(torch.cat(sequences, 1), torch.cat(wrong), 0, start=start, batch_size=256, **step)
        print(f"{step}: {fit.metrics}", *fit.notes, flush=True)
    assert fit is not None
    return fit


def read_mnist(folder: Path, count: int) -> Data:
    """The first images (count, 1, 28, 28) uint8 of the training set, and their classes."""
    with (
        gzip.open(folder / "train-images-idx3-ubyte.gz") as images,
        gzip.open(folder / "train-labels-idx1-ubyte.gz") as labels,
    ):
        pixels = np.frombuffer(images.read(16 + count * 784), np.uint8, offset=16).reshape(-1, 1, 28, 28)
        truth = np.frombuffer(labels.read(8 + count), np.uint8, offset=8).astype(np.int64)
    return torch.from_numpy(pixels.copy()), truth, 10


def texture_features() -> tuple[Tensor, np.ndarray]:
    """Features (N, 1280) of the textures, and their classes."""
    images, classes = draw_textures(TEXTURES, seed=0)
    backbone = find_backbone(f"efficientnet_lite0:{SIDE}")
    mean, std = (torch.tensor(list(values)).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    embedding = Embedding(backbone.load(), mean, std, torch.device("cpu"))
    return embed(embedding, torch.from_numpy(images), lambda share: None), classes


def relabeled(data: Data, noise: float, seed: int) -> Samples:
    """Samples of which that share has a wrong label."""
    inputs, truth, classes = data
    labels = torch.from_numpy(apply_noise(f"symmetric:{noise}", truth, classes, seed))
    return Samples(inputs, labels, torch.arange(len(labels)), classes, torch.from_numpy(truth))


def dynamics(samples: Samples, training: TrainingSpec, seed: int) -> tuple[Tensor, Tensor]:
    """p_given and the margin of one network, trained and recorded as in a run, (T, N) each."""
    network = build_model(training.model, tuple(samples.inputs.shape[1:]), samples.classes, seed)
    scale = Normalization(*normalization(samples))
    with tempfile.TemporaryDirectory() as folder:
        spill = Spill(Path(folder) / "dynamics", len(samples), samples.classes, False)
        recorder = DynamicsRecorder(spill, torch.device("cpu"))
        optimizer = build_optimizer(network, training)
        for epoch, _ in train_epochs(network, optimizer, samples, scale, training, seed, recorder=recorder):
            recorder.end_epoch(epoch)
        columns = spill.columns()
        return torch.from_numpy(columns["p_given"].copy()), torch.from_numpy(columns["margin"].copy())


def save(path: Path, fit: Fit) -> None:
    """Write the detector and where it is from; half precision, which changes no judgment."""
    tensors = {name: values.half().numpy() for name, values in fit.detector.state_dict().items()}
    noise = sorted({kind.noise for kind in KINDS})
    record = {
        "name": SHIPPED,
        "dataset": f"scikit-learn digits, 1,797 images; features of {TEXTURES:,} generated textures",
        "noise": f"symmetric:{noise[0]} to symmetric:{noise[-1]}",
        "training": f"{sum(kind.networks for kind in KINDS)} networks: mlp and lenet on digits, head, linear and mlp on "
        "features, 4 to 20 epochs (tests/benchmarks/train_detector.py)",
        "lr": fit.lr,
        "metrics": {name: round(value, 4) for name, value in fit.metrics.items()},
    }
    save_tensors(path, {**tensors, "epochs": np.array(LENGTH, np.int32)}, record)


def read(path: Path) -> Detector:
    tensors, _ = load_tensors(path) or ({}, {})
    return detector_of({name: torch.from_numpy(values).float() for name, values in tensors.items()})


def judge(name: str, samples: Samples, training: TrainingSpec, detectors: dict[str, Detector]) -> None:
    """Print a row of the guide's table: average precision and ROC AUC of what finds the wrong labels."""
    assert samples.true_labels is not None
    wrong = (samples.labels != samples.true_labels).numpy()
    runs = [dynamics(samples, training, 1000 + seed) for seed in range(3)]
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        **{key: lambda p, m, d=detector: lstm_detector(p, d) for key, detector in detectors.items()},
        "mean of p_given": lambda p, m: 1 - p.mean(0),
        "aum": lambda p, m: -m.mean(0),
    }
    cells = []
    for key, suspicion in found.items():
        values = torch.stack([suspicion(p, m).double() for p, m in runs]).mean(0).numpy()
        metrics = evaluate_detection(values, wrong)
        cells.append(f"{key} {metrics['average_precision']:.3f}, {metrics['roc_auc']:.3f}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
