"""What `winnow clean` removes, and that nothing which a later command reads is among it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from engine.cli import manage, start
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import Cancelled, SpecError
from engine.features.stored import compute_stored, is_stored, key_of
from engine.queries.connection import connected
from engine.runs.cluster import HERE
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi
from engine.spec import run_id
from engine.store import clean
from engine.store.clean import find_leftovers, remove_leftovers
from engine.store.contents import fetch_contents, images_of
from engine.store.jobs import cancel, fetch_job
from engine.store.journal import read_journal
from engine.store.progress import Progress
from engine.store.workspace import Workspace, exclusive

KEY = "net@0123456789ab"
LONG_AGO = time.time() - 2 * clean.OLD_SECONDS


def found_in(workspace: Workspace) -> dict[str, str]:
    """Path in the workspace -> reason, of what would be removed."""
    leftovers = find_leftovers(workspace).leftovers
    return {x.path.relative_to(workspace.root).as_posix(): x.reason for x in leftovers}


def clean_all(workspace: Workspace) -> clean.Found:
    return remove_leftovers(workspace, {leftover.path for leftover in find_leftovers(workspace).leftovers})


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder with its size and when it was changed; locks apart, which readers may touch."""
    found = {path.relative_to(root).as_posix(): path.lstat() for path in root.rglob("*")}
    return {name: (s.st_size, s.st_mtime_ns) for name, s in found.items() if not name.endswith("lock")}


