"""Scores from gradients of the loss: their size, and their agreement with those of other samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional

from engine.scores.outer import part_network
from engine.scores.registry import score

GRADIENT_BYTES = 1 << 28
"""Per-sample gradients held at a time (256 MB)."""


@score(
    higher_means="harder",
    evidence="label",
    value_range=(0.0, math.inf),
    source="Paul et al. 2021, eq. 1",
    epoch=20,
    every_seed=True,
)
def grand(gradient_norms: Tensor) -> Tensor:
    """Norm of the gradient of a sample's loss with respect to all parameters, early in training.

    s_i = ||grad_w l(f_w(x_i), y_i)||_2, see `compute_gradient_norms`

    Args:    gradient_norms (N,), of one network
    Returns: (N,) float32 in [0, inf); higher = harder
    Departs from the paper: in evaluation mode, so that a sample's gradient does not depend on its batch; the last
    epoch where fewer than 20 were trained.
    """
    return gradient_norms.float()


@score(
    higher_means="harder",
    evidence="label",
    value_range=(0.0, math.inf),
    source="Paul et al. 2021, eq. 1",
    epoch=20,
    every_seed=True,
)
def grand_last_layer(probs: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Norm of the gradient of a sample's loss with respect to the last layer, early in training.

    s_i = ||p_i - onehot(y_i)||_2 sqrt(1 + ||h_i||^2), the 1 for the bias

    Args:    probs (N, C); labels (N,) int64 in [0, C); features (N, D), the last layer's input
    Returns: (N,) float32 in [0, inf); higher = harder
    Departs from the paper: the last layer alone, which needs no backward pass.
    """
    size: Tensor = _error(probs, labels).norm(dim=1)
    return size * (1 + features.float().square().sum(1)).sqrt()


@score(
    higher_means="harder",
    evidence="label",
    version=2,
    value_range=(0.0, math.inf),
    source="Pruthi et al. 2020, TracInCP and section 3.4",
)
def tracin_self(
    checkpoint_probs: Tensor, checkpoint_squares: Tensor, checkpoint_rates: Tensor, labels: Tensor
) -> Tensor:
    """Influence of a sample on its own loss over training: last-layer gradients at several checkpoints.

    s_i = sum_t lr_t ||p_i^(t) - onehot(y_i)||^2 (1 + ||h_i^(t)||^2)

    Args:    checkpoint_probs (K, N, C); checkpoint_squares (K, N), ||h_i||^2; checkpoint_rates (K,), the learning rates with
             which their epochs were trained; labels (N,) int64 in [0, C)
    Returns: (N,) float32 in [0, inf); higher = harder
    Departs from the paper: the last layer alone; checkpoints with a learning rate of 0 add nothing.
    """
    total = torch.zeros(len(labels))
    for probs, squares, rate in zip(checkpoint_probs, checkpoint_squares, checkpoint_rates.tolist(), strict=True):
        total += rate * _error(probs, labels).square().sum(1) * (1 + squares)
    return total


@score(higher_means="easier", evidence="label", version=2, source="Pruthi et al. 2020, TracInCP; CG, appendix E.3")
def tracin_validation(validation_influence: Tensor) -> Tensor:
    """Mean influence of a sample on the losses of the test split: positive lowers them.

    s_i = sum_t lr_t mean_v <grad l_i, grad l_v>, of the last layer at several checkpoints, see `compute_influence`

    Args:    validation_influence (N,)
    Returns: (N,) float32, unbounded; higher = easier; mislabeled samples are negative
    Departs from the paper: the last layer alone.
    """
    return validation_influence.float()


def compute_influence(
    probs: Tensor, features: Tensor, labels: Tensor, other_probs: Tensor, other_features: Tensor, other_labels: Tensor
) -> Tensor:
    """Mean inner product of a sample's last-layer gradient with those of other samples, without forming any.

    A gradient is (p - onehot(y)) outer (h, 1), so the mean over the others is one (C, D + 1) matrix.

    Args:    probs (N, C), features (N, D), labels (N,); the same of M others
    Returns: (N,) float32
    """
    ours, others = _error(probs, labels), _error(other_probs, other_labels)
    mean = others.T @ _with_one(other_features) / len(others)
    return ((ours @ mean) * _with_one(features)).sum(1)


def compute_gradient_norms(
    network: nn.Module, inputs: Tensor, labels: Tensor, heartbeat: Callable[[], None] = lambda: None
) -> Tensor:
    """Norm of each sample's gradient with respect to all trainable parameters, chunk by chunk.

    That of a linear layer's weight is ||outer(d, h)|| = ||d|| ||h||, from the gradient d of the layer's output and its
    input h; the gradients of all else are formed.

    Args:    network: in evaluation mode; inputs (B, ...), as the network takes them; labels (B,)
    Returns: (B,) float32
    """
    parts = part_network(network, inputs)

    def loss(
        rest: Mapping[str, Tensor], shifts: Mapping[str, Tensor], one: Tensor, label: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits, seen = parts.call(rest, shifts, one[None])
        return functional.cross_entropy(logits.float(), label[None]), seen

    per_sample = vmap(grad(loss, argnums=(0, 1), has_aux=True), in_dims=(None, None, 0, 0))
    size = sum(p.numel() * p.element_size() for p in parts.rest.values())
    chunk = max(1, min(len(inputs), GRADIENT_BYTES // max(1, size)))
    norms = []
    for start in range(0, len(inputs), chunk):
        heartbeat()
        rows = slice(start, start + chunk)
        (formed, outputs), seen = per_sample(parts.rest, parts.shifts(inputs), inputs[rows], labels[rows])
        squares = torch.zeros(len(inputs[rows]), device=inputs.device)
        for gradient in formed.values():
            squares += gradient.flatten(1).square().sum(1)
        for name, layer in parts.linear.items():
            trained = layer.weight.requires_grad, layer.bias is not None and layer.bias.requires_grad
            factor = trained[0] * seen[name].flatten(1).square().sum(1) + trained[1]
            squares += outputs[name].flatten(1).square().sum(1) * factor
        norms.append(squares.sqrt())
    return torch.cat(norms).float()


def checkpoint_epochs(epochs: int, count: int = 5) -> Sequence[int]:
    """The epochs (1 .. T) whose networks TracIn reads: evenly spaced, the last among them."""
    return sorted({max(1, round(epochs * k / count)) for k in range(1, count + 1)})


def _error(probs: Tensor, labels: Tensor) -> Tensor:
    return probs.float() - functional.one_hot(labels, probs.shape[1])


def _with_one(features: Tensor) -> Tensor:
    return functional.pad(features.float(), (0, 1), value=1.0)
