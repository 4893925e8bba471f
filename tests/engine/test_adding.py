"""ingest --add: new images join a dataset, old ones are copied, decisions stay, and runs of before say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

import engine
from engine.data import decoding
from engine.data.ingest import ingest
from engine.data.outcome import describe
from engine.data.request import IngestSpec
from engine.errors import BadSampleError, BusyError, SpecError
from engine.queries.connection import connected
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.decisions import decide
from engine.store.jobs import fetch_jobs
from engine.store.workspace import Workspace, exclusive


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", create=True)


def draw(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, 255 - value, 7)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 images of the classes b and d, each of one color."""
    for i in range(20):
        draw(tmp_path / "images" / "bd"[i // 10] / f"{i:02}.png", i)
    return tmp_path / "images"


def samples(workspace: Workspace, name: str) -> dict[str, tuple[int, str, str, int]]:
    """Per file: sample_id, split, class, and the value that its input holds."""
    with duckdb.connect(str(workspace.dataset_path(name)), read_only=True) as connection:
        data = b"".join(row[0] for row in connection.execute("SELECT data FROM inputs ORDER BY first_id").fetchall())
        values = np.frombuffer(data, np.uint8).reshape(-1, 3, 8, 8)[:, 0, 0, 0]
        thumbnails = connection.execute("SELECT count(DISTINCT sample_id) FROM thumbnails").fetchall()[0][0]
        rows = connection.execute(
            "SELECT source, sample_id, split, class_name FROM samples JOIN classes USING (label) ORDER BY sample_id"
        ).fetchall()
    assert thumbnails == len(rows) == len(values) and [row[1] for row in rows] == list(range(len(rows)))
    return {Path(row[0]).name: (row[1], row[2], row[3], int(values[row[1]])) for row in rows}


def test_new_images_join_without_the_old_ones_being_read(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = IngestSpec("d", str(folder), add=True)
    first = ingest(workspace, spec)  # the first time it is an ingest like any other
    before = samples(workspace, "d")
    assert (first.train, first.test, first.added) == (16, 4, 0) and not first.existed
    for i in range(20, 30):
        draw(folder / "bacd"[i % 4] / f"{i:02}.png", i)  # a and c are new classes
    seen: list[str] = []
    decode = decoding._decode_chunk

    def watched(part, form, chunk, skip_bad):  # type: ignore[no-untyped-def]
        seen.extend(part.places[i] for i in chunk)
        return decode(part, form, chunk, skip_bad)

    monkeypatch.setattr(decoding, "_decode_chunk", watched)
    done = ingest(workspace, spec)
    assert sorted(Path(place).name for place in seen) == [f"{i:02}.png" for i in range(20, 30)]
    assert (done.train, done.test, done.added, done.classes, done.existed) == (24, 6, 10, 4, False)
    assert "10 added in 1 s" in describe(done, "1 s")[0]
    now = samples(workspace, "d")
    for name, (sample_id, split, class_name, value) in before.items():
        assert now[name][1:] == (split, class_name, value) and (split == "test" or now[name][0] == sample_id)
    for i in range(20, 30):
        assert now[f"{i:02}.png"][2:] == ("bacd"[i % 4], i)
    with connected(workspace, "d") as connection:
        assert connection.execute("SELECT class_name FROM classes ORDER BY label").fetchall() == [(c,) for c in "bdac"]
    again = ingest(workspace, spec)
    assert again.existed and again.added == 0 and "nothing is new in" in again.notes[0]
    assert again.fingerprint == done.fingerprint != first.fingerprint
    assert ingest(workspace, IngestSpec("d", str(folder))).existed  # the plain command finds it


def test_the_python_interface_adds_too(workspace: Workspace, folder: Path) -> None:
    opened = engine.open(workspace.root)
    for count in (20, 21):
        dataset = opened.ingest("d", folder, add=True, test_fraction=0, progress=False)
        assert len(dataset.samples()) == count
        draw(folder / "b" / "new.png", 99)


def test_other_folders_and_tables_with_truth_and_metadata_join(workspace: Workspace, folder: Path) -> None:
    ingest(workspace, IngestSpec("d", str(folder), test_fraction=0))
    (folder.parent / "more").mkdir()
    rows = ["path,label,true_label,camera"]
    for i in range(20, 24):
        draw(folder.parent / "more" / f"{i}.png", i)
        rows.append(f"{i}.png,b,{'d' if i == 20 else 'b'},x{i}")
    rows.append("../images/d/10.png,d,d,old")  # which is there already
    (folder.parent / "more" / "new.csv").write_text("\n".join(rows))
    done = ingest(workspace, IngestSpec("d", str(folder.parent / "more" / "new.csv"), add=True))
    assert (done.train, done.test, done.known, done.wrong, done.added) == (24, 0, 4, 1, 4)
    with connected(workspace, "d") as connection:
        rows_of = connection.execute(
            "SELECT sample_id, value FROM metadata WHERE name = 'camera' ORDER BY 1"
        ).fetchall()
    assert rows_of == [(20, "x20"), (21, "x21"), (22, "x22"), (23, "x23")]


def test_a_file_that_moved_is_not_added_twice_but_a_copy_is(workspace: Workspace, folder: Path) -> None:
    ingest(workspace, IngestSpec("d", str(folder), test_fraction=0))
    shutil.move(folder / "b" / "03.png", folder / "d" / "moved.png")
    spec = IngestSpec("d", str(folder), add=True)
    nothing = ingest(workspace, spec)
    assert nothing.existed and nothing.notes == (f"nothing is new in {folder}: 1 moved, 0 unreadable",)
    shutil.copy(folder / "b" / "04.png", folder / "d" / "copy.png")
    done = ingest(workspace, spec)
    assert (done.added, done.train) == (1, 21) and samples(workspace, "d")["copy.png"] == (20, "train", "d", 4)
    assert [(count, first) for reason, count, first in done.ignored if reason.startswith("moved")] == [
        (1, str(folder / "d" / "moved.png"))
    ]


def test_decisions_stay_with_their_images_and_runs_are_of_the_earlier_version(
    workspace: Workspace, folder: Path
) -> None:
    ingest(workspace, IngestSpec("d", str(folder)))
    before = samples(workspace, "d")
    of_train, of_test = (next(name for name, row in before.items() if row[1] == split) for split in ("train", "test"))
    decide(workspace, "d", [before[of_train][0]], "drop")
    decide(workspace, "d", [before[of_test][0]], "keep", note="looked at")
    run_id, _ = compute(workspace, plan_run(workspace, "d", ["aum"], TrainingSpec(epochs=1, seeds=1)), "cpu")
    for i in range(20, 30):
        draw(folder / "b" / f"{i:02}.png", i)
    ingest(workspace, IngestSpec("d", str(folder), add=True))
    now = samples(workspace, "d")
    with connected(workspace, "d") as connection:
        decided = connection.execute("SELECT sample_id, action, note FROM decisions ORDER BY action").fetchall()
        unreadable = connection.execute("SELECT run_id, problem FROM unreadable").fetchall()
        assert connection.execute("SELECT count(*) FROM runs").fetchall() == [(0,)]
    assert decided == [(now[of_train][0], "drop", ""), (now[of_test][0], "keep", "looked at")]
    said = (
        f"run {run_id} is of an earlier version of dataset 'd', with 16 training and 4 test samples; winnow run d "
        "computes one of all that it has now"
    )
    assert unreadable == [(run_id, said)]
    assert [(job.run_id, job.state, job.message) for job in fetch_jobs(workspace, "d")] == [
        (run_id, "unreadable", said)
    ]
    new_id, existed = compute(workspace, plan_run(workspace, "d", ["aum"], TrainingSpec(epochs=1, seeds=1)), "cpu")
    assert new_id != run_id and not existed


def test_what_cannot_be_added_to(workspace: Workspace, folder: Path) -> None:
    ingest(workspace, IngestSpec("d", str(folder)))
    ingest(workspace, IngestSpec("noisy", "dataset:d", noise="symmetric:0.2"))
    ingest(workspace, IngestSpec("limited", str(folder), limit=10))
    for name, options, expected in (
        ("noisy", {}, "dataset 'noisy' derives from another; --add goes with"),
        ("limited", {}, "dataset 'limited' was made with --limit; --add goes with"),
        ("d", {"image_size": 16}, "--image-size is 16; dataset 'd' was made with None: leave it out"),
        ("d", {"noise": "symmetric:0.1"}, "--noise is symmetric:0.1; dataset 'd' was made with None"),
    ):
        with pytest.raises(SpecError) as caught:
            ingest(workspace, IngestSpec(name, str(folder), add=True, **options))  # type: ignore[arg-type]
        assert expected in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SpecError, match="--add cannot go with dataset:d"):
        IngestSpec("e", "dataset:d", noise="symmetric:0.2", add=True)


def test_a_bad_new_image_changes_nothing(workspace: Workspace, folder: Path) -> None:
    ingest(workspace, IngestSpec("d", str(folder)))
    before = workspace.dataset_path("d").read_bytes()
    draw(folder / "b" / "20.png", 20)
    (folder / "b" / "21.png").write_bytes(b"no image")
    with pytest.raises(BadSampleError, match="not an image in a known format"):
        ingest(workspace, IngestSpec("d", str(folder), add=True))
    assert workspace.dataset_path("d").read_bytes() == before
    assert [p.name for p in (workspace.root / "datasets").iterdir() if not p.name.endswith(".lock")] == ["d.duckdb"]
    done = ingest(workspace, IngestSpec("d", str(folder), add=True, skip_bad=True))
    assert (done.added, done.skipped) == (1, 1)
    draw(folder / "b" / "21.png", 21)  # it is repaired
    done = ingest(workspace, IngestSpec("d", str(folder), add=True))
    assert (done.added, done.skipped) == (1, 0)


def test_nothing_is_added_while_a_run_is_computed(workspace: Workspace, folder: Path) -> None:
    ingest(workspace, IngestSpec("d", str(folder)))
    run_id, _ = compute(workspace, plan_run(workspace, "d", ["aum"], TrainingSpec(epochs=1, seeds=1)), "cpu")
    draw(folder / "b" / "20.png", 20)
    shutil.rmtree(workspace.published_dir(run_id))
    with (
        exclusive(workspace.run_dir(run_id) / "lock", "held"),
        pytest.raises(BusyError, match=f"run {run_id} of dataset 'd' is being computed"),
    ):
        ingest(workspace, IngestSpec("d", str(folder), add=True))
