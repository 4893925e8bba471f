"""The networks that a run publishes: which file holds the weights after an epoch, and a network made of it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from engine.errors import StorageError
from engine.spec import TrainingSpec
from engine.store.tensors import load_tensors
from engine.store.verified import file_of
from engine.training.models import build_model


def weights_file(epoch: int, epochs: int) -> str:
    """The name of the file with the weights after an epoch (1 .. epochs): tensors `seed<s>.<name>`."""
    return "weights.safetensors" if epoch == epochs else f"weights-epoch{epoch}.safetensors"


def stored_epochs(folder: Path, epochs: int) -> list[int]:
    """The epochs of a training of so many epochs whose weights a published folder holds, ascending."""
    return [epoch for epoch in range(1, epochs + 1) if (folder / weights_file(epoch, epochs)).exists()]


def load_network(
    folder: Path,
    training: TrainingSpec,
    input_shape: Sequence[int],
    classes: int,
    seed: int,
    epoch: int,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A published network, on a device and in evaluation mode.

    Args:   folder: of the run that trained it; input_shape: without the batch axis; classes: its outputs;
            epoch in 1 .. training.epochs
    Raises: StorageError when the folder does not hold its weights
    """
    name, prefix = weights_file(epoch, training.epochs), f"seed{seed}."
    network = build_model(training.model, input_shape, classes, 0)
    try:
        weights, _ = load_tensors(file_of(folder, name), prefix) or ({}, {})
        network.load_state_dict({key.removeprefix(prefix): torch.from_numpy(values) for key, values in weights.items()})
    except (StorageError, RuntimeError) as error:
        reason = f" ({error})" if isinstance(error, StorageError) else ""
        raise StorageError(
            f"{folder / name} does not hold the weights of seed {seed} after epoch {epoch}{reason}; remove that run "
            "(winnow remove) and run it again"
        ) from error
    return network.to(device).eval()
