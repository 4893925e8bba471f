"""Named versions of the curated set: what a recipe gives, and that it stays what it was."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from forked_command import winnow
from given_verdicts import scored_run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import NotFoundError, SpecError, StorageError
from engine.queries.connection import connected
from engine.queries.recipes import evaluate, make_recipe
from engine.queries.versions import create_version, fetch_version_set, open_on_dataset, reproduce
from engine.store.decisions import decide, undo
from engine.store.jobs import discard_dataset
from engine.store.versions import remove_version, set_hash, stored_version, stored_versions
from engine.store.workspace import Workspace

DATASET = "digits-noisy"


@pytest.fixture(scope="module")
def original(judged_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("versions") / "workspace"
    shutil.copytree(judged_workspace, root)
    return root


@pytest.fixture
def workspace(original: Path) -> Workspace:
    """A workspace whose dataset has a run with a verdict, and in which nothing was decided yet."""
    (original / "decisions.duckdb").unlink(missing_ok=True)
    return Workspace.open(original)


@pytest.fixture(scope="module")
def known(original: Path) -> list[dict[str, Any]]:
    """What is known of each training sample, by id."""
    run = scored_run(original, DATASET)
    with connected(Workspace.open(original), DATASET) as connection:
        found = connection.execute(
            "SELECT sample_id, label, true_label, p_wrong, listed, aum.value AS aum, suggested_label, confidence FROM samples "
            "JOIN (FROM scores WHERE score = 'aum') AS aum USING (sample_id) "
            "LEFT JOIN (FROM shortlist) AS s USING (sample_id) LEFT JOIN (FROM suggestions WHERE method = "
            "'heldout_prediction') AS p USING (sample_id) WHERE split = 'train' ORDER BY sample_id"
        ).df()
    assert run and found["suggested_label"].notna().sum() > 100
    return Rows(found.astype(object).where(found.notna(), None).to_dict("records"))


class Rows(list[dict[str, Any]]):
    """Rows that print in one line: Hypothesis prints the arguments of what fails, and warns of a long text instead."""

    def __repr__(self) -> str:
        return f"<{len(self)} rows>"


CONDITIONS = {
    "label = 3": lambda row, action: row["label"] == 3,
    "sample_id % 7 = 2": lambda row, action: row["sample_id"] % 7 == 2,
    "p_wrong > 0.8": lambda row, action: row["p_wrong"] > 0.8,
    "aum < -1": lambda row, action: row["aum"] < -1,
    "flagged AND label < 2": lambda row, action: row["listed"] and row["label"] < 2,
    "action = 'keep'": lambda row, action: action == "keep",
    "true_label <> label OR NULL": lambda row, action: row["true_label"] != row["label"],
}
"""Conditions, and the same in Python."""

DECISION = st.tuples(
    st.sampled_from(["keep", "drop", "relabel", "unsure", "undo"]),
    st.sets(st.integers(0, 60), min_size=1),
    st.integers(0, 9),
)


@given(
    drop=st.lists(st.sampled_from(sorted(CONDITIONS)), max_size=3, unique=True),
    drop_shortlist=st.booleans(),
    relabel_above=st.none() | st.sampled_from([0.3, 0.6, 0.9]),
    batches=st.lists(DECISION, max_size=4),
    later=st.lists(DECISION, max_size=2),
    decisions=st.booleans(),
    unsure=st.sampled_from(["", "keep", "drop"]),
)
@example([], False, None, [("unsure", {0}, 0)], [], True, "drop")  # was in no count of what was dropped
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_recipe_gives_what_a_plain_model_gives(
    workspace: Workspace,
    known: list[dict[str, Any]],
    drop: list[str],
    drop_shortlist: bool,
    relabel_above: float | None,
    batches: list[tuple[str, set[int], int]],
    later: list[tuple[str, set[int], int]],
    decisions: bool,
    unsure: str,
) -> None:
    (workspace.root / "decisions.duckdb").unlink(missing_ok=True)
    stack: list[dict[int, tuple[str, int]]] = []
    for action, ids, label in batches:
        if action == "undo":
            undo(workspace, DATASET)
            stack = stack[:-1]
        else:
            _decide(workspace, action, ids, label)
            stack.append({i: (action, label) for i in ids})
    recipe = make_recipe(
        workspace,
        DATASET,
        drop=drop,
        drop_shortlist=drop_shortlist,
        relabel_above=relabel_above,
        decisions=decisions,
        unsure=unsure,
    )
    for action, ids, label in later:  # what is decided later changes nothing
        undo(workspace, DATASET) if action == "undo" else _decide(workspace, action, ids, label)
    standing = {i: made for batch in stack for i, made in batch.items()} if decisions else {}
    expected: dict[int, int] = {}
    for row in known:
        i = int(row["sample_id"])
        action, new_label = standing.get(i, ("", 0))
        if action == "unsure" and unsure:
            label = row["label"] if unsure == "keep" else None
        elif action in ("keep", "drop", "relabel"):
            label = {"keep": row["label"], "drop": None, "relabel": new_label}[action]
        elif any(CONDITIONS[condition](row, action) for condition in drop):
            label = None
        elif relabel_above is not None and row["confidence"] is not None and row["confidence"] >= relabel_above:
            label = row["suggested_label"]
        else:
            label = None if drop_shortlist and row["listed"] else row["label"]
        if label is not None:
            expected[i] = int(label)
    made = evaluate(workspace, recipe)
    ids, labels = made.kept
    assert dict(zip(ids.tolist(), labels.tolist(), strict=True)) == expected
    assert ids.dtype == labels.dtype == np.int32 and (np.diff(ids) > 0).all()
    facts = made.facts
    dropped = [*facts["dropped_by_condition"], facts["dropped_by_shortlist"], facts["dropped_by_person"]]
    assert facts["samples"] - facts["kept"] == sum(dropped) and sum(facts["after"]) == facts["kept"] == len(expected)
    truth = {int(row["sample_id"]): row["true_label"] for row in known}
    assert facts["wrong_left"] == sum(label != truth[i] for i, label in expected.items())


def _decide(workspace: Workspace, action: str, ids: set[int], label: int) -> None:
    decide(workspace, DATASET, sorted(ids), action, new_label=label if action == "relabel" else None)  # type: ignore[arg-type]


def test_the_estimate_counts_what_a_person_or_a_suggestion_changed(
    workspace: Workspace, known: list[dict[str, Any]]
) -> None:
    before = evaluate(workspace, make_recipe(workspace, DATASET)).facts
    p_wrong = [float(row["p_wrong"]) for row in known]
    assert before["noise_before"] == before["noise_left"] == pytest.approx(np.mean(p_wrong))
    assert before["wrong_left"] == before["wrong_before"] == sum(row["label"] != row["true_label"] for row in known)
    worst = sorted(range(len(known)), key=lambda i: -p_wrong[i])
    decide(workspace, DATASET, worst[:10], "keep")
    decide(workspace, DATASET, worst[10:20], "drop")
    decide(workspace, DATASET, worst[20:30], "relabel", new_label=0)
    left = sum(p_wrong) - sum(p_wrong[i] for i in worst[:30])
    found = evaluate(workspace, make_recipe(workspace, DATASET)).facts
    assert found["noise_left"] * (len(known) - 10) == pytest.approx(left)
    confident = [i for i in worst[30:] if known[i]["confidence"] is not None and known[i]["confidence"] >= 0.5]
    left += sum(1 - known[i]["confidence"] - p_wrong[i] for i in confident)
    found = evaluate(workspace, make_recipe(workspace, DATASET, relabel_above=0.5)).facts
    assert confident and found["noise_left"] * (len(known) - 10) == pytest.approx(left)


def test_a_version_stays_what_it_was_and_reproduces_byte_for_byte(workspace: Workspace) -> None:
    decide(workspace, DATASET, [1, 2], "drop")
    decide(workspace, DATASET, [3], "relabel", new_label=0)
    made = create_version(workspace, DATASET, "first", drop=["aum < -1"], relabel_above=0.9, note="as reviewed")
    ids, labels = fetch_version_set(workspace, DATASET, "first")
    assert made.hash == set_hash(ids, labels) and labels[ids == 3].tolist() == [0] and not np.isin([1, 2], ids).any()
    undo(workspace, DATASET)
    decide(workspace, DATASET, list(range(100, 200)), "drop")
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.queries.versions import reproduce\n"
        "from engine.store.versions import stored_version\nfrom engine.store.workspace import Workspace\n"
        "w = Workspace.open(Path(sys.argv[1]))\nfound = reproduce(w, stored_version(w, 'digits-noisy', 'first'))\n"
        "print(found.same, found.words)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace.root)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("True Computed again, it is the same set, byte for byte."), done.stderr
    again = fetch_version_set(workspace, DATASET, "first")
    assert ids.tobytes() == again[0].tobytes() and labels.tobytes() == again[1].tobytes()
    assert create_version(workspace, DATASET, "second", drop=["aum < -1"], relabel_above=0.9).hash != made.hash


def test_what_changed_is_named_and_the_stored_set_stays(workspace: Workspace, tmp_path: Path) -> None:
    decide(workspace, DATASET, [5, 6, 7], "drop")
    create_version(workspace, DATASET, "mine", drop_shortlist=True)
    before = fetch_version_set(workspace, DATASET, "mine")
    copy = Workspace.open(shutil.copytree(workspace.root, tmp_path / "w"))
    with duckdb.connect(str(copy.root / "decisions.duckdb")) as connection:
        connection.execute("DELETE FROM log WHERE sample_id = 6")
    found = reproduce(copy, stored_version(copy, DATASET, "mine"))
    assert not found.same and "1 samples differ" in found.words and "3 decisions counted then, 2" in found.words
    run = stored_version(copy, DATASET, "mine").recipe.run
    copy.remove_run(run)
    found = reproduce(copy, stored_version(copy, DATASET, "mine"))
    assert not found.same and f"run {run}, which its rules read, is gone" in found.words
    after = fetch_version_set(copy, DATASET, "mine")
    assert before[0].tobytes() == after[0].tobytes() and before[1].tobytes() == after[1].tobytes()


def test_a_name_is_unique_until_its_version_is_removed(workspace: Workspace) -> None:
    first = create_version(workspace, DATASET, "a", drop=["label = 1"])
    with pytest.raises(SpecError, match="has a version 'a' already; choose another name, or winnow version remove"):
        create_version(workspace, DATASET, "a")
    create_version(workspace, "digits", "a")
    remove_version(workspace, DATASET, "a")
    with pytest.raises(NotFoundError, match="unknown version 'a'"):
        fetch_version_set(workspace, DATASET, "a")
    with pytest.raises(NotFoundError, match="unknown version 'a'"):
        remove_version(workspace, DATASET, "a")
    again = create_version(workspace, DATASET, "a")
    assert [version.entry for version in stored_versions(workspace, DATASET)] == [
        again.entry
    ] and again.hash != first.hash
    assert [version.name for version in stored_versions(workspace, "digits")] == ["a"]


@pytest.mark.parametrize("name", ["", "../x", "a b", "-a", "x" * 65, "<img>", "a\n", "\u202ecod", "$(id)"])
def test_a_name_that_would_be_more_than_a_name_is_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(SpecError, match="a version cannot be called"):
        create_version(workspace, DATASET, name)
    assert not (workspace.root / "decisions.duckdb").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"drop": ["random() < 0.5"]}, "'random' gives another set every time"),
        ({"drop": ["(SELECT created_at FROM runs LIMIT 1) < now()"]}, "'now' gives another set"),
        ({"drop": ["current_date > DATE '2020-01-01'"]}, "'current_date' gives another set"),
        ({"drop": ["sample_id IN (SELECT sample_id FROM samples USING SAMPLE 5)"]}, "'USING SAMPLE' gives another set"),
        ({"drop": ["aum <"]}, "not one SQL expression"),
        ({"drop": ["aum_ < 1"]}, "aum_"),
        ({"drop": ["true; DROP TABLE x"]}, "not one SQL expression"),
        ({"drop": ["true"]}, "drops every training sample"),
        ({"drop": ["label = 1"] * 101}, "101 conditions; allowed: up to 100"),
        ({"relabel_above": 0.0}, "--relabel-above is 0; allowed: above 0 to 1"),
        ({"relabel_above": float("nan")}, "--relabel-above is nan"),
        ({"unsure": "maybe"}, "--unsure is 'maybe'; allowed: keep, drop"),
        ({"run": "nothing"}, "run nothing is not a published run"),
    ],
)
def test_a_recipe_that_makes_no_version_is_refused(workspace: Workspace, given: dict[str, Any], said: str) -> None:
    from engine.errors import WinnowError

    with pytest.raises(WinnowError, match=said.replace("(", r"\(")):
        create_version(workspace, DATASET, "x", **given)
    assert stored_versions(workspace, DATASET) == []


def test_without_a_run_decisions_alone_make_a_version(small_workspace: Workspace) -> None:
    decide(small_workspace, "small", [4], "drop")
    made = create_version(small_workspace, "small", "by-hand", drop=["label = 7"])
    assert made.recipe.run == "" and made.facts["noise_left"] is None and made.facts["dropped_by_person"] == 1
    assert reproduce(small_workspace, made).same
    for rule in ({"drop_shortlist": True}, {"relabel_above": 0.5}):
        with pytest.raises(NotFoundError, match="winnow run small makes one"):
            create_version(small_workspace, "small", "x", **rule)  # type: ignore[arg-type]


def _create(root: Path, name: str, results: Any) -> None:
    try:
        create_version(Workspace.open(root), "small", name)
        results.put("made")
    except SpecError as error:
        results.put(str(error))


def test_of_two_people_who_create_one_name_at_once_one_wins(small_workspace: Workspace) -> None:
    results = (context := multiprocessing.get_context("spawn")).Queue()
    people = [context.Process(target=_create, args=(small_workspace.root, "a", results)) for _ in range(3)]
    for person in people:
        person.start()
    said = sorted(results.get(timeout=120) for _ in people)
    for person in people:
        person.join(timeout=60)
    assert said.count("made") == 1 and len([text for text in said if "has a version 'a' already" in text]) == 2
    assert len(stored_versions(small_workspace, "small")) == 1


def test_damage_is_named(workspace: Workspace) -> None:
    create_version(workspace, DATASET, "a", drop=["label = 1"])
    path = workspace.root / "decisions.duckdb"
    for sql in (
        "UPDATE versions SET labels = 'x'",
        "UPDATE versions SET samples = 100000000",
        "UPDATE versions SET labels = reasons, samples = 1",
        f"UPDATE versions SET hash = '{'0' * 64}'",
    ):
        kept = path.read_bytes()
        with duckdb.connect(str(path)) as connection:
            connection.execute(sql)
        with pytest.raises(
            StorageError, match="version 'a' of dataset 'digits-noisy' is damaged; winnow version remove"
        ):
            fetch_version_set(workspace, DATASET, "a")
        path.write_bytes(kept)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE versions SET recipe = '{'")
    assert stored_versions(workspace, DATASET) == []
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE versions; CREATE TABLE versions (name VARCHAR DEFAULT 'x')")
    with pytest.raises(StorageError, match="column .entry. of its versions has another type"):
        stored_versions(workspace, DATASET)


VIEW = "SELECT name, kept, dropped, relabeled, unsure, noise_left, author, note, hash FROM versions"


def test_the_view_has_a_row_for_each_version_that_stands(workspace: Workspace) -> None:
    decide(workspace, DATASET, [0], "drop")
    made = [
        create_version(workspace, DATASET, "a", author="ann", note="= 1"),
        create_version(workspace, DATASET, "b", drop=["label = 1"], relabel_above=0.9, drop_shortlist=True),
        create_version(workspace, DATASET, "gone"),
    ]
    remove_version(workspace, DATASET, "gone")
    with connected(workspace, DATASET) as connection:
        found = connection.execute(VIEW).fetchall()
        ((dataset, recipe, created),) = connection.execute(
            "SELECT dataset, recipe, created_at FROM versions WHERE name = 'b'"
        ).fetchall()
    assert found == [
        (
            *(one.name, one.facts["kept"], one.samples - one.facts["kept"], one.facts["relabeled"], 0),
            *(one.facts["noise_left"], one.author, one.note, one.hash),
        )
        for one in made[:2]
    ]
    assert found[0][2] == 1 and found[1][3] > 0 and 0 < found[1][5] < found[0][5]
    assert (dataset, recipe, created) == (DATASET, made[1].recipe.to_json(), made[1].created_at)


@pytest.mark.parametrize(
    "sql",
    [
        "recipe = '{'",
        "facts = replace(facts, '\"kept\": ', '\"kept\": 1e9')",
        'facts = replace(facts, \'"noise_left": \', \'"noise_left": "x", "y": \')',
        "created_at = '290000-01-01'",
        "created_at = 'infinity'",
        "samples = -1",
        "samples = 9223372036854775807",
        "name = chr(27) || 'x'",
        "author = repeat(chr(27), 100000), note = NULL",
        "hash = NULL",
    ],
)
def test_what_no_version_writes_breaks_no_view(workspace: Workspace, sql: str) -> None:
    create_version(workspace, DATASET, "a")
    create_version(workspace, DATASET, "b")
    with duckdb.connect(str(workspace.root / "decisions.duckdb")) as connection:
        connection.execute(f"UPDATE versions SET {sql} WHERE name = 'a'")
    with connected(workspace, DATASET) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM versions").fetchall()]
        assert connection.execute("SELECT count(*) FROM samples").fetchall()[0][0] > 1_000
    assert names[-1] == "b"
    if "author" in sql or "created_at" in sql:
        assert winnow("version", "list", DATASET, workspace=workspace.root).returncode == 0


# The dataset ingested again ------------------------------------------------------------------------------------


@pytest.fixture
def ingested(tmp_path: Path) -> Any:
    """Ingest pictures, given as (picture, label) in the order of their ids, in place of what had the name before."""
    for i in range(6):
        image = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    workspace = Workspace.open(tmp_path / "w", create=True)

    def make(*rows: tuple[int, str]) -> Workspace:
        if "mine" in workspace.datasets():
            discard_dataset(workspace, "mine")
        listed = tmp_path / "list.csv"
        listed.write_text("\n".join(["path,label", *(f"{tmp_path / f'{i}.png'},{label}" for i, label in rows)]) + "\n")
        ingest(workspace, IngestSpec(name="mine", source=str(listed), test_fraction=0))
        return workspace

    return make


def contents(workspace: Workspace, name: str) -> dict[int, str]:
    """The set of a version: class name by sample id."""
    ids, labels = fetch_version_set(workspace, "mine", name)
    with connected(workspace, "mine") as connection:
        classes = dict(connection.execute("FROM classes").fetchall())
    return {int(i): classes[int(label)] for i, label in zip(ids, labels, strict=True)}


def test_a_version_follows_its_images_into_another_ingest(ingested: Any) -> None:
    workspace = ingested((0, "cat"), (1, "dog"), (2, "cat"), (3, "dog"))
    decide(workspace, "mine", [0], "drop")
    decide(workspace, "mine", [2], "relabel", new_label=1)
    create_version(workspace, "mine", "v")
    assert contents(workspace, "v") == {1: "dog", 2: "dog", 3: "dog"}
    # Another order, one more class before them, and an image that was not there: under new ids the same images.
    ingested((4, "bat"), (3, "dog"), (2, "cat"), (1, "cat"), (0, "cat"))
    assert contents(workspace, "v") == {1: "dog", 2: "dog", 3: "dog"}
    found = open_on_dataset(workspace, stored_version(workspace, "mine", "v"))
    assert (found.how, found.gone) == ("anew", 0)
    said = reproduce(workspace, stored_version(workspace, "mine", "v"))
    assert not said.same and "ingested anew since; of its 3 samples 3 are found by their images" in said.words
    ingested((3, "dog"), (2, "cat"))  # one of its images is gone: no set is better than another set
    with pytest.raises(NotFoundError, match="of its 3 samples 2 are found by their images, 1 are not in it now"):
        fetch_version_set(workspace, "mine", "v")
    ingested((1, "bat"), (2, "cat"), (3, "cat"))
    with pytest.raises(NotFoundError, match="the dataset has no class 'dog' now"):
        fetch_version_set(workspace, "mine", "v")
    ingested((0, "cat"), (1, "dog"), (2, "cat"), (3, "dog"))
    assert contents(workspace, "v") == {1: "dog", 2: "dog", 3: "dog"}
    assert reproduce(workspace, stored_version(workspace, "mine", "v")).same
