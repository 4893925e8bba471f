"""Many small networks of one architecture trained as one: every step is one batched product for all of them.

A step of a small network is too short for a GPU: most of its time goes into starting kernels. Here a stack of K
networks takes one step together. Each keeps its own samples, seed, order of every epoch, batch-norm statistics,
optimizer state, learning rate and number of steps, and no number of one network reads a number of another: they are
the networks that the plain loop trains with the same seeds, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.data.loader import Samples, batch_ends, epoch_order, to_float
from engine.spec import TrainingSpec
from engine.training.device import available_bytes, send
from engine.training.dropout import Dropout, draw_mask
from engine.training.loop import EVAL_VALUES, Normalization, epoch_generator, learning_rate
from engine.training.models import build_model
from engine.training.precision import precision_of

MAX_STACK = 1024
"""Networks in one stack at most: beyond some hundred a large GPU gains nothing more."""

PLANNED = 64
"""Steps whose batches are brought to the device at a time: a copy for each would have every step wait for it."""

_BETAS, _EPS, _MOMENTUM = (0.9, 0.999), 1e-8, 0.9
"""Those of torch.optim.Adam, and of the SGD that `loop.build_optimizer` makes."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class Member:
    """One network of a stack. kept (n,) int64: the positions it is trained on, on the samples' device."""

    kept: Tensor
    seed: int
    epochs: int


