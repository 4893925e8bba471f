import json
import os
import shutil
import subprocess
import sys
from typing import get_args

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import NotFoundError, SpecError, StorageError
from engine.queries.connection import connected
from engine.queries.listing import fetch_ids
from engine.queries.samples import Decision, Filter
from engine.store.contents import fetch_keys, find_contents
from engine.store.decisions import decide, fetch_batches, fetch_decisions_log, fetch_disagreements, undo
from engine.store.jobs import discard_dataset
from engine.store.standing import Standing
from engine.store.workspace import Workspace


def now(workspace):
    log = fetch_decisions_log(workspace, "small")
    return {int(r.sample_id): (r.action, None if pd.isna(r.new_label) else r.new_label) for r in log.itertuples()}


def test_the_latest_decision_of_a_sample_counts(small_workspace):
    assert now(small_workspace) == {}
    decide(small_workspace, "small", [1, 2], "drop")
    decide(small_workspace, "small", [2], "relabel", new_label=7, note="a seven")
    assert now(small_workspace) == {1: ("drop", None), 2: ("relabel", 7)}
    with connected(small_workspace, "small") as connection:
        rows = connection.execute("SELECT sample_id, action, new_label, note FROM decisions ORDER BY 1").fetchall()
    assert rows == [(1, "drop", None, ""), (2, "relabel", 7, "a seven")]


def test_undo_takes_back_batch_by_batch(small_workspace):
    decide(small_workspace, "small", [1, 2, 3], "keep")
    decide(small_workspace, "small", [2, 3], "drop")
    assert undo(small_workspace, "small") is not None
    assert now(small_workspace) == {i: ("keep", None) for i in (1, 2, 3)}
    undo(small_workspace, "small")
    assert now(small_workspace) == {} and undo(small_workspace, "small") is None
    decide(small_workspace, "small", [5], "drop")
    assert now(small_workspace) == {5: ("drop", None)}


@pytest.mark.parametrize(
    ("ids", "action", "label", "said"),
    [
        ([1], "delete", None, "unknown action"),
        ([1], "relabel", None, "takes a new label"),
        ([1], "keep", 3, "takes a new label"),
        ([1], "relabel", 10, "allowed: 0 to 9"),
        ([10_000], "keep", None, "sample 10000; allowed: 0 to"),
    ],
)
def test_a_wrong_decision_is_refused_and_nothing_written(small_workspace, ids, action, label, said):
    with pytest.raises(SpecError, match=said):
        decide(small_workspace, "small", ids, action, new_label=label)
    assert now(small_workspace) == {}


def test_each_sample_of_one_batch_may_be_relabeled_to_a_label_of_its_own(small_workspace):
    decide(small_workspace, "small", [4, 2, 2, 9], "relabel", new_label=[1, 3, 5, 0])
    assert now(small_workspace) == {2: ("relabel", 5), 4: ("relabel", 1), 9: ("relabel", 0)}  # of 2 the last one given
    assert undo(small_workspace, "small") == 1 and now(small_workspace) == {}
    with pytest.raises(SpecError, match="2 labels for 3 samples"):
        decide(small_workspace, "small", [1, 2, 3], "relabel", new_label=[1, 2])


HOSTILE = "<b>![x](http://a)</b> '; DROP TABLE log; -- \u202e\n"


def test_texts_are_kept_as_they_are_and_one_too_long_is_refused(small_workspace):
    decide(small_workspace, "small", [1], "unsure", note=HOSTILE, author=HOSTILE)
    (row,) = fetch_decisions_log(small_workspace, "small").to_dict("records")
    assert (row["action"], row["note"], row["author"]) == ("unsure", HOSTILE, HOSTILE)
    for given, message in (
        ({"author": "a" * 81}, "81 characters; allowed: up to 80"),
        ({"note": "n" * 2001}, "2,001 characters; allowed: up to 2,000"),
        ({"author": "\ud800"}, "half of a character"),
    ):
        with pytest.raises(SpecError, match=message):
            decide(small_workspace, "small", [1], "drop", **given)
    with pytest.raises(SpecError, match="no samples to decide about"):
        decide(small_workspace, "small", [], "drop")
    assert len(fetch_decisions_log(small_workspace, "small")) == 1


