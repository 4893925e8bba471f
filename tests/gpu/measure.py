"""What takes long, timed on the processor and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import torchvision
from torch import nn

from engine.data.loader import Samples, normalization
from engine.features.embedding import Embedding, embed
from engine.features.neighbors import compute_neighbors
from engine.scores.gap import solve_gap
from engine.scores.geometry import knn_shapley
from engine.scores.gradient import compute_gradient_norms
from engine.scores.kernel import compute_kernel_velocity
from engine.selection.samplers import select
from engine.spec import TrainingSpec
from engine.training.loop import Normalization, build_optimizer, train_epochs
from engine.training.models import build_model
from engine.training.recording import DynamicsRecorder, Spill
from engine.training.stacked import Member, train_stacked

REPEATS, LONG = 3, 5.0
Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table: what was done, and the seconds of each repeat on each device."""

    name: str
    what: str
    seconds: dict[str, list[float]]


def clouds(n: int, width: int, device: torch.device, classes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    centers = torch.randn(classes, width, generator=generator)
    return (centers[labels] + torch.randn(n, width, generator=generator)).to(device), labels.to(device)


def samples_of(n: int, shape: Sequence[int], device: torch.device) -> tuple[Samples, Normalization]:
    labels = torch.arange(n, device=device) % 10
    if len(shape) == 1:
        inputs = clouds(n, shape[0], device)[0]
    else:
        drawn = torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        inputs = drawn.to(device)
    samples = Samples(inputs, labels, torch.arange(n, device=device), 10, None)
    return samples, Normalization(*normalization(samples))


def train_one(device: torch.device, model: str, n: int, shape: Sequence[int], record: bool = False, **options) -> Work:
    samples, scale = samples_of(n, shape, device)
    training = TrainingSpec(model=model, epochs=1, **options)

    def work() -> None:
        network = build_model(model, samples.inputs.shape[1:], 10, 0).to(device)
        with TemporaryDirectory() as folder:
            recorder = DynamicsRecorder(Spill(Path(folder) / "spill", n, 10, False), device) if record else None
            for epoch, _ in train_epochs(
                network, build_optimizer(network, training), samples, scale, training, 0, recorder=recorder
            ):
                if recorder:
                    recorder.end_epoch(epoch)

    return work


def train_many(device: torch.device, count: int, n: int, stacked: bool) -> Work:
    samples, scale = samples_of(n, (256,), device)
    training = TrainingSpec(epochs=2)
    kept = [torch.arange(n - k * n // (2 * count), device=device) for k in range(count)]
    members = [Member(part, seed, 2) for seed, part in enumerate(kept)]

    def one_by_one() -> None:
        for member in members:
            network = build_model("mlp", samples.inputs.shape[1:], 10, member.seed).to(device)
            part = samples.subset(member.kept)
            for _ in train_epochs(network, build_optimizer(network, training), part, scale, training, member.seed):
                pass

    return (lambda: train_stacked(members, samples, scale, training)) if stacked else one_by_one


def features_of(device: torch.device, n: int, side: int) -> Work:
    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Identity()
    network.eval().to(device).to(memory_format=torch.channels_last)
    embedding = Embedding(network, torch.full((3, 1, 1), 128.0), torch.full((3, 1, 1), 64.0), device)
    pixels = torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return lambda: embed(embedding, pixels, lambda share: None)


def velocity_of(device: torch.device, model: str, count: int, shape: Sequence[int]) -> Work:
    networks = [build_model(model, shape, 10, seed).to(device).eval() for seed in range(2)]
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    return lambda: compute_kernel_velocity(networks, inputs)


def gradients_of(device: torch.device, model: str, count: int, shape: Sequence[int]) -> Work:
    network = build_model(model, shape, 10, 0).to(device).eval()
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(count, device=device) % 10
    return lambda: compute_gradient_norms(network, inputs, labels)


def kept_by_kcenter(device: torch.device, n: int, budget: int) -> Work:
    features, _ = clouds(n, 512, device)
    return lambda: select("kcenter", budget, {"features": features, "generator": torch.Generator().manual_seed(0)})


def shapley_of(device: torch.device, n: int, m: int) -> Work:
    (features, labels), (asked, truth) = clouds(n, 512, device), clouds(m, 512, device)
    return lambda: knn_shapley(features, labels, asked, truth)


def works(tiny: bool) -> dict[str, tuple[str, Callable[[torch.device], Work]]]:
    """Every line of the table by name: what it is, and what makes it ready on a device. tiny: of a few samples."""
    n, few, image = (200, 4, (1, 8, 8)) if tiny else (20_000, 125, (3, 32, 32))
    stack, small, gap = (3, 100, 100) if tiny else (50, 2_000, 5_000)
    large = "lenet" if tiny else "resnet18"
    flat = (image[0] * image[1] * image[2],)
    return {
        "training, mlp": (f"an epoch of {n:,}", lambda d: train_one(d, "mlp", n, flat)),
        "the same, recorded": (f"an epoch of {n:,}", lambda d: train_one(d, "mlp", n, flat, True)),
        "training, lenet": (f"an epoch of {n:,}", lambda d: train_one(d, "lenet", n, image, augment="crop+flip")),
        f"training, {large}, bfloat16": (
            f"an epoch of {n // 10:,}",
            lambda d: train_one(d, large, n // 10, image, precision="bfloat16"),
        ),
        "psi, one by one": (f"{stack} networks of {small:,}", lambda d: train_many(d, stack, small, False)),
        "psi, one stack": (f"{stack} networks of {small:,}", lambda d: train_many(d, stack, small, True)),
        "features, resnet18": (
            f"{n // 20:,} images",
            lambda d: features_of(d, n // 20, 32 if tiny else 128),
        ),
        "neighbors": (f"{n:,} x 512, 15 of each", lambda d: _neighbors(d, n)),
        "complexity gap": (f"{gap:,} samples, exact", lambda d: _gap(d, gap)),
        "kernel velocity, mlp": (f"{few} samples, 2 networks", lambda d: velocity_of(d, "mlp", few, image)),
        "kernel velocity, cnn": (f"{few} samples, 2 networks", lambda d: velocity_of(d, "cnn", few, image)),
        "grand, mlp": (f"{n // 10:,} samples", lambda d: gradients_of(d, "mlp", n // 10, image)),
        "grand, lenet": (f"{n // 10:,} samples", lambda d: gradients_of(d, "lenet", n // 10, image)),
        "kcenter": (f"{n // 10:,} of {n:,} x 512", lambda d: kept_by_kcenter(d, n, n // 10)),
        "knn_shapley": (f"{n:,} x 512, {n // 20:,} tested", lambda d: shapley_of(d, n, n // 20)),
    }


def _neighbors(device: torch.device, n: int) -> Work:
    features, _ = clouds(n, 512, device)
    return lambda: compute_neighbors(features, 15)


def _gap(device: torch.device, n: int) -> Work:
    features, labels = clouds(n, 256, device)
    return lambda: solve_gap(features, labels)


def timed(work: Work, device: torch.device) -> float:
    """Seconds of one call, to the end of what a GPU was given."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(devices: Sequence[torch.device], tiny: bool, say: Callable[[str], None]) -> list[Row]:
    """Every line of the table: after a warm-up, REPEATS times on each device; once where it takes a processor LONG."""
    rows = []
    for name, (what, prepare) in works(tiny).items():
        seconds: dict[str, list[float]] = {}
        for device in devices:
            say(f"{name} on {device.type}")
            work = prepare(device)
            first = timed(work, device)
            once = tiny or (device.type == "cpu" and first > LONG)
            seconds[device.type] = [first] if once else [timed(work, device) for _ in range(REPEATS)]
        rows.append(Row(name, what, seconds))
    return rows


def table(rows: Sequence[Row], devices: Sequence[torch.device]) -> str:
    """The rows as a table in Markdown: the middle time of each device, with the shortest and the longest."""
    names = [device.type for device in devices]
    head = ["what", "of", *(f"{name}, seconds" for name in names), *(["faster"] if len(names) > 1 else [])]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [row.name, row.what]
        for name in names:
            times = row.seconds[name]
            cells.append(f"{median(times):.3g} ({min(times):.3g} to {max(times):.3g})")
        if len(names) > 1:
            cells.append(f"{median(row.seconds[names[0]]) / median(row.seconds[names[1]]):.1f} times")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