def put(path: Path, content: bytes = b"something", old: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if old:
        for changed in (path, *list(path.parents)[:2]):
            os.utime(changed, (LONG_AGO, LONG_AGO))
    return path


def put_features(workspace: Workspace, name: str, contents: list[str]) -> Path:
    """A folder of stored features whose rows are of these contents."""
    folder = workspace.features_dir(name)
    folder.mkdir(parents=True)
    index = np.zeros((len(contents), 3, 16), np.uint8)
    index[:, 0] = [list(bytes.fromhex(content)) for content in contents]
    np.save(folder / "index.npy", index)
    np.save(folder / "features.npy", np.ones((len(contents), 4), np.float32))
    (folder / "about.json").write_text("{}")
    return folder


def scores_of(workspace: Workspace, run: str, dataset: str = "small") -> list[tuple[object, ...]]:
    with connected(workspace, dataset) as connection:
        return connection.execute("SELECT * FROM scores WHERE run_id = ? ORDER BY ALL", [run]).fetchall()


def stopped(workspace: Workspace, plan: object, at: str = "seed1") -> str:
    """Start a run, and stop it when its progress names something."""
    wanted = run_id(plan)

    def stop(stage: str, fraction: float, left: float | None) -> None:
        if at in stage and not (workspace.run_dir(wanted) / "cancel").exists():
            cancel(workspace, wanted)

    with pytest.raises(Cancelled):
        compute(workspace, plan, "cpu", stop)
    return wanted


# What stays -----------------------------------------------------------------------------------------------------


def test_a_workspace_in_use_has_nothing_to_remove(demo_workspace, old_workspace):
    assert found_in(Workspace.open(demo_workspace)) == found_in(Workspace.open(old_workspace)) == {}


def test_later_scores_read_what_a_clean_workspace_has_kept(scored_workspace, small_training, tmp_path):
    shutil.copytree(scored_workspace.root, tmp_path / "untouched")
    untouched = Workspace.open(tmp_path / "untouched")
    (run,) = scored_workspace.run_ids()
    put(scored_workspace.run_dir(run) / "partial/seed0.safetensors")
    put(scored_workspace.run_dir(run) / ".publishing/results.duckdb")
    assert len(clean_all(scored_workspace).leftovers) == 2
    for workspace in (scored_workspace, untouched):
        plan = plan_run(workspace, "small", ["aum", "nli", "prototype_distance"], small_training())
        more, _ = compute(workspace, plan, "cpu")
        assert not [e for e in read_journal(workspace.run_dir(more)) if e.get("stage", "").startswith("training")]
    assert scores_of(scored_workspace, more) == scores_of(untouched, more) != []
    assert scores_of(scored_workspace, run) == scores_of(untouched, run) != []


def test_a_run_that_was_stopped_is_resumed_from_its_checkpoints(small_workspace, small_training, tmp_path):
    plan = plan_run(small_workspace, "small", ["el2n"], small_training(epochs=30, seeds=3), neighbors=0)
    wanted = stopped(small_workspace, plan, "seed2")
    kept = sorted(path.name for path in (small_workspace.run_dir(wanted) / "partial").iterdir())
    assert any(name.endswith(".safetensors") for name in kept)
    found = find_leftovers(small_workspace)
    assert found.leftovers == [] and list(found.resumable) == [wanted] and found.resumable[wanted] > 0
    clean_all(small_workspace)
    assert sorted(path.name for path in (small_workspace.run_dir(wanted) / "partial").iterdir()) == kept
    compute(small_workspace, plan, "cpu")
    resumed = scores_of(small_workspace, wanted)
    small_workspace.remove_run(wanted)
    compute(small_workspace, plan, "cpu")
    assert resumed == scores_of(small_workspace, wanted)


def test_a_psi_curve_goes_on_from_its_points(scored_workspace):
    plan = plan_psi(scored_workspace, "small", ("random", "aum"), points=4, seeds=2, epochs=3)
    wanted = run_id(plan)

    def stop(stage: str, fraction: float, left: float | None) -> None:
        journal = read_journal(scored_workspace.run_dir(wanted))
        if any(e["event"] == "psi_points" for e in journal) and fetch_job(scored_workspace, wanted).state == "running":
            cancel(scored_workspace, wanted)

    with pytest.raises(Cancelled):
        compute(scored_workspace, plan, "cpu", stop)
    points = [e for e in read_journal(scored_workspace.run_dir(wanted)) if e["event"] == "psi_points"]
    clean_all(scored_workspace)
    assert (
        points and [e for e in read_journal(scored_workspace.run_dir(wanted)) if e["event"] == "psi_points"] == points
    )
    assert compute(scored_workspace, plan, "cpu") == (wanted, False)


def test_features_stay_while_a_dataset_has_their_images_or_would_copy_their_rows(small_workspace):
    path = small_workspace.dataset_path("small")
    images, contents = images_of(path), fetch_contents(path)
    mine = put_features(small_workspace, f"{KEY}-{images}", contents)
    part = put_features(small_workspace, f"{KEY}-{images}-01234567", contents[:5])
    other = put_features(small_workspace, f"{KEY}-{'a' * 12}", [contents[3], "ff" * 16])
    strange = put_features(small_workspace, f"{KEY}-{'b' * 12}", ["ff" * 16])
    gone = "features of images that no dataset has"
    assert found_in(small_workspace) == {
        f"features/{part.name}": "features of some images, which those of all images hold too",
        f"features/{other.name}": gone,  # the dataset has all of its own
        f"features/{strange.name}": gone,
    }
    shutil.rmtree(mine)  # its rows, where they are known, would now be copied
    assert found_in(small_workspace) == {f"features/{strange.name}": gone}
    clean_all(small_workspace)
    assert sorted(
        p.name for p in (small_workspace.root / "features").iterdir() if not p.name.startswith(".")
    ) == sorted([part.name, other.name])


def test_features_of_a_file_stay_while_a_run_names_them(small_workspace, small_training, tmp_path):
    rng, keys = np.random.default_rng(0), []
    for name in ("first", "second"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(250, 6)).astype(np.float32))
        progress = Progress(tmp_path, {"features": 1.0})
        progress.stage("features")
        compute_stored(small_workspace, "small", str(tmp_path / f"{name}.npy"), HERE_DEVICE, progress, HERE)
        keys.append(key_of(small_workspace, "small", str(tmp_path / f"{name}.npy")))
    plan = plan_run(
        small_workspace,
        "small",
        ["near_duplicate"],
        small_training(),
        neighbors=3,
        features=str(tmp_path / "second.npy"),
    )
    run, _ = compute(small_workspace, plan, "cpu")
    assert list(found_in(small_workspace).values()) == ["features of a file that no run names"]
    clean_all(small_workspace)
    assert [is_stored(small_workspace, "small", key) for key in keys] == [False, True]
    small_workspace.remove_run(run)
    clean_all(small_workspace)
    assert not is_stored(small_workspace, "small", keys[1])