def test_an_author_takes_back_the_own_batches_and_those_of_others_stand(small_workspace):
    ann = decide(small_workspace, "small", [1, 2], "drop", author="ann")
    decide(small_workspace, "small", [2, 3], "keep", author="bob")
    again = decide(small_workspace, "small", [3], "unsure", author="ann")
    assert undo(small_workspace, "small", "eve") is None
    assert undo(small_workspace, "small", "ann") == again
    assert now(small_workspace) == {1: ("drop", None), 2: ("keep", None), 3: ("keep", None)}
    with pytest.raises(NotFoundError, match=f"decision {ann} does not stand of 'bob'"):
        undo(small_workspace, "small", "bob", batch=ann)
    assert undo(small_workspace, "small", batch=ann) == ann
    assert now(small_workspace) == {2: ("keep", None), 3: ("keep", None)}
    with pytest.raises(NotFoundError, match="does not stand"):
        undo(small_workspace, "small", batch=ann)
    log = fetch_batches(small_workspace, "small")
    assert log["action"].tolist() == ["undo", "undo", "unsure", "keep", "drop"]
    assert log["author"].tolist() == ["", "ann", "ann", "bob", "ann"]
    assert log["stands"].tolist() == [True, True, False, True, False]
    assert log["n"].tolist() == [0, 0, 1, 2, 2] and log["new_label"].tolist()[:2] == [ann, again]


def modelled(batches):
    """The whole meaning of a log, given as (author, {sample: (action, label)}, stands) by number: (author, action, label)
    by sample, and (action, label) by sample and author where authors differ."""
    latest, of_author = {}, {}
    for author, said, stands in batches.values():
        if stands:
            for sample, what in said.items():
                latest[sample] = (author, *what)
                of_author.setdefault(sample, {})[author] = what
    return latest, {(i, by): said[by] for i, said in of_author.items() if len(set(said.values())) > 1 for by in said}


