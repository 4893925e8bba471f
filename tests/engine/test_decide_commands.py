"""winnow decide, undo and decisions: which samples are meant, who decides, and what is printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import forked_command
import numpy as np
import pytest

from engine.errors import SourceError, SpecError
from engine.queries.chosen import find_label, parse_samples, read_samples
from engine.store.decision_file import AUTHOR
from engine.store.decisions import decide, fetch_batches, fetch_decisions_log
from engine.store.workspace import Workspace


def winnow(workspace: Workspace, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name != AUTHOR} | environment
    return forked_command.winnow(*words, workspace=workspace.root, env=given)


def test_samples_are_given_as_a_list_or_as_a_file(tmp_path: Path) -> None:
    assert parse_samples("1,2, 5-9,2", 10).tolist() == [1, 2, 5, 6, 7, 8, 9]
    for text, message in (
        ("1,,2", "allowed: ids and ranges"),
        ("5-2", "the smaller id first"),
        ("3-10", "allowed: 0 to 9"),
        ("-1", "allowed: ids and ranges"),
        ("²", "allowed: ids and ranges"),
        ("0-999999999999999999", "allowed: ids and ranges"),
    ):
        with pytest.raises(SpecError, match=message):
            parse_samples(text, 10)
    files = {
        "ids.txt": "3\n1\n\n3\n",
        "kept.csv": 'sample_id,note\r\n3,"a\nb"\r\n1,x\r\n',
        "other.csv": "note,sample_id\nx,3\ny,1\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        assert read_samples(tmp_path / name).tolist() == [1, 3]
    np.save(tmp_path / "ids.npy", np.array([3, 1]))
    assert read_samples(tmp_path / "ids.npy").tolist() == [1, 3]
    np.save(tmp_path / "wide.npy", np.array([2**40]))
    np.save(tmp_path / "real.npy", np.array([1.5]))
    np.save(tmp_path / "code.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.csv").write_text("root:x:0\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("wide.npy", "real.npy", "code.npy", "text.csv", "bytes.csv", "missing.txt"):
        with pytest.raises(SourceError, match=name):
            read_samples(tmp_path / name)


def test_a_class_is_found_by_its_name_and_by_its_number(small_workspace: Workspace) -> None:
    assert find_label(small_workspace, "small", "7") == 7
    with pytest.raises(SpecError, match="unknown class '10'"):
        find_label(small_workspace, "small", "10")


def test_decisions_of_two_people_are_made_listed_and_taken_back(scored_workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("2\n4\n")
    done = winnow(scored_workspace, "decide", "small", "drop", "--samples", "1-3", "--as", "ann", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"batch": 1, "samples": 3})
    hostile = "<b>\x1b[31m"
    done = winnow(scored_workspace, "decide", "small", "keep", "--ids", str(tmp_path / "ids.txt"), "--note", hostile)
    assert done.returncode == 0 and "decision 2: keep 2 samples" in done.stderr
    done = winnow(scored_workspace, "decide", "small", "relabel", "--label", "7", "--samples", "3", **{AUTHOR: "bob"})
    assert done.returncode == 0
    done = winnow(
        scored_workspace, "decide", "small", "drop", "--where", "sample_id < 10 AND action IS NULL", "--dry-run"
    )
    assert "6 samples match" in done.stderr and "nothing was decided" in done.stderr
    rows = json.loads(winnow(scored_workspace, "decisions", "small", "--json").stdout)["decisions"]
    assert [(r["sample_id"], r["author"], r["action"], r["new_class"]) for r in rows] == [
        (1, "ann", "drop", None), (2, "", "keep", None), (3, "bob", "relabel", "7"), (4, "", "keep", None),
    ]  # fmt: skip
    table = winnow(scored_workspace, "decisions", "small").stdout
    assert "\\x1b[31m" in table and "\x1b" not in table
    rows = json.loads(winnow(scored_workspace, "decisions", "small", "--disagreements", "--json").stdout)[
        "disagreements"
    ]
    assert [(r["sample_id"], r["author"]) for r in rows] == [(2, ""), (2, "ann"), (3, "ann"), (3, "bob")]
    done = winnow(scored_workspace, "undo", "small", "--as", "ann")
    assert "took back decision 1" in done.stderr
    assert fetch_decisions_log(scored_workspace, "small")["sample_id"].tolist() == [2, 3, 4]
    log = json.loads(winnow(scored_workspace, "decisions", "small", "--log", "--json").stdout)["log"]
    assert [(r["action"], r["author"], r["n"], r["stands"]) for r in log] == [
        ("undo", "ann", 0, True), ("relabel", "bob", 1, True), ("keep", "", 2, True), ("drop", "ann", 3, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("drop", "give one of --samples 1,2,5-9, --ids FILE, --where SQL and --copies"),
        ("drop --samples 1 --where true", "give one of"),
        ("relabel --samples 1", "relabel takes one of --label CLASS and --suggested"),
        ("drop --samples 1 --label 3", "the other actions take neither"),
        ("explode --samples 1", "unknown action 'explode'"),
        ("drop --where nonsense", "nonsense"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(small_workspace: Workspace, words: str, message: str) -> None:
    done = winnow(small_workspace, "decide", "small", *words.split())
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) <= 2
    assert fetch_decisions_log(small_workspace, "small").empty


def test_what_was_confirmed_before_a_kill_stands_for_each_author(small_workspace: Workspace) -> None:
    """Two people decide sample after sample and are killed; a log of writes that was left is carried over by the next."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.store.decisions import decide\n"
        "from engine.store.workspace import Workspace\n"
        "w = Workspace.open(Path(sys.argv[1]))\n"
        "for i in range(1000):\n    decide(w, 'small', [i % 150], 'drop', author=sys.argv[2])\n    print(i, flush=True)\n"
    )
    least = {"ann": 0, "bob": 0}
    for killed in range(3):
        people = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(small_workspace.root), name], stdout=subprocess.PIPE, text=True
            )
            for name in ("ann", "bob")
        ]
        confirmed = []
        for person in people:
            assert person.stdout is not None
            confirmed.append(int([person.stdout.readline() for _ in range(4 + killed)][-1]))
        for person in people:
            person.send_signal(signal.SIGKILL)
        rests = [person.communicate()[0].split() for person in people]
        for name, last, rest in zip(least, confirmed, rests, strict=True):
            least[name] += max([last, *map(int, rest)]) + 1
        decide(small_workspace, "small", [149], "keep", author="eve")
        batches = fetch_batches(small_workspace, "small")
        assert all((batches["author"] == name).sum() >= n for name, n in least.items())
        assert batches["author"].iloc[0] == "eve" and batches["batch"].is_unique