HERE_DEVICE = "cpu"


def test_while_a_dataset_cannot_be_read_nothing_of_unknown_use_is_removed(small_workspace, small_training):
    plan = plan_run(small_workspace, "small", ["el2n"], small_training(epochs=30), neighbors=0)
    wanted = stopped(small_workspace, plan)
    put_features(small_workspace, f"{KEY}-{'b' * 12}", ["ff" * 16])
    whole = small_workspace.dataset_path("small").read_bytes()
    small_workspace.dataset_path("small").write_bytes(b"damaged")
    assert found_in(small_workspace) == {}
    small_workspace.dataset_path("small").write_bytes(whole)
    assert list(found_in(small_workspace)) == [f"features/{KEY}-{'b' * 12}"]
    small_workspace.dataset_path("small").unlink()
    assert found_in(small_workspace)[f"runs/{wanted}/partial"] == (
        "checkpoints of a run that cannot be resumed: dataset 'small' is gone"
    )


def test_a_run_on_data_that_was_replaced_cannot_be_resumed(small_workspace, small_training):
    wanted = stopped(
        small_workspace, plan_run(small_workspace, "small", ["el2n"], small_training(epochs=30), neighbors=0)
    )
    small_workspace.remove_dataset("small")
    ingest(small_workspace, IngestSpec(name="small", source="digits", limit=150))
    with pytest.raises(SpecError, match="was computed on other data"):
        start.resume(wanted, device="cpu", workspace=small_workspace.root)
    assert not small_workspace.is_published(wanted)
    clean_all(small_workspace)
    assert not (small_workspace.run_dir(wanted) / "partial").exists()
    assert (small_workspace.run_dir(wanted) / "spec.json").exists()  # `winnow remove` alone removes a run
    ingest(small_workspace, IngestSpec(name="again", source="digits", limit=200, noise="symmetric:0.2"))
    put(small_workspace.run_dir(wanted) / "partial/seed0.safetensors")
    assert found_in(small_workspace) == {}  # a dataset of another name has its samples: its networks serve that


# What is left over ----------------------------------------------------------------------------------------------

LEFTOVERS: dict[str, str] = {
    "datasets/.new.duckdb.12-34.tmp": "of an ingest that was killed",
    "datasets/.new.duckdb.12-34.tmp.wal": "of an ingest that was killed",
    f"features/.{KEY}-{'c' * 12}.partial/block.safetensors": "features of images that no dataset has",
    f"features/.{KEY}-{'c' * 12}.publishing/features.npy": "of a process that was killed",
    f"features/.{KEY}-{'c' * 12}.removing/features.npy": "of a process that was killed",
    "runs/0123456789ab/published/results.duckdb": "of a run whose removal was interrupted",
    "runs/.recording-0123/seed0.dynamics": "a recording that was never closed, a week old",
    "runs/.winnow.json.12-34.tmp": "",  # nobody writes such a file there
    ".winnow.json.12-34.tmp": "of a process that was killed",
    "datasets/.small.trial.json.12-34.tmp": "of a process that was killed",
    "detectors/.mine.safetensors.12-34.tmp": "of a process that was killed",
    "jobs/20260101-000000-000000.log": "the output of a command, a week old",
}


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_killed_processes_leave_is_removed_once_it_is_old(small_workspace, name):
    path = put(small_workspace.root / name)
    young = found_in(small_workspace)
    put(path, old=True)
    top = "/".join(name.split("/")[:2])
    assert found_in(small_workspace) == ({top: LEFTOVERS[name]} if LEFTOVERS[name] else {})
    has_lock = name.startswith(("datasets/.new", "features/"))
    assert young == (found_in(small_workspace) if has_lock else {})
    before = {n for n in tree(small_workspace.root) if not n.startswith(top)}
    clean_all(small_workspace)
    assert path.exists() == (not LEFTOVERS[name])
    assert before <= tree(small_workspace.root).keys()