def rows_of(frame):
    label = [None if pd.isna(value) else int(value) for value in frame["new_label"]]
    return list(zip(frame["sample_id"], frame["author"], frame["action"], label, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_decisions_and_undos_of_two_people_means_what_the_model_says(small_workspace, seed):
    random, batches, following = np.random.default_rng(seed), {}, Standing(small_workspace, "small")
    for step in range(60):
        author = ("ann", "bob")[int(random.integers(2))]
        if random.random() < 0.35:
            whose = author if random.random() < 0.8 else None
            standing = [number for number, (by, _, stands) in batches.items() if stands and whose in (None, by)]
            expected = max(standing, default=None)
            assert undo(small_workspace, "small", whose) == expected
            if standing:
                batches[expected] = (*batches[expected][:2], False)
        else:
            ids = random.choice(12, int(random.integers(1, 6)), replace=False).tolist()
            action = ("keep", "drop", "relabel", "unsure")[int(random.integers(4))]
            labels = random.integers(0, 3, len(ids)).tolist() if action == "relabel" else [None] * len(ids)
            given = labels if action == "relabel" else None
            number = decide(small_workspace, "small", ids, action, new_label=given, author=author)
            batches[number] = author, {i: (action, label) for i, label in zip(ids, labels, strict=True)}, True
        if step % 3 == 0:
            continue  # more than one may come between two looks
        following.refresh()
        latest, disputed = modelled(batches)
        for found in (following.current(), fetch_decisions_log(small_workspace, "small")):
            assert rows_of(found) == sorted((i, *what) for i, what in latest.items())
            assert set(found.loc[found["disputed"], "sample_id"]) == {i for i, _ in disputed}
        for found in (following.disagreements(), fetch_disagreements(small_workspace, "small")):
            assert rows_of(found) == sorted((*key, *what) for key, what in disputed.items())
    wanted = [Filter(decision=d, author=a) for d in get_args(Decision) for a in ("", "ann", "eve")]
    with connected(small_workspace, "small", []) as connection:
        for each in wanted:
            in_memory = following.meets(each.decision, each.author)
            train = fetch_ids(connection, "", Filter())
            assert fetch_ids(connection, "", each).tolist() == train[in_memory[train]].tolist(), each


def test_two_people_at_once_lose_nothing(small_workspace):
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.store.decisions import decide, undo\n"
        "from engine.store.workspace import Workspace\n"
        "w, who = Workspace.open(Path(sys.argv[1])), sys.argv[2]\n"
        "for i in range(15):\n    decide(w, 'small', [int(who) + i], 'drop', author=who)\n"
        "    if i % 5 == 4:\n        undo(w, 'small', who)\n"
    )
    people = [subprocess.Popen([sys.executable, "-c", code, str(small_workspace.root), first]) for first in ("0", "50")]
    following = Standing(small_workspace, "small")
    while any(person.poll() is None for person in people):
        following.refresh()
    assert [person.wait(timeout=120) for person in people] == [0, 0]
    log = fetch_decisions_log(small_workspace, "small")
    left = [i for i in range(15) if i % 5 != 4]
    assert log["sample_id"].tolist() == [*left, *(50 + i for i in left)]
    assert log["author"].tolist() == ["0"] * len(left) + ["50"] * len(left)  # each took back the own ones
    following.refresh()
    pd.testing.assert_frame_equal(following.current(), log)


# Another ingest under the same name ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six different pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        image = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def ingested(tmp_path, pictures):
    """Ingest pictures, given as (picture, label) in the order of their ids, under one name; again in place of before."""
    workspace = Workspace.open(tmp_path / "w", create=True)

    def make(*rows):
        if "mine" in workspace.datasets():
            discard_dataset(workspace, "mine")
        lines = [f"{pictures / f'{i}.png'},{label}" for i, label in rows]
        listed = pictures / "list.csv"
        listed.write_text("\n".join(["path,label", *lines]) + "\n")
        ingest(workspace, IngestSpec(name="mine", source=str(listed), test_fraction=0))
        return workspace

    return make


def decided(workspace):
    """The standing decisions: action (and the class it relabels to) by sample id."""
    with connected(workspace, "mine") as connection:
        rows = connection.execute(
            "SELECT sample_id, action || coalesce(' ' || class_name, '') FROM decisions "
            "LEFT JOIN classes ON classes.label = new_label"
        ).fetchall()
    return dict(rows)


def test_a_decision_follows_its_image_through_another_order_more_and_fewer(ingested):
    workspace = ingested((0, "cat"), (1, "dog"), (2, "cat"))
    decide(workspace, "mine", [0], "drop")
    decide(workspace, "mine", [2], "relabel", new_label=1)
    assert decided(workspace) == {0: "drop", 2: "relabel dog"}
    assert decided(ingested((2, "cat"), (1, "dog"), (0, "cat"))) == {2: "drop", 0: "relabel dog"}
    # With one more class before it, dog is another number and the same word.
    assert decided(ingested((3, "bat"), (2, "cat"), (1, "dog"), (0, "cat"))) == {3: "drop", 1: "relabel dog"}
    assert decided(ingested((1, "dog"), (2, "cat"))) == {1: "relabel dog"}
    assert decided(ingested((1, "hog"), (2, "cat"))) == {}  # there is no dog to relabel it to
    assert decided(ingested((4, "cat"), (5, "dog"))) == {}
    assert decided(ingested((0, "cat"), (1, "dog"), (2, "cat"))) == {0: "drop", 2: "relabel dog"}


def test_the_latest_decision_about_an_image_counts_whatever_its_id_was(ingested):
    workspace = ingested((0, "cat"), (1, "dog"))
    decide(workspace, "mine", [0, 1], "drop")
    workspace = ingested((1, "dog"), (0, "cat"))
    decide(workspace, "mine", [1], "keep")
    assert decided(workspace) == {0: "drop", 1: "keep"}
    assert decided(ingested((0, "cat"), (1, "dog"))) == {0: "keep", 1: "drop"}
    undo(workspace, "mine")
    assert decided(workspace) == {0: "drop", 1: "drop"}


def test_copies_of_one_image_stay_apart(ingested):
    workspace = ingested((0, "cat"), (0, "dog"), (1, "dog"), (0, "cat"))
    decide(workspace, "mine", [1], "drop")
    assert decided(workspace) == {1: "drop"}
    assert decided(ingested((1, "dog"), (0, "cat"), (0, "dog"))) == {2: "drop"}
    assert decided(ingested((0, "cat"), (1, "dog"))) == {}


def columns_of_log(workspace):
    with duckdb.connect(str(workspace.root / "decisions.duckdb"), read_only=True) as connection:
        return {row[0] for row in connection.execute("DESCRIBE log").fetchall()}


@pytest.fixture
def old(old_workspace, tmp_path):
    return Workspace.open(shutil.copytree(old_workspace, tmp_path / "old"))


def test_a_log_of_version_0_1_is_read_as_it_is_and_carried_over_on_the_first_write(old):
    before = fetch_decisions_log(old, "noisy")
    assert [tuple(row) for row in before[["sample_id", "action", "note"]].to_numpy()] == [
        (3, "drop", "blurred"),
        (5, "drop", "blurred"),
        (7, "relabel", ""),
    ]
    assert before["new_label"].fillna(-1).tolist() == [-1, -1, 4]
    assert "content" not in columns_of_log(old)  # reading writes nothing
    decide(old, "digits", [8], "drop")
    assert {"content", "copy", "fingerprint", "new_class"} <= columns_of_log(old)
    pd.testing.assert_frame_equal(fetch_decisions_log(old, "noisy"), before)
    assert fetch_decisions_log(old, "digits")["sample_id"].tolist() == [3, 8]
    assert undo(old, "noisy") == 2
    assert fetch_decisions_log(old, "noisy")["sample_id"].tolist() == [3, 5]


def test_a_log_of_version_0_1_follows_its_images_into_a_file_of_this_version(old):
    with duckdb.connect(str(old.dataset_path("digits")), read_only=True) as connection:
        (spec,) = connection.execute("SELECT spec FROM dataset").fetchone()
    contents = fetch_keys(old.dataset_path("digits"), [3])["content"].tolist()
    assert discard_dataset(old, "digits")
    # Fewer digits, drawn anew: sample 3 is another one.
    ingest(old, IngestSpec(name="digits", source="digits", seed=json.loads(spec)["seed"] + 1, limit=1400))
    found = find_contents(old.dataset_path("digits"), contents)
    assert len(found) == 1 and found["sample_id"].tolist() != [3]
    log = fetch_decisions_log(old, "digits")
    assert log["sample_id"].tolist() == found["sample_id"].tolist() and log["action"].tolist() == ["keep"]


def test_a_log_of_version_0_1_about_images_that_are_gone_attaches_to_nothing(old):
    old.dataset_path("digits").unlink()  # without winnow, so that nobody could carry the log over
    ingest(old, IngestSpec(name="digits", source="digits", limit=150, seed=9))
    assert fetch_decisions_log(old, "digits").empty
    decide(old, "digits", [8], "drop")
    assert fetch_decisions_log(old, "digits")["sample_id"].tolist() == [8]


def test_the_contents_of_an_older_file_are_those_a_new_file_stores(old):
    before = fetch_keys(old.dataset_path("digits"), range(187))
    assert len(before) == 187 and before["content"].str.fullmatch("[0-9a-f]{32}").all()
    ingest(old, IngestSpec(name="again", source="dataset:digits", noise="symmetric:0.5"))
    after = fetch_keys(old.dataset_path("again"), range(187))
    assert after["content"].tolist() == before["content"].tolist() and after["copy"].tolist() == before["copy"].tolist()
    with duckdb.connect(str(old.dataset_path("again")), read_only=True) as connection:
        assert connection.execute("SELECT count(content) FROM samples").fetchone() == (187,)


def test_what_is_no_log_of_decisions_is_named_and_left_as_it_is(small_workspace):
    path = small_workspace.root / "decisions.duckdb"
    made = {
        "CREATE TABLE notes (x INTEGER)": "it holds the table 'notes'",
        "CREATE TABLE log (batch VARCHAR)": "column 'batch'",
        "CREATE VIEW log AS SELECT 1 AS batch": "it holds the view 'log'",
        "CREATE TABLE log (batch BIGINT); CREATE MACRO nextval(name) AS 7": "it holds the macro 'nextval'",
        "CREATE TABLE log (batch BIGINT DEFAULT (random() * 9))": "column 'batch'",
        "CREATE TABLE log (batch BIGINT CHECK (batch > 9))": "it holds the constraint",
        "CREATE SEQUENCE batch_ids": "it holds no log",
    }
    for sql, said in made.items():
        path.unlink(missing_ok=True)
        with duckdb.connect(str(path)) as connection:
            connection.execute(sql)
        before = path.read_bytes()
        for attempt in (
            lambda: fetch_decisions_log(small_workspace, "small"),
            lambda: decide(small_workspace, "small", [1], "drop"),
        ):
            with pytest.raises(StorageError, match=said):
                attempt()
        assert path.read_bytes() == before
    path.write_bytes(b"not a database at all")
    with pytest.raises(StorageError, match="move it away"):
        fetch_decisions_log(small_workspace, "small")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StorageError, match="not a regular file"):
        fetch_decisions_log(small_workspace, "small")
