"""How many bytes a workspace takes: by what they are, counted once, and never outside it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from engine.store.usage import KINDS, bytes_of, measure, size
from engine.store.workspace import Workspace


@pytest.fixture
def by_hand(tmp_path: Path) -> Workspace:
    """A workspace whose files have sizes that are powers of two, so that every sum says what is in it."""
    workspace = Workspace.open(tmp_path / "w", create=True)
    (workspace.root / "winnow.json").unlink()
    files = {
        "datasets/a.duckdb": 1,
        "datasets/a.trial.json": 2,
        "datasets/.b.duckdb.12-34.tmp": 4,
        "runs/0123/spec.json": 8,
        "runs/0123/published/results.duckdb": 16,
        "runs/0123/published/weights.safetensors": 32,
        "runs/0123/published/features.safetensors": 64,
        "runs/4567/partial/seed0.safetensors": 128,
        "runs/4567/.publishing/weights.safetensors": 256,
        "runs/.recording-ab/seed0.dynamics": 512,
        "features/net@1-2/features.npy": 1024,
        "features/.net@1-3.partial/block.safetensors": 2048,
        "jobs/1.log": 4096,
        "decisions.duckdb": 8192,
        "detectors/mine.safetensors": 16384,
    }
    for name, count in files.items():
        path = workspace.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(count))
    return workspace


def test_every_byte_is_counted_under_what_it_is(by_hand):
    found = measure(by_hand)
    assert found.kinds == {
        "datasets": 1 + 2,
        "results": 8 + 16 + 8192,
        "weights": 32,
        "features": 64 + 1024,
        "checkpoints": 128 + 256 + 512 + 2048,
        "other": 4 + 4096 + 16384,
    }
    assert tuple(found.kinds) == KINDS and found.total == 2**15 - 1
    assert found.datasets == {"a": 1}
    assert found.runs == {"0123": 8 + 16 + 32 + 64, "4567": 128 + 256, ".recording-ab": 512}
    assert bytes_of(by_hand.run_dir("4567")) == 128 + 256 and bytes_of(by_hand.root / "jobs/1.log") == 4096


def test_a_real_workspace_takes_what_its_files_take(scored_workspace):
    files = [path for path in scored_workspace.root.rglob("*") if path.is_file()]
    found = measure(scored_workspace)
    (run_id,) = scored_workspace.run_ids()
    assert found.total == sum(path.stat().st_size for path in files)
    assert list(found.datasets) == ["small"] and list(found.runs) == [run_id]
    assert found.kinds["datasets"] > 0 and found.kinds["weights"] > 0 and found.kinds["checkpoints"] == 0


def test_links_lead_nowhere_and_a_file_of_two_names_counts_once(by_hand, tmp_path):
    before, outside = measure(by_hand).total, tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(bytes(100_000))
    (by_hand.root / "runs/89ab").symlink_to(outside)
    (by_hand.root / "features/loop").symlink_to(by_hand.root)
    (by_hand.root / "datasets/x.duckdb").symlink_to(outside / "large")
    os.mkfifo(by_hand.root / "runs/4567/pipe")
    os.link(by_hand.root / "runs/4567/partial/seed0.safetensors", by_hand.root / "runs/0123/again.safetensors")
    assert measure(by_hand).total == before
    assert bytes_of(by_hand.root / "runs/89ab") == 0 and bytes_of(by_hand.root / "nothing") == 0


def test_files_that_vanish_meanwhile_stop_nothing(by_hand):
    stop, folder = threading.Event(), by_hand.root / "runs/4567/partial"

    def come_and_go() -> None:
        while not stop.is_set():
            for i in range(50):
                (folder / f"{i}.tmp").write_bytes(b"x")
            for i in range(50):
                (folder / f"{i}.tmp").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        counts = {measure(by_hand).total - (2**15 - 1) for _ in range(40)}
    finally:
        stop.set()
        thread.join()
    assert all(0 <= count <= 50 for count in counts) and measure(by_hand).total == 2**15 - 1


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_949, "9.9 kB"), (9_950, "10 kB"), (999_499, "999 kB"),
     (999_500, "1.0 MB"), (56_000_000, "56 MB"), (1.25e9, "1.2 GB"), (7.3e15, "7300 TB")],
)  # fmt: skip
def test_bytes_are_shown_in_two_or_three_digits(count, text):
    assert size(int(count)) == text
