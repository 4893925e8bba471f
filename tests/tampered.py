"""What somebody may have done to a workspace before they sent it: each case tampers with a copy of that of version 0.1."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
from given_verdicts import list_again

DATASET = "noisy"
RUN = "ac11671e94f9"
"""Its run with scores; 76cb773ea503 is a psi-curve of the same dataset."""

PSI = "76cb773ea503"
DEEP = "[" * 200_000
SECRET = "the secret of another folder"


def secret_beside(root: Path) -> Path:
    """A file outside a workspace that nothing may show, change or delete."""
    path = root.parent / "outside" / "secret.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(SECRET)
    return path


def results(root: Path, run: str = RUN) -> Path:
    return root / "runs" / run / "published" / "results.duckdb"


def spec(root: Path, run: str = RUN) -> Path:
    return root / "runs" / run / "spec.json"


def journal(root: Path, run: str = RUN) -> Path:
    return root / "runs" / run / "journal.jsonl"


def in_database(path: Path, sql: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(sql)


def in_results(sql: str, lists: bool = True) -> Callable[[Path], None]:
    """SQL run on the results of the run. lists: the manifest is written anew, so that its hashes fit."""

    def tamper(root: Path) -> None:
        in_database(results(root), sql.replace("OUTSIDE", str(secret_beside(root))))
        if lists:
            list_again(results(root).parent)

    return tamper


def in_dataset(sql: str) -> Callable[[Path], None]:
    return lambda root: in_database(
        root / "datasets" / f"{DATASET}.duckdb", sql.replace("OUTSIDE", str(secret_beside(root)))
    )


def with_decisions(sql: str) -> Callable[[Path], None]:
    def tamper(root: Path) -> None:
        path = root / "decisions.duckdb"
        path.unlink(missing_ok=True)
        in_database(path, sql.replace("OUTSIDE", str(secret_beside(root))))

    return tamper


def text(of: Callable[[Path], Path], content: str | bytes) -> Callable[[Path], None]:
    def tamper(root: Path) -> None:
        path = of(root)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return tamper


def changed_spec(run: str = RUN, top: dict[str, object] | None = None, **changes: object) -> Callable[[Path], None]:
    def tamper(root: Path) -> None:
        content = json.loads(spec(root, run).read_text())
        content["spec"] |= changes
        spec(root, run).write_text(json.dumps(content | (top or {})))

    return tamper


def folder(of: Callable[[Path], Path]) -> Callable[[Path], None]:
    def tamper(root: Path) -> None:
        of(root).unlink(missing_ok=True)
        of(root).mkdir()

    return tamper


def pipe(of: Callable[[Path], Path]) -> Callable[[Path], None]:
    def tamper(root: Path) -> None:
        of(root).unlink(missing_ok=True)
        os.mkfifo(of(root))

    return tamper


def linked(of: Callable[[Path], Path]) -> Callable[[Path], None]:
    """What lay there is moved outside, and a link put in its place."""

    def tamper(root: Path) -> None:
        target = secret_beside(root).parent / "moved"
        shutil.move(of(root), target)
        of(root).symlink_to(target)

    return tamper


def psi_journal(line: object) -> Callable[[Path], None]:
    """The psi-curve as if it were being computed, with another line in its journal."""

    def tamper(root: Path) -> None:
        shutil.rmtree(root / "runs" / PSI / "published")
        with open(journal(root, PSI), "a") as file:
            file.write(json.dumps({"at": 1, "event": "psi_points", "points": line}) + "\n")

    return tamper


LOG = "batch BIGINT, dataset VARCHAR, sample_id INTEGER, action VARCHAR, new_label INTEGER, note VARCHAR, decided_at TIMESTAMP"
AS_LOG = "SELECT 1::BIGINT AS batch, 'noisy' AS dataset, 0 AS sample_id, 'keep' AS action, NULL::INTEGER AS new_label"

CASES: dict[str, Callable[[Path], None]] = {
    "15 decisions, view over a file": with_decisions(
        f"CREATE VIEW log AS {AS_LOG}, content AS note, now()::TIMESTAMP AS decided_at FROM read_text('OUTSIDE')"
    ),
    "15 decisions, macro": with_decisions(
        f"CREATE TABLE log ({LOG}); CREATE MACRO nextval(s) AS (SELECT content FROM read_text('OUTSIDE'))"
    ),
    "15 decisions, impossible rows": with_decisions(
        f"CREATE SEQUENCE batch_ids; CREATE TABLE log ({LOG}); INSERT INTO log VALUES (1, 'noisy', -5, 'drop', NULL, '', now()), "
        "(2, 'noisy', 99999999, 'relabel', 77, '', now()), (3, 'noisy', 1, 'explode', NULL, NULL, NULL), "
        "(4, NULL, NULL, NULL, NULL, NULL, NULL), (5, 'noisy', 2, 'undo', NULL, '', now())"
    ),
    "16 scores, view over a file": in_results(
        "DROP TABLE scores; CREATE VIEW scores AS SELECT content AS score, 0 AS sample_id, 0::FLOAT AS value, 0 AS rank "
        "FROM read_text('OUTSIDE')"
    ),
    "16 scores, recursive view": in_results(
        "DROP TABLE scores; CREATE VIEW scores AS WITH RECURSIVE t(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t) "
        "SELECT 'aum' AS score, n AS sample_id, n::FLOAT AS value, n AS rank FROM t"
    ),
    "16 results, macro": in_results("CREATE MACRO count(x) AS 7"),
    "16 results, another schema": in_results("CREATE SCHEMA more; CREATE TABLE more.scores (x INTEGER)"),
    "16 results, computed column": in_results("ALTER TABLE flags ADD COLUMN more VARCHAR DEFAULT ('x' || random())"),
    "16 results, index on an expression": in_results("CREATE INDEX i ON scores ((value + 1))"),
    "16 classes, view": in_dataset("ALTER TABLE classes RENAME TO real; CREATE VIEW classes AS SELECT * FROM real"),
    "16 dataset, no classes": in_dataset("DROP TABLE classes"),
    "17 scores changed, hashes left": in_results("UPDATE scores SET value = 0", lists=False),
    "17 a byte changed": lambda root: flip(results(root)),
    "17 weights changed": lambda root: flip(results(root).with_name("weights.safetensors")),
    "17 values that cannot be": in_results("UPDATE scores SET sample_id = sample_id + 1000000"),
    "17 ranks twice": in_results("UPDATE scores SET rank = 0"),
    "17 values that are no numbers": in_results("UPDATE scores SET value = 'nan'"),
    "17 epochs beyond reason": in_results("UPDATE epochs SET epoch = 2000000000"),
    "17 score with HTML for a name": in_results(
        "UPDATE scores SET score = '<img src=x onerror=alert(1)>' WHERE score = 'aum'"
    ),
    "17 nothing": in_results("DELETE FROM scores; DELETE FROM trajectories; DELETE FROM epochs"),
    "17 two rows about the run": in_results("INSERT INTO run SELECT * FROM run"),
    "17 labels that no class has": in_dataset("UPDATE samples SET label = 99 WHERE sample_id = 3"),
    "17 sample ids twice": in_dataset("UPDATE samples SET sample_id = 1 WHERE sample_id = 3"),
    "17 inputs of absurd shape": in_dataset("UPDATE dataset SET input_shape = [3, 1000000, 1000000]"),
    "18 spec {}": text(spec, "{}"),
    "18 spec [1]": text(spec, "[1]"),
    "18 spec null": text(spec, '{"spec": null}'),
    "18 spec deep": text(spec, DEEP),
    "18 started_at": changed_spec(top={"started_at": "x", "title": {"a": [1]}, "environment": 7, "created_at": [2]}),
    "18 dataset a number": changed_spec(dataset=7),
    "18 dataset a path": changed_spec(dataset="../../outside/secret"),
    "18 integer of 5,000 digits": text(spec, '{"spec": {"dataset": "noisy"}, "started_at": ' + "9" * 5000 + "}"),
    "18 half a character": text(spec, '{"spec": {"dataset": "noisy"}, "title": "\\ud800"}'),
    "18 spec a folder": folder(spec),
    "18 spec a pipe": pipe(spec),
    "18 spec a link": linked(spec),
    "18 odd options": changed_spec(scores=7, training={"model": [1], "epochs": "many"}),
    "19 journal deep": text(journal, DEEP),
    "19 journal at null": text(journal, '{"at": null, "event": "progress"}\n'),
    "19 journal fraction text": text(
        journal, '{"at": 1, "event": "progress", "fraction": "most", "seconds_left": []}\n'
    ),
    "19 journal event a list": text(journal, '{"at": 1, "event": ["failed"]}\n[7]\n'),
    "19 journal a folder": folder(journal),
    "19 journal a pipe": pipe(journal),
    "19 journal a link": linked(journal),
    "19 psi points, no list": psi_journal({"a": 1}),
    "19 psi points, odd": psi_journal(
        [1, {"order": [1]}, {"order": "x", "pruned": "many", "seed": 0}, {"order": "random"}]
    ),
    "20 winnow.json deep": text(lambda root: root / "winnow.json", DEEP),
    "20 runs a file": lambda root: [shutil.rmtree(root / "runs"), (root / "runs").write_text("")] and None,  # type: ignore[func-returns-value]
    "20 decisions of another schema": with_decisions("CREATE TABLE log (a INTEGER)"),
    "20 run id not UTF-8": lambda root: (
        shutil.copytree(root / "runs" / RUN, Path(os.fsdecode(os.fsencode(root / "runs") + b"/\xff\xfe"))) and None
    ),
    "20 results a pipe": pipe(results),
    "20 results with a write-ahead log": lambda root: (
        results(root).with_name("results.duckdb.wal").write_bytes(b"x") and None
    ),
    "20 results a link": linked(results),
    "20 dataset a pipe": pipe(lambda root: root / "datasets" / f"{DATASET}.duckdb"),
    "21 run a link": linked(lambda root: root / "runs" / RUN),
    "21 published a link": linked(lambda root: root / "runs" / RUN / "published"),
    "21 runs a link": linked(lambda root: root / "runs"),
    "21 datasets a link": linked(lambda root: root / "datasets"),
    "23 unknown field": changed_spec(brand_new=1),
    "23 newer version": changed_spec(version=999),
    "23 trial": text(lambda root: root / "datasets" / f"{DATASET}.trial.json", DEEP),
    "23 velocity": text(lambda root: root / "runs" / RUN / "velocity-aum.json", '[{"decile": "x"}, 7]'),
    "23 manifest, no files": text(lambda root: results(root).with_name("manifest.json"), '{"format": 1, "files": 7}'),
    "23 manifest, names": text(
        lambda root: results(root).with_name("manifest.json"), '{"files": {"../../x": {"bytes": 1, "sha256": "0"}}}'
    ),
}

ENDS_ALL = {"20 winnow.json deep", "20 runs a file", "21 runs a link", "21 datasets a link"}
"""After these the workspace is none: every command says so in one line."""

ENDS_DATASET = {
    "15 decisions, view over a file", "15 decisions, macro", "16 classes, view", "16 dataset, no classes",
    "17 labels that no class has", "17 sample ids twice", "17 inputs of absurd shape", "20 decisions of another schema",
    "20 dataset a pipe",
}  # fmt: skip
"""After these the dataset itself cannot be read; others can."""


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
