"""One broken run, or one of another version, is listed with what is wrong and stops nothing else."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from given_verdicts import list_again

from engine.errors import StorageError
from engine.queries.connection import connected, default_dataset, runs_of
from engine.queries.pruned import fetch_orders, fetch_psi_journal
from engine.selection.names import parse_order
from engine.store.jobs import fetch_job, fetch_jobs, seconds_spent
from engine.store.journal import psi_points, read_journal
from engine.store.workspace import FORMAT, Workspace

DEEP = "[" * 200_000


@pytest.fixture
def workspace(old_workspace: Path, tmp_path: Path) -> Workspace:
    """A copy of the workspace of version 0.1, for a test to break."""
    return Workspace.open(shutil.copytree(old_workspace, tmp_path / "copy"))


def scored(workspace: Workspace) -> str:
    """The run with the standard scores of `noisy`."""
    return next(job.run_id for job in fetch_jobs(workspace, "noisy") if job.title == "cnn, 3 epochs, 2 seeds")


def results(workspace: Workspace, run: str) -> Path:
    return workspace.published_dir(run) / "results.duckdb"


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def containing(text: str | bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


BROKEN_SPECS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (containing(""), "not valid JSON"),
    "no spec": (containing("{}"), "no spec"),
    "list": (containing("[1]"), "no spec"),
    "null": (containing('{"spec": null}'), "no spec"),
    "deep": (containing(DEEP), "not valid JSON"),
    "bytes": (containing(b'{"spec": "\xff\xfe"}'), "not valid JSON"),
    "number as dataset": (containing('{"spec": {"dataset": 7}}'), "no name of a dataset"),
    "huge number": (containing('{"spec": {"dataset": "noisy"}, "started_at": ' + "9" * 5000 + "}"), "not valid JSON"),
    "folder": (as_folder, "not a regular file"),
    "pipe": (as_pipe, "not a regular file"),
}


@pytest.mark.parametrize("case", BROKEN_SPECS)
def test_a_broken_spec_is_listed_and_stops_no_other_run(workspace: Workspace, case: str) -> None:
    run, others = scored(workspace), len(workspace.run_ids()) - 1
    breaks, said = BROKEN_SPECS[case]
    breaks(workspace.run_dir(run) / "spec.json")
    jobs = fetch_jobs(workspace)
    assert [job.run_id for job in jobs if job.state == "unreadable"] == [run] and jobs[-1].run_id == run
    assert [job.state for job in jobs].count("done") == others
    message = fetch_job(workspace, run).message
    assert said in message and f"winnow remove {run}" in message and "\n" not in message
    assert default_dataset(workspace) == "noisy"
    assert run not in workspace.published_runs() and len(workspace.published_runs()) == others
    for dataset in ("digits", "noisy"):
        with connected(workspace, dataset) as connection:
            assert connection.execute("FROM unreadable").fetchall() == [(run, message)]
            assert connection.execute("SELECT count(*) > 0 FROM runs").fetchall() == [(True,)]
    with pytest.raises(StorageError, match=said):
        workspace.read_spec(run)
    workspace.remove_run(run)
    assert len(fetch_jobs(workspace)) == others


def test_a_spec_of_a_newer_version_is_named_and_its_results_are_read(workspace: Workspace) -> None:
    run = scored(workspace)
    path = workspace.run_dir(run) / "spec.json"
    content = json.loads(path.read_text())
    for changes, said in (
        ({"brand_new": 1}, "unknown field 'brand_new'"),
        ({"version": 999}, "made by a newer winnow"),
    ):
        path.write_text(json.dumps(content | {"spec": content["spec"] | changes}))
        job = fetch_job(workspace, run)
        assert job.state == "done" and said in job.message
        with connected(workspace, "noisy") as connection:
            assert connection.execute("SELECT count(*) > 0 FROM scores WHERE run_id = ?", [run]).fetchall() == [(True,)]
    shutil.rmtree(workspace.published_dir(run))
    assert fetch_job(workspace, run).state == "unreadable"


def test_a_start_that_is_no_time_is_as_if_it_was_not_written(workspace: Workspace) -> None:
    run = scored(workspace)
    content = json.loads((workspace.run_dir(run) / "spec.json").read_text())
    for value in ("x", None, [1], 10**400, True):
        (workspace.run_dir(run) / "spec.json").write_text(json.dumps(content | {"started_at": value}))
        assert fetch_job(workspace, run).started_at == 0 and runs_of(workspace, "noisy")[0] == run


@pytest.mark.parametrize(
    "breaks",
    [
        *(containing(text) for text in (DEEP, "[1]\n7\n", '{"event": [1], "at": 1}', '{"event": "x", "at": null}')),
        containing('{"event": "progress", "at": 1, "fraction": "most", "seconds_left": "x", "stage": 7}'),
        containing('{"event": "progress", "at": 1, "fraction": ' + "9" * 5000 + "}"),
        containing('{"event": "failed", "at": 1e999, "message": {}}'),
        containing(b"\xff\xfe\x00"),
        as_folder,
        as_pipe,
    ],
)
@pytest.mark.parametrize("published", [True, False])
def test_a_broken_journal_stops_nothing(workspace: Workspace, breaks: Callable[[Path], None], published: bool) -> None:
    run = scored(workspace)
    if not published:
        shutil.rmtree(workspace.published_dir(run))
    breaks(workspace.run_dir(run) / "journal.jsonl")
    job = fetch_job(workspace, run)
    assert job.state == ("done" if published else "interrupted") and 0 <= job.fraction <= 1
    assert len(fetch_jobs(workspace)) == len(workspace.run_ids())
    assert all(isinstance(e["at"], (int, float)) for e in read_journal(workspace.run_dir(run)))
    assert seconds_spent(workspace.run_dir(run)) >= 0


def damage(sql: str) -> Callable[[Workspace, str], None]:
    def change(workspace: Workspace, run: str) -> None:
        with duckdb.connect(str(results(workspace, run))) as connection:
            connection.execute(sql)
        list_again(workspace.published_dir(run))

    return change


def cut_short(workspace: Workspace, run: str) -> None:
    os.truncate(results(workspace, run), results(workspace, run).stat().st_size // 2)


BROKEN_RESULTS: dict[str, tuple[Callable[[Workspace, str], None], str]] = {
    "missing": (lambda w, r: results(w, r).unlink(), "is missing"),
    "folder": (lambda w, r: as_folder(results(w, r)), "not a regular file"),
    "pipe": (lambda w, r: as_pipe(results(w, r)), "not a regular file"),
    "cut short": (cut_short, "it is damaged"),
    "foreign": (damage("DROP TABLE run"), "is not a results file of winnow"),
    "another type": (
        damage("ALTER TABLE scores ALTER value TYPE VARCHAR"),
        "column 'value' of table 'scores' is VARCHAR",
    ),
    "no predictions": (damage("ALTER TABLE trajectories DROP predicted"), "no column 'predicted'"),
    "newer": (lambda w, r: list_again(w.published_dir(r), format=FORMAT + 1), "upgrade winnow-images"),
    "no manifest": (lambda w, r: (w.published_dir(r) / "manifest.json").unlink(), "manifest.json is missing"),
    "deep manifest": (lambda w, r: (w.published_dir(r) / "manifest.json").write_text(DEEP) and None, "not valid JSON"),
}


@pytest.mark.parametrize("case", BROKEN_RESULTS)
def test_broken_results_are_left_out_and_listed(workspace: Workspace, case: str) -> None:
    run = scored(workspace)
    breaks, said = BROKEN_RESULTS[case]
    breaks(workspace, run)
    with connected(workspace, "noisy") as connection:
        ((listed, problem),) = connection.execute("FROM unreadable").fetchall()
        assert listed == run and said in problem and f"winnow remove {run}" in problem and "\n" not in problem
        left = {row[0] for row in connection.execute("SELECT run_id FROM runs").fetchall()}
        assert left == set(runs_of(workspace, "noisy")) - {run} and len(left) == 4
        for view in ("scores", "dynamics", "psi", "flags"):
            assert connection.execute(f"SELECT count(*) > 0 FROM {view}").fetchall() == [(True,)], view


def test_a_column_that_a_file_lacks_is_null_and_one_it_has_besides_is_passed_over(workspace: Workspace) -> None:
    run = scored(workspace)
    damage("ALTER TABLE flags DROP COLUMN threshold; ALTER TABLE scores ADD COLUMN later INTEGER")(workspace, run)
    with connected(workspace, "noisy") as connection:
        assert connection.execute("FROM unreadable").fetchall() == []
        rows = connection.execute(
            "SELECT count(*), count(threshold), count(value) FROM flags WHERE run_id = ?", [run]
        ).fetchall()
        assert rows[0][0] > 0 and rows[0] == (rows[0][0], 0, rows[0][0])
        assert "later" not in [row[0] for row in connection.execute("DESCRIBE scores").fetchall()]


def test_what_version_0_1_did_not_store_is_derived(old_workspace: Path) -> None:
    with connected(Workspace.open(old_workspace), "noisy") as connection:
        rules = dict(connection.execute("SELECT DISTINCT rule, score FROM flags").fetchall())
        assert rules["aum_threshold"] == "aum" and rules["gmm"] == "gmm"
        orders = connection.execute('SELECT DISTINCT "order", score, reversed, sampler, options FROM psi').fetchall()
        assert connection.execute("SELECT count(version) FROM score_costs").fetchall() == [(0,)]
    assert len(orders) == 8
    for name, *stored in orders:
        meant = parse_order(name)
        assert stored[:3] == [meant.score or None, meant.sampler == "descending", meant.sampler], name
        assert json.loads(stored[3]) == meant.options, name


@pytest.mark.parametrize(
    "name", ["el2n@5*", "kcenter", "ccs(el2n@3,beta=0.1,strata=20)", "window(aum,offset=1e-05)", "descending(aum)"]
)
def test_an_order_is_read_in_sql_as_it_is_parsed(name: str) -> None:
    (row,) = fetch_orders([name]).to_dict("records")
    meant = parse_order(name)
    score = row["score"] if isinstance(row["score"], str) else ""
    assert (row["sampler"], score, json.loads(row["options"])) == (meant.sampler, meant.score, meant.options)
    assert row["reversed"] == (meant.sampler == "descending")


def test_a_run_of_a_dataset_that_was_ingested_again_is_not_read_with_the_new_samples(workspace: Workspace) -> None:
    runs = runs_of(workspace, "noisy")
    workspace.dataset_path("noisy").unlink()
    shutil.copy(workspace.dataset_path("digits"), workspace.dataset_path("noisy"))
    assert runs_of(workspace, "noisy") == []
    with connected(workspace, "noisy") as connection:
        assert connection.execute("SELECT count(*) FROM scores").fetchall() == [(0,)]
        problems = dict(connection.execute("FROM unreadable").fetchall())
    assert set(problems) == set(runs) and all("ingested again since" in text for text in problems.values())
    assert {job.state for job in fetch_jobs(workspace, "noisy")} == {"unreadable"}
    assert len(runs_of(workspace, "digits")) == 1


def test_a_name_that_no_run_has_is_no_run(workspace: Workspace) -> None:
    known = workspace.run_ids()
    for name in (b"\xff\xfe", b"<b>x</b>", b"a'b"):
        folder = Path(os.fsdecode(os.fsencode(workspace.root / "runs") + b"/" + name.replace(b"/", b"")))
        folder.mkdir()
        (folder / "spec.json").write_text("{}")
    assert workspace.run_ids() == known


def test_a_workspace_whose_making_was_interrupted_is_made(tmp_path: Path) -> None:
    (tmp_path / "w" / "datasets").mkdir(parents=True)
    assert Workspace.open(tmp_path / "w", create=True).datasets() == []
    (tmp_path / "w" / "winnow.json").write_text(DEEP)
    with pytest.raises(StorageError, match="damaged"):
        Workspace.open(tmp_path / "w")


def test_points_of_a_journal_are_read_with_what_their_orders_mean(workspace: Workspace) -> None:
    run = next(job.run_id for job in fetch_jobs(workspace, "noisy") if "ccs(nli" in job.title)
    with connected(workspace, "noisy") as connection:
        published = connection.execute(
            'SELECT * EXCLUDE (seconds) FROM psi WHERE run_id = ? ORDER BY "order", pruned, seed', [run]
        ).fetchall()
    journal = fetch_psi_journal(workspace, run).sort_values(["order", "pruned", "seed"]).drop(columns="seconds")
    assert len(journal) == len(published)
    for told, row in zip(journal.itertuples(index=False), published, strict=True):
        assert [v if v == v else None for v in told] == pytest.approx(list(row), abs=1e-12, nan_ok=True)


def test_lists_do_not_wait_for_a_pipe(workspace: Workspace) -> None:
    """What reads a pipe without looking would wait for ever; here in a thread, so that the test ends."""
    run = scored(workspace)
    for name in ("spec.json", "journal.jsonl", "lock"):
        (workspace.run_dir(run) / name).unlink(missing_ok=True)
        os.mkfifo(workspace.run_dir(run) / name)
    done = threading.Thread(target=fetch_jobs, args=(workspace,), daemon=True)
    done.start()
    done.join(20)
    assert not done.is_alive()


@pytest.mark.parametrize(
    "told",
    [7, {"a": 1}, [1], [{"order": [1]}], [{"order": "aum", "pruned": "many", "seed": 0}], [{"order": None}],
     [{"order": "aum", "pruned": 10**40, "seed": 0, "kept_fraction": 0.5, "accuracy": 0.5, "seconds": 1}],
     [{"order": "aum", "pruned": 1, "seed": 0, "kept_fraction": 0.5, "accuracy": 7, "seconds": 1}],
     [{"order": "aum", "pruned": True, "seed": 0, "kept_fraction": 0.5, "accuracy": 0.5, "seconds": 1}]],
)  # fmt: skip
def test_points_that_no_curve_has_are_passed_over(told: object) -> None:
    whole = {
        "order": "aum",
        "pruned": 4,
        "seed": 0,
        "network": "x",
        "kept_fraction": 0.5,
        "accuracy": 0.5,
        "seconds": 1,
    }
    events = [
        {"event": "psi_points", "points": told},
        {"event": "psi_points"},
        {"event": "psi_points", "points": [whole]},
    ]
    assert psi_points(events) == [whole]