class Stack:
    """K networks of one architecture. state: their parameters and buffers by name, each (K, *shape)."""

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        first = networks[0]
        assert isinstance(first, nn.Sequential) and can_stack(first)
        self.layers = first
        states = [network.state_dict() for network in networks]
        self.state: State = {name: torch.stack([s[name] for s in states]).to(device) for name in states[0]}
        self.trained = [name for name, p in first.named_parameters() if p.requires_grad]

    def __len__(self) -> int:
        return len(next(iter(self.state.values())))

    def member(self, k: int) -> nn.Sequential:
        """The k-th network, in evaluation mode: the one module that all share, with its weights in it."""
        self.layers.load_state_dict({name: values[k] for name, values in self.state.items()})
        return self.layers.eval()

    def count(self, steps: Tensor | int) -> None:
        """Note how many steps each network has taken, or all of them, where batch normalization counts them."""
        for name, values in self.state.items():
            if name.endswith("num_batches_tracked"):
                values.copy_(torch.as_tensor(steps))

    def logits(self, inputs: Tensor) -> Tensor:
        """The logits of every network for the same inputs, in evaluation mode: (B, ...) -> (K, B, C)."""
        return self.forward(self.state, inputs.expand(len(self), *inputs.shape), None)

    def forward(self, state: State, inputs: Tensor, batch: Batch | None) -> Tensor:
        """inputs (k, B, ...) -> logits (k, B, C); with a batch in training mode, else in evaluation mode."""
        hidden = inputs.flatten(2)
        last = max((i for i, layer in enumerate(self.layers) if isinstance(layer, nn.Linear)), default=-1)
        for i, layer in enumerate(self.layers):
            if isinstance(layer, nn.Linear):
                weight, bias = state[f"{i}.weight"].transpose(1, 2), state.get(f"{i}.bias")
                if i == last:  # float32 whatever the others are, as in the plain loop
                    with torch.autocast(hidden.device.type, enabled=False):
                        hidden = _products(hidden.float(), weight, bias)
                else:
                    hidden = _products(hidden, weight, bias)
            elif isinstance(layer, nn.BatchNorm1d):
                own = {name: state[f"{i}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
                hidden = _normalize(hidden.float(), own, layer, batch)
            elif isinstance(layer, nn.ReLU):
                hidden = hidden.relu()
            elif isinstance(layer, Dropout) and batch is not None:
                masks = _draw_masks(batch, *hidden.shape[1:])
                hidden = hidden * send(masks, hidden.device).to(hidden.dtype)
        return hidden.float()


def _products(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(hidden, weight) if bias is None else torch.baddbmm(bias[:, None], hidden, weight)


@dataclass(frozen=True)
class Batch:
    """One batch of each of k networks.

    positions, filled (k, B): the samples, and which of the B are meant; rows (k,): how many are; groups: the networks
    whose batches have the same number of rows, by that number; places: the same on the device; generators: what each
    one's dropout draws from in this epoch.
    """

    positions: Tensor
    filled: Tensor
    rows: Tensor
    groups: dict[int, list[int]]
    places: dict[int, Tensor]
    generators: Sequence[torch.Generator]


def _draw_masks(batch: Batch, most: int, width: int) -> Tensor:
    """The dropout masks of each network's rows, as the network alone would draw them: (k, most, width), 0 beyond them."""
    masks = torch.zeros(len(batch.generators), most, width)
    for rows, who in batch.groups.items():
        for k in who:
            masks[k, :rows] = draw_mask(rows, width, batch.generators[k])
    return masks


def _normalize(hidden: Tensor, own: State, layer: nn.BatchNorm1d, batch: Batch | None) -> Tensor:
    """Batch normalization of each network over its filled rows; running statistics are updated. (k, B, F) -> same."""
    if batch is None:
        scale = own["weight"] * (own["running_var"] + layer.eps).rsqrt()
        return torch.addcmul(own["bias"][:, None], hidden - own["running_mean"][:, None], scale[:, None])
    if len(batch.groups) == 1 and hidden.shape[1] in batch.groups:
        return _normalize_whole(hidden, own, layer)
    out = torch.zeros_like(hidden)
    for rows, who in batch.places.items():
        # Copies of the statistics, which are small, go back to their places; autograd sees the rest through an index.
        some = {name: values[who] for name, values in own.items()}
        out[who, :rows] = _normalize_whole(hidden[who, :rows], some, layer)
        with torch.no_grad():
            for name in ("running_mean", "running_var"):
                own[name][who] = some[name]
    return out


def _normalize_whole(hidden: Tensor, own: State, layer: nn.BatchNorm1d) -> Tensor:
    """As one batch normalization of k F features: the arithmetic of each feature is that of the plain network."""
    k, rows, width = hidden.shape
    flat = {name: values.view(-1) for name, values in own.items()}
    mean, variance, weight, bias = (flat[name] for name in ("running_mean", "running_var", "weight", "bias"))
    side_by_side = hidden.transpose(0, 1).reshape(rows, k * width)
    assert layer.momentum is not None
    normal = functional.batch_norm(side_by_side, mean, variance, weight, bias, True, layer.momentum, layer.eps)
    return normal.view(rows, k, width).transpose(0, 1)


Watch = Callable[[int, Batch, Tensor, Stack], None]
"""What looks on: called with the number of a step, from 1 on, its batch, its logits (k, B, C) and the networks after it."""


def can_stack(network: nn.Module) -> bool:
    """Whether a network is a sequence of linear layers, batch normalizations, ReLUs and dropout, which a stack can train."""
    if not isinstance(network, nn.Sequential):
        return False
    normalizations = [layer for layer in network if isinstance(layer, nn.BatchNorm1d)]
    known = nn.Flatten | nn.Linear | nn.BatchNorm1d | nn.ReLU | Dropout
    return all(isinstance(layer, known) for layer in network) and all(
        layer.affine and layer.track_running_stats and layer.momentum is not None for layer in normalizations
    )


def batch_width(n: int, batch_size: int) -> int:
    """Samples in the largest batch of an epoch over n. Networks of one width have the same numbers in any stack."""
    ends = batch_ends(n, batch_size)
    return max(end - start for start, end in zip([0, *ends[:-1]], ends, strict=True))


def stack_size(network: nn.Module, training: TrainingSpec, samples: Samples, device: torch.device) -> int:
    """How many such networks fit into half the device's free memory while they are trained together, 1 .. MAX_STACK."""
    weights = sum(p.numel() for p in network.parameters())
    widths = sum(layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear))
    inputs = math.prod(samples.shape)
    # Weights, gradients, two states, two temporaries; ten of every activation; the order of the samples twice.
    values = 6 * weights + training.batch_size * (10 * widths + 3 * inputs) + 4 * len(samples)
    return max(1, min(MAX_STACK, available_bytes(device) // (2 * 4 * values)))


def train_stacked(
    members: Sequence[Member],
    samples: Samples,
    normalization: Normalization,
    training: TrainingSpec,
    *,
    heartbeat: Callable[[float], None] = lambda fraction: None,
    watch: Watch | None = None,
) -> Stack:
    """Train networks as one.

    Args:    training: of all members, its epochs and seeds apart; without augmentation
             heartbeat: called at every step with the share of all steps done; may raise to stop; watch: called after
             every step
    Returns: the trained networks, in the order of the members
    """
    device = samples.device
    batches = [len(batch_ends(len(member.kept), training.batch_size)) for member in members]
    steps = [b * member.epochs for b, member in zip(batches, members, strict=True)]
    # Longest first: those still in training are then the first k of every tensor, and the others stay as they are.
    ranked = sorted(range(len(members)), key=lambda k: -steps[k])
    networks = [build_model(training.model, samples.shape, samples.classes, members[k].seed) for k in ranked]
    stack = Stack(networks, device)
    optimizer = {name: [torch.zeros_like(stack.state[name]) for _ in range(2)] for name in stack.trained}
    done, whole = 0, sum(steps)
    for step, batch, rates in _batches([members[k] for k in ranked], training, device):
        heartbeat(done / whole)
        k = len(batch.positions)
        state = {name: values[:k] for name, values in stack.state.items()}
        leaves = [state[name].requires_grad_() for name in stack.trained]
        scaled = to_float(samples.inputs_at(batch.positions), normalization.mean, normalization.std)
        with precision_of(training, device):
            logits = stack.forward(state, scaled, batch)
        labels = samples.labels[batch.positions]
        losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
        gradients = torch.autograd.grad((losses * (batch.filled / batch.rows[:, None])).sum(), leaves)
        with torch.no_grad():
            for name, leaf, gradient in zip(stack.trained, leaves, gradients, strict=True):
                own = [values[:k] for values in optimizer[name]]
                _update(leaf.detach(), gradient, own, rates.view(-1, *[1] * (leaf.ndim - 1)), step, training)
        done += k
        if watch:
            watch(step, batch, logits.detach(), stack)
    places = torch.tensor(sorted(range(len(ranked)), key=lambda i: ranked[i]), device=device)
    stack.state = {name: values.detach()[places] for name, values in stack.state.items()}
    stack.count(torch.tensor(steps, device=device))
    return stack


def _batches(
    members: Sequence[Member], training: TrainingSpec, device: torch.device
) -> Iterator[tuple[int, Batch, Tensor]]:
    """Every step of a stack: its number from 1 on, the batches of the k members still in training, and their rates.

    members: those with the most steps first
    """
    size = training.batch_size
    ends = [batch_ends(len(member.kept), size) for member in members]
    total = [len(e) * member.epochs for e, member in zip(ends, members, strict=True)]
    longest = max(len(member.kept) for member in members)
    columns = torch.arange(max(batch_width(len(member.kept), size) for member in members), device=device)
    orders = torch.zeros(len(members), longest, dtype=torch.int64, device=device)
    generators = [torch.Generator() for _ in members]
    k, step = len(members), 0
    while step < total[0]:
        while total[k - 1] <= step:
            k -= 1
        for planned in _plan_steps(ends[:k], range(step, min(step + PLANNED, total[k - 1])), total, training, device):
            for i, member in enumerate(members[:k]):
                epoch, at = divmod(step, len(ends[i]))
                if at == 0:
                    order = send(epoch_order(len(member.kept), member.seed, epoch), device)
                    orders[i, : len(order)] = member.kept[order]
                    generators[i] = epoch_generator(member.seed, epoch)
            start, stop = planned.spans.unbind(1)
            places = start[:, None] + columns
            positions = orders[:k].gather(1, places.clamp_max(longest - 1))
            filled = places < stop[:, None]
            step += 1
            batch = Batch(positions, filled, stop - start, planned.groups, planned.places, generators[:k])
            yield step, batch, planned.rates


@dataclass(frozen=True)
class _Step:
    """What of a step is known before it: spans (k, 2) in the order of the epoch, rates (k,), and the rest as in Batch."""

    spans: Tensor
    rates: Tensor
    groups: dict[int, list[int]]
    places: dict[int, Tensor]


def _plan_steps(
    ends: Sequence[Sequence[int]], steps: range, total: Sequence[int], training: TrainingSpec, device: torch.device
) -> Iterator[_Step]:
    """Some steps of the networks with these ends of their batches, brought to the device at once."""
    spans, rates, grouped = [], [], []
    for step in steps:
        at = [step % len(own) for own in ends]
        here = [(own[i - 1] if i else 0, own[i]) for own, i in zip(ends, at, strict=True)]
        groups: dict[int, list[int]] = {}
        for k, (first, last) in enumerate(here):
            groups.setdefault(last - first, []).append(k)
        spans.append(here)
        rates.append([learning_rate(training, step / total[k]) for k in range(len(ends))])
        grouped.append(groups)
    sent = send(torch.tensor(spans), device), send(torch.tensor(rates), device)
    who = [members for groups in grouped for members in groups.values()]
    places = iter(
        torch.split(send(torch.tensor([k for members in who for k in members]), device), [len(m) for m in who])
    )
    for own_spans, own_rates, groups in zip(*sent, grouped, strict=True):
        yield _Step(own_spans, own_rates, groups, {rows: next(places) for rows in groups})


def _update(
    parameter: Tensor, gradient: Tensor, state: list[Tensor], rates: Tensor, step: int, training: TrainingSpec
) -> None:
    """One step of Adam, or of SGD with Nesterov momentum, on (k, ...) parameters with a learning rate each."""
    if training.weight_decay:
        gradient = gradient.add(parameter, alpha=training.weight_decay)
    if training.optimizer == "sgd":
        velocity = state[0].mul_(_MOMENTUM).add_(gradient)
        parameter.addcmul_(gradient.add(velocity, alpha=_MOMENTUM), rates, value=-1)
        return
    first, second = state
    first.lerp_(gradient, 1 - _BETAS[0])
    second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
    spread = second.sqrt().div_((1 - _BETAS[1] ** step) ** 0.5).add_(_EPS)
    parameter.sub_((rates / (1 - _BETAS[0] ** step) * first).div_(spread))


def compute_accuracies(
    stack: Stack, samples: Samples, normalization: Normalization, heartbeat: Callable[[], None] = lambda: None
) -> list[float]:
    """Share of samples whose largest logit is their label, 0..1, of every network."""
    hits = torch.zeros(len(stack), dtype=torch.int64, device=samples.device)
    for part, logits in evaluate_stack(stack, samples, normalization, heartbeat):
        hits += (logits.argmax(2) == samples.labels[part]).sum(1)
    return [int(h) / len(samples) for h in hits]


def evaluate_stack(
    stack: Stack, samples: Samples, normalization: Normalization, heartbeat: Callable[[], None] = lambda: None
) -> Iterator[tuple[slice, Tensor]]:
    """All samples in order, some at a time, and the logits (K, B, C) of every network for them, in evaluation mode."""
    width = max(512, math.prod(samples.shape))
    rows = max(1, min(8192, EVAL_VALUES // width, 64 * EVAL_VALUES // (len(stack) * width)))
    with torch.no_grad():
        for start in range(0, len(samples), rows):
            heartbeat()
            part = slice(start, start + rows)
            yield part, stack.logits(to_float(samples.inputs_at(part), normalization.mean, normalization.std))