def test_what_winnow_did_not_write_stays(small_workspace):
    names = [
        "notes.txt",
        "runs/notes/plan.txt",
        "features/mine/a.npy",
        "datasets/list.csv",
        "jobs/readme.md",
        ".hidden.tmp",
    ]
    for name in names:
        put(small_workspace.root / name, old=True)
    clean_all(small_workspace)
    assert [name for name in names if not (small_workspace.root / name).exists()] == []


def test_half_a_removed_run_is_gone_for_good(scored_workspace):
    (run,) = scored_workspace.run_ids()
    (scored_workspace.run_dir(run) / "spec.json").unlink()  # where a kill of `winnow remove` leaves it
    assert list(found_in(scored_workspace)) == [f"runs/{run}"]
    clean_all(scored_workspace)
    assert list((scored_workspace.root / "runs").iterdir()) == []


# Others at work -------------------------------------------------------------------------------------------------


def test_what_a_process_is_at_is_left_and_named(scored_workspace):
    (run,) = scored_workspace.run_ids()
    folder = scored_workspace.run_dir(run)
    put(folder / "partial/seed0.safetensors")
    put(scored_workspace.root / "datasets/.new.duckdb.12-34.tmp")
    name = f"{KEY}-{'c' * 12}"
    put(scored_workspace.root / f"features/.{name}.partial/block.safetensors")
    locks = [
        folder / "lock",
        scored_workspace.root / "datasets/.new.lock",
        scored_workspace.root / f"features/.{name}.lock",
    ]
    before = find_leftovers(scored_workspace)
    assert len(before.leftovers) == 3
    for lock in locks:
        with exclusive(lock, "busy"):
            assert len(find_leftovers(scored_workspace).leftovers) == 2
            assert list(find_leftovers(scored_workspace).left.values()) == ["it is being computed"]
    with exclusive(locks[0], "busy"), exclusive(locks[1], "busy"), exclusive(locks[2], "busy"):
        done = remove_leftovers(scored_workspace, {leftover.path for leftover in before.leftovers})
    assert done.leftovers == [] and len(done.left) == 3
    assert len(clean_all(scored_workspace).leftovers) == 3


def test_what_came_into_use_since_it_was_listed_stays(small_workspace):
    contents = fetch_contents(small_workspace.dataset_path("small"))
    whole = small_workspace.dataset_path("small").read_bytes()
    folder = put_features(small_workspace, f"{KEY}-{images_of(small_workspace.dataset_path('small'))}", contents)
    small_workspace.dataset_path("small").unlink()
    listed = {leftover.path for leftover in find_leftovers(small_workspace).leftovers}
    assert listed == {folder}
    small_workspace.dataset_path("small").write_bytes(whole)
    assert remove_leftovers(small_workspace, listed).leftovers == [] and folder.is_dir()


def make_leftovers(workspace: Workspace, features: int = 10, files: int = 6) -> None:
    for i in range(features):
        folder = put_features(workspace, f"{KEY}-{i:012x}", ["ff" * 16])
        for j in range(files):
            put(folder / f"{j}.bin", bytes(1000))


