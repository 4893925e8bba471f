"""Several networks at once on a CPU: some threads of this process each, instead of all threads for each step.

A step of a small network is too short to share out: its threads spend more time waiting for each other than
computing. Networks side by side do not wait. How many threads one network has is part of its training, because the
last digits depend on it; how many networks are trained side by side is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from engine.errors import Cancelled
from engine.store.progress import Reporter
from engine.training.models import draws_while_training

T = TypeVar("T")


def workers_for(model: str, networks: int, device: torch.device, threads: int = 1) -> int:
    """How many networks to train at once: as many as torch has threads for on a CPU, one on a GPU.

    threads: of each network.
    A network that may draw random numbers while it trains (dropout) is trained alone: the generator is the process's.
    """
    if device.type != "cpu" or draws_while_training(model):
        return 1
    return max(1, min(networks, torch.get_num_threads() // threads))


def train_together(
    work: Sequence[Callable[[], T]], workers: int, progress: Reporter, threads: int | None = 1
) -> list[T]:
    """The results of every piece of work, in order. When one fails, the others stop at their next heartbeat.

    threads: of each piece; None = all that torch has
    """
    with _threads(threads):
        if workers == 1:
            return [piece() for piece in work]
        with ThreadPoolExecutor(workers) as pool:
            futures: list[Future[T]] = [pool.submit(piece) for piece in work]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # Also when a person interrupts: nobody waits for the epochs that are left.
                progress.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                progress.stop(False)
    failed = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in sorted(failed, key=lambda error: isinstance(error, Cancelled)):
        raise error
    return [future.result() for future in futures]


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
