import json
import os
import subprocess
import sys

import numpy as np
import pytest

from engine.errors import BusyError, NotFoundError, StorageError, WinnowError
from engine.store.atomic import write_export
from engine.store.jobs import computing
from engine.store.journal import append_journal, read_journal
from engine.store.tensors import load_tensors, save_tensors
from engine.store.workspace import FORMAT, Workspace, exclusive, is_locked


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "w", create=True)


def test_a_workspace_that_is_not_there_says_what_makes_one(tmp_path):
    with pytest.raises(NotFoundError, match="winnow demo"):
        Workspace.open(tmp_path / "nothing")


def test_a_workspace_of_a_newer_version_is_refused(workspace):
    (workspace.root / "winnow.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(StorageError, match=f"format {FORMAT + 1}, this winnow reads up to {FORMAT}; upgrade winnow"):
        Workspace.open(workspace.root)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "new"}'])
def test_a_damaged_marker_is_refused(workspace, text):
    (workspace.root / "winnow.json").write_text(text)
    with pytest.raises(StorageError, match=r"damaged|format"):
        Workspace.open(workspace.root)


def test_a_folder_with_other_things_is_not_taken_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(StorageError, match="not empty"):
        Workspace.open(tmp_path, create=True)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_run_is_published_whole_with_a_manifest(workspace):
    workspace.start_run("abc", {"spec": {}})
    (workspace.run_dir("abc") / "partial").mkdir()
    with workspace.building_run("abc") as folder:
        (folder / "results.txt").write_text("42")
        assert not workspace.is_published("abc")
    manifest = json.loads((workspace.published_dir("abc") / "manifest.json").read_text())
    assert manifest["files"]["results.txt"] == {
        "bytes": 2,
        "sha256": "73475cb40a568e8da8a045ced110137e159f890ac4da883b6b17dc651b3a8049",
    }
    assert not (workspace.run_dir("abc") / "partial").exists()


def test_a_run_that_fails_publishes_nothing(workspace):
    workspace.start_run("abc", {"spec": {}})
    with pytest.raises(ZeroDivisionError), workspace.building_run("abc") as folder:
        (folder / "results.txt").write_text("half")
        raise ZeroDivisionError
    assert sorted(p.name for p in workspace.run_dir("abc").iterdir()) == ["spec.json"]


def test_run_ids_can_be_shortened(workspace):
    for run_id in ("abc1", "abd2"):
        workspace.start_run(run_id, {"spec": {}})
    assert workspace.require_run("abc") == "abc1"
    with pytest.raises(NotFoundError, match="not unique: abc1, abd2"):
        workspace.require_run("ab")
    with pytest.raises(NotFoundError, match="unknown run 'zz'"):
        workspace.require_run("zz")


def test_a_lock_is_released_when_its_process_is_killed(tmp_path):
    lock = tmp_path / "lock"
    code = (
        f"import time\nfrom pathlib import Path\nfrom engine.store.workspace import exclusive\n"
        f"with exclusive(Path({str(lock)!r}), 'x'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert is_locked(lock)
        with pytest.raises(BusyError, match="the thing; wait"), exclusive(lock, "the thing"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not is_locked(lock)


def test_looking_whether_a_lock_is_held_makes_none(tmp_path):
    gone = tmp_path / "removed" / "lock"
    assert not is_locked(gone) and not gone.parent.exists()
    (tmp_path / "lock").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(gone)
    assert not any(is_locked(tmp_path / name) for name in ("lock", "pipe", "link"))


def test_a_run_that_another_process_published_meanwhile_stays_as_it_is(workspace):
    with computing(workspace, "abc1", {}, "", {}) as folder:
        (folder / "published").mkdir()
    journal = (folder / "journal.jsonl").read_bytes()
    computed_again = computing(workspace, "abc1", {}, "", {})
    with pytest.raises(BusyError, match="run abc1 was computed by another process just now"), computed_again:
        pass
    assert (folder / "journal.jsonl").read_bytes() == journal


def test_a_torn_line_of_the_journal_is_passed_over(tmp_path):
    append_journal(tmp_path, "one", value=1)
    with open(tmp_path / "journal.jsonl", "a") as file:
        file.write('{"event": "torn", "va')
    append_journal(tmp_path, "two", durable=True)
    assert [e["event"] for e in read_journal(tmp_path)] == ["one", "two"]
    assert [e["event"] for e in read_journal(tmp_path, last_bytes=50)] == ["two"]


def test_tensors_come_back_bit_for_bit(tmp_path):
    tensors = {"a": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32), "b": np.array(7)}
    save_tensors(tmp_path / "c.safetensors", tensors, {"epoch": 3})
    back, meta = load_tensors(tmp_path / "c.safetensors")
    assert meta == {"epoch": 3} and all(np.array_equal(back[k], tensors[k]) for k in tensors)
    assert load_tensors(tmp_path / "none.safetensors") is None
    (tmp_path / "c.safetensors").write_bytes(b"not at all")
    with pytest.raises(StorageError, match="damaged"):
        load_tensors(tmp_path / "c.safetensors")


def test_an_export_replaces_nothing_until_it_is_whole(tmp_path):
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_export(target, lambda path: path.write_text("half") and 1 / 0)
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["out.csv"]
    with pytest.raises(WinnowError, match="no folder"):
        write_export(tmp_path / "missing" / "x.csv", lambda path: None)


FULL_DISK = """
import sys, resource
from pathlib import Path
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace
from engine.errors import WinnowError
workspace = Workspace.open(Path(sys.argv[1]))
plan = plan_run(workspace, "small", ["aum"], TrainingSpec(epochs=2, seeds=1))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    compute(workspace, plan, "cpu")
except WinnowError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [20_000, 1_000_000])
def test_a_full_disk_is_one_line_and_leaves_nothing_published(small_workspace, limit):
    """A limit on the size of a file is refused by the system like a full disk: in the spill, or in the weights."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(small_workspace.root), str(limit)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no space left to write ") and done.stdout.count("\n") == 1
    assert small_workspace.published_runs() == []
    assert not list(small_workspace.root.glob("runs/*/.publishing"))