def test_two_at_once_remove_everything_and_fail_at_nothing(scored_workspace):
    make_leftovers(scored_workspace)
    wanted = {leftover.path for leftover in find_leftovers(scored_workspace).leftovers}
    done: list[clean.Found] = []
    threads = [
        threading.Thread(target=lambda: done.append(remove_leftovers(scored_workspace, wanted))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2 and len(wanted) == 10
    assert find_leftovers(scored_workspace).leftovers == [] and not any(path.exists() for path in wanted)
    assert {leftover.path for found in done for leftover in found.leftovers} == wanted


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from engine.store.clean import find_leftovers, remove_leftovers
from engine.store.workspace import Workspace

workspace, changes = Workspace.open(Path(sys.argv[1])), ("os.rename", "os.remove", "os.rmdir")
features = workspace.root / "features"

def in_a_process(kill_at):
    process = os.fork()
    if process:
        return os.WIFSIGNALED(os.waitpid(process, 0)[1])
    wanted, done = {x.path for x in find_leftovers(workspace).leftovers}, iter(range(1, 10_000))
    def hook(event, arguments):
        if event in changes and next(done) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    remove_leftovers(workspace, wanted)
    os._exit(0)

for kill_at in range(1, 100):
    shutil.rmtree(features, ignore_errors=True)
    shutil.copytree(sys.argv[2], features)
    killed = in_a_process(kill_at)
    whole = sorted(len(list(path.iterdir())) for path in features.iterdir() if path.is_dir() and path.name[0] != ".")
    in_a_process(0)
    left = [path.name for path in features.iterdir() if not path.name.endswith(".lock")]
    print(json.dumps([killed, whole, left]))
    if not killed:
        break
"""


def test_a_kill_before_any_change_leaves_features_whole_or_gone(small_workspace, tmp_path):
    make_leftovers(small_workspace, features=2, files=3)
    shutil.copytree(small_workspace.root / "features", tmp_path / "features")
    words = [sys.executable, "-c", KILLED, str(small_workspace.root), str(tmp_path / "features")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert [killed for killed, _, _ in rounds] == [True] * (len(rounds) - 1) + [False] and len(rounds) > 15
    assert {tuple(whole) for _, whole, _ in rounds} == {(6, 6), (6,), ()}
    assert all(left == [] for _, _, left in rounds)


def test_a_run_that_is_computed_meanwhile_is_not_disturbed(small_workspace, small_training):
    plan = plan_run(small_workspace, "small", ["el2n", "forgetting"], small_training(epochs=12))
    wanted, stop = run_id(plan), threading.Event()
    cleaned: list[int] = []

    def keep_cleaning() -> None:
        while not stop.is_set():
            cleaned.append(len(clean_all(small_workspace).leftovers))

    thread = threading.Thread(target=keep_cleaning)
    thread.start()
    try:
        compute(small_workspace, plan, "cpu")
    finally:
        stop.set()
        thread.join()
    beside = scores_of(small_workspace, wanted)
    small_workspace.remove_run(wanted)
    compute(small_workspace, plan, "cpu")
    assert cleaned and beside == scores_of(small_workspace, wanted)


# Links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["runs/0123456789ab", "runs", "features", "jobs", "datasets", "partial", "inside", "stored"]
)
def test_nothing_behind_a_link_is_removed(scored_workspace, tmp_path, place):
    (run,) = scored_workspace.run_ids()
    outside = tmp_path / "outside"
    for name in (
        "partial/seed0.safetensors", ".publishing/x", "lock", "published/results.duckdb", "a.log", ".b.duckdb.1-2.tmp",
        f".{KEY}-{'c' * 12}.publishing/x", f"{KEY}-{'b' * 12}/features.npy", "0123456789ab/lock", ".x.1-2.tmp",
    ):  # fmt: skip
        put(outside / name, old=True)
    before = tree(outside)
    at = scored_workspace.root / place
    if place == "partial":
        at = scored_workspace.run_dir(run) / "partial"
    elif place == "stored":
        at = put_features(scored_workspace, f"{KEY}-{'d' * 12}", ["ff" * 16]) / "link"
    elif place == "inside":
        at = scored_workspace.run_dir(run) / "partial/link"
        at.parent.mkdir()
    elif at.exists():
        shutil.rmtree(at)
    at.parent.mkdir(exist_ok=True)
    at.symlink_to(outside)
    found = find_leftovers(scored_workspace)
    assert all(leftover.bytes < 100 for leftover in found.leftovers)
    done = clean_all(scored_workspace)
    assert tree(outside) == before
    assert at.is_symlink() == (place != "inside")  # with the checkpoints that it was among
    assert list(done.left.values()) == ([] if place in ("partial", "inside") else ["it is a link"])


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_something_else_in_place_of_a_lock_is_named(scored_workspace, tmp_path, kind):
    (run,) = scored_workspace.run_ids()
    folder = scored_workspace.run_dir(run)
    put(folder / "partial/seed0.safetensors")
    (folder / "lock").unlink(missing_ok=True)
    if kind == "folder":
        (folder / "lock").mkdir()
    elif kind == "link":
        (folder / "lock").symlink_to(put(tmp_path / "outside.txt"))
    else:
        os.mkfifo(folder / "lock")
    done = clean_all(scored_workspace)
    assert len(done.left) + len(done.leftovers) == 1
    if kind == "link":
        assert (tmp_path / "outside.txt").read_bytes() == b"something"


# The command ----------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing(scored_workspace, capsys):
    (run,) = scored_workspace.run_ids()
    put(scored_workspace.run_dir(run) / "partial/seed0.safetensors", bytes(2_000_000))
    make_leftovers(scored_workspace, features=2)
    before = sorted(path.as_posix() for path in scored_workspace.root.rglob("*"))
    manage.clean(dry_run=True, workspace=scored_workspace.root)
    printed = capsys.readouterr()
    assert sorted(path.as_posix() for path in scored_workspace.root.rglob("*")) == before
    assert f"runs/{run}/partial" in printed.out and "2.0 MB" in printed.out and "a run that is published" in printed.out
    assert "takes" in printed.err and "removed" not in printed.err


def test_json_lists_what_was_removed_and_why(scored_workspace, capsys):
    (run,) = scored_workspace.run_ids()
    put(scored_workspace.run_dir(run) / "partial/seed0.safetensors", bytes(1234))
    wanted = {"path": f"runs/{run}/partial", "bytes": 1234, "reason": "checkpoints of a run that is published"}
    for dry_run in (True, False):
        manage.clean(dry_run=dry_run, workspace=scored_workspace.root, json=True)
        found = json.loads(capsys.readouterr().out)
        assert found["removed"] == [wanted] and found["left"] == {} and found["dry_run"] == dry_run
        assert found["usage"]["kinds"]["checkpoints"] == 1234 and list(found["usage"]["runs"]) == [run]
    manage.clean(workspace=scored_workspace.root, json=True)
    assert json.loads(capsys.readouterr().out)["removed"] == []


class Person:
    """A terminal whose person answers as given."""

    is_terminal = True

    def __init__(self, answer: bool) -> None:
        self.answer, self.asked = answer, list[str]()

    def isatty(self) -> bool:
        return True

    def confirm(self, text: str, err: bool) -> bool:
        self.asked.append(text)
        return self.answer


@pytest.mark.parametrize(("answer", "yes"), [(True, False), (False, False), (False, True)])
def test_a_person_is_asked_once(scored_workspace, monkeypatch, answer, yes):
    (run,) = scored_workspace.run_ids()
    path = put(scored_workspace.run_dir(run) / "partial/seed0.safetensors", bytes(1234))
    person = Person(answer)
    monkeypatch.setattr(manage.sys, "stdin", person)
    monkeypatch.setattr(manage, "messages", person)
    monkeypatch.setattr(manage.typer, "confirm", person.confirm)
    removes: Callable[[], None] = lambda: manage.clean(yes=yes, workspace=scored_workspace.root)  # noqa: E731
    if answer or yes:
        removes()
    else:
        with pytest.raises(typer.Exit):
            removes()
    assert path.exists() == (not answer and not yes)
    assert person.asked == ([] if yes else ["Remove 1.2 kB?"])


def test_the_command_leaves_torch_out_and_ends_well(scored_workspace):
    script = (
        "import sys; from engine.cli.commands import app; "
        "app(['clean', '--workspace', sys.argv[1]], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(scored_workspace.root)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0 and done.stdout == "False\n" and "there is nothing to remove" in done.stderr
