"""Nearest to an image: a sample's own image finds the sample, with a run's own network and with a backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.originals import Originals
from engine.errors import SourceError, SpecError
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.runs.similar import _nearest, similar_samples
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace


@pytest.fixture(scope="module")
def image_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Workspace, str, int], Path]:
    """Writes the stored input of a sample to a file."""

    def write(workspace: Workspace, dataset: str, sample: int) -> Path:
        small = Originals(workspace, dataset, 8).read([sample], lambda: None)[0].pixels
        assert small is not None
        path = tmp_path_factory.mktemp("images") / f"{sample}.png"
        Image.fromarray(small[0]).save(path)
        return path

    return write


def test_blocks_give_the_nearest_of_all_with_ties_by_id() -> None:
    rows = np.array([[1, 0], [0, 2], [3, 3], [2, 0], [-1, 0], [0, 0]], np.float32)
    blocks = [(0, rows[:2]), (2, rows[2:5]), (5, rows[5:])]
    found = _nearest(np.array([5, 0], np.float32), iter(blocks), 4)
    assert [i for i, _ in found] == [0, 3, 2, 1]
    assert [s for _, s in found] == pytest.approx([1, 1, 2**-0.5, 0])


def test_the_image_of_a_sample_finds_that_sample(
    demo_workspace: Path, image_of: Callable[[Workspace, str, int], Path]
) -> None:
    workspace = Workspace.open(demo_workspace)
    for sample in (0, 17, 900):
        _, found = similar_samples(workspace, "digits-noisy", image_of(workspace, "digits-noisy", sample), n=3)
        assert found[0] == (sample, pytest.approx(1.0, abs=1e-5)) and len(found) == 3
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)


def test_a_backbones_run_compares_with_all_samples(
    small_workspace: Workspace,
    small_training: Callable[..., TrainingSpec],
    image_of: Callable[[Workspace, str, int], Path],
) -> None:
    plan = plan_run(small_workspace, "small", ["random"], small_training(), features="efficientnet_lite0:32")
    run_id, _ = compute(small_workspace, plan, "cpu")
    sample = 5
    chosen, found = similar_samples(small_workspace, "small", image_of(small_workspace, "small", sample), run_id, 4)
    assert chosen == run_id and sample in [i for i, s in found if s > 1 - 1e-4]


def test_what_cannot_be_compared_is_said(demo_workspace: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(demo_workspace)
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(SourceError, match="no.png cannot be read as an image: not an image in a known format"):
        similar_samples(workspace, "digits-noisy", tmp_path / "no.png")
    with pytest.raises(SourceError, match="gone.png cannot be read as an image: there is no such file"):
        similar_samples(workspace, "digits-noisy", tmp_path / "gone.png")
    with pytest.raises(SpecError, match="--n is 0; allowed: 1 and more"):
        similar_samples(workspace, "digits-noisy", tmp_path / "no.png", n=0)
