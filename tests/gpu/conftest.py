"""Each test of this folder runs on the processor, with all other tests, and on a GPU (marked `gpu`): the same values.

`python tests/gpu` runs them where there is a GPU. They import torch, numpy and pytest, and the engine without the packages
that keep its files (`absent`).
"""

import contextlib
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from absent import stand_in  # noqa: E402

stand_in()

import torch  # noqa: E402


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return torch.device(request.param)


@pytest.fixture
def waits_for_nothing(device):
    """A context in which a GPU refuses whatever has the process wait for it."""

    @contextlib.contextmanager
    def refused():
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    return refused
