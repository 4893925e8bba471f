"""What a system may refuse a command: memory, threads, files, folders, streams. One line, exit code 2, nothing left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.__main__ import ADDRESSES, refusal
from engine.store.workspace import Workspace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are set with Linux's own commands")

UNPRIVILEGED = [
    *("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--bounding-set=-all,+dac_read_search"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]
"""In front of a command: as an account that reads everything and may write nothing, where this one is root."""

WRITES = ("ingest", "new", "--from", "digits", "--limit", "100")
SCORED = ("run", "small", "--model", "mlp", "--scores", "aum", "--epochs", "2", "--seeds", "1")


def winnow(
    *words: object, at: Path | None = None, before: tuple[str, ...] = (), **options: object
) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "engine.cli", *map(str, words)]
    command += [] if at is None else ["--workspace", str(at)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]


def refused(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """The one line that was printed."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2 and len(lines) == 1, (done.returncode, done.stderr)
    assert lines[0].startswith("winnow: ") and all(word in lines[0] for word in words), lines[0]
    return lines[0]


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.name.endswith(".lock")}


@pytest.mark.parametrize("kibibytes", [60_000, 200_000, 700_000, 2_000_000])
def test_too_little_address_space_is_said_before_a_library_ends_the_process(
    small_workspace: Workspace, kibibytes: int
) -> None:
    before = files(small_workspace.root)
    for words in (WRITES, ("--help",), ("query", "SELECT 1")):
        at = None if words == ("--help",) else small_workspace.root
        printed = refused(winnow(*words, at=at, before=("prlimit", f"--as={kibibytes * 1024}")), "ulimit -v")
        assert f"limited to {kibibytes // 1024:,} MiB" in printed and f"{ADDRESSES >> 20:,} MiB" in printed
    assert files(small_workspace.root) == before


@pytest.mark.parametrize("words", [("--help",), WRITES, SCORED], ids=["help", "ingest", "run"])
def test_a_limit_on_processes_is_said_before_a_library_starts_its_threads(public: Path, words: tuple[str, ...]) -> None:
    root = public / "workspace"
    before = files(root)
    at = None if words == ("--help",) else root
    refused(
        winnow(*words, at=at, before=("prlimit", "--nproc=3", *unprivileged())), "threads or processes", "ulimit -u"
    )
    assert files(root) == before


def test_a_limit_on_open_files_is_said(small_workspace: Workspace) -> None:
    refused(
        winnow(*SCORED, at=small_workspace.root, before=("prlimit", "--nofile=20")), "may open 20 files", "ulimit -n"
    )
    assert small_workspace.run_ids() == []


def unprivileged() -> list[str]:
    """What makes a command one of an account without privileges, where this one is root."""
    if os.geteuid() != 0:
        return []
    assert shutil.which("setpriv"), "setpriv, of util-linux, is needed to drop what root may do"
    return UNPRIVILEGED


@pytest.fixture
def public(small_original: Path) -> Iterator[Path]:
    """A folder that every account may read, with a copy of `small_workspace` in it, which every account may write to:
    what pytest gives a test is its account's alone."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(small_original, Path(name) / "workspace")
        subprocess.run(["chmod", "-R", "a+rwX", name], check=True)
        Path(name).chmod(0o755)
        yield Path(name)


def forbid(folder: Path) -> None:
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(folder)], check=True)


def test_an_export_into_a_folder_that_must_not_be_written_to(public: Path) -> None:
    closed = public / "closed"
    closed.mkdir()
    (closed / "old.csv").write_text("old\n")
    forbid(closed)
    for words in (
        ("export", "small", "--where", "label = 1", "--to", closed / "new.csv"),
        ("export", "small", "--where", "label = 1", "--to", closed / "new.parquet"),
        ("export", "small", "--where", "label = 1", "--to", closed / "old.csv"),
        ("select", "small", "random", "--keep", "0.5", "--to", closed / "new.csv"),
    ):
        done = winnow(*words, at=public / "workspace", before=tuple(unprivileged()))
        refused(done, "not allowed to write", "closed", "Permission denied")
    assert [(p.name, p.read_text()) for p in closed.iterdir()] == [("old.csv", "old\n")]


def test_a_workspace_that_must_not_be_written_to_is_read(public: Path) -> None:
    root = public / "workspace"
    assert winnow(*SCORED, at=root).returncode == 0
    (run,) = Workspace.open(root).run_ids()
    forbid(root)
    before, as_somebody = files(root), tuple(unprivileged())
    for words in (("runs",), ("query", "SELECT count(*) FROM scores")):
        assert winnow(*words, at=root, before=as_somebody).returncode == 0
    for words in (WRITES, ("remove", run), ("remove", "small"), (*SCORED, "--seed", "1")):
        refused(winnow(*words, at=root, before=as_somebody), "not allowed to write")
    assert files(root) == before


STREAMS = {
    "full": ("> /dev/full", 2, "cannot write: No space left on device"),
    "closed": (">&-", 0, ""),
    "read no further": ("| head -c 1 > /dev/null", 0, ""),
    "nothing to read": ("<&- > /dev/null", 0, ""),
}


@pytest.mark.parametrize("case", STREAMS)
@pytest.mark.parametrize("words", ["query 'SELECT * FROM samples'", "query 'FROM samples' --format csv"])
def test_standard_streams_that_refuse(small_workspace: Workspace, case: str, words: str) -> None:
    redirected, code, printed = STREAMS[case]
    command = f"{sys.executable} -m engine.cli {words} {redirected}"
    where = {**os.environ, "WINNOW_WORKSPACE": str(small_workspace.root)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=where, timeout=120)
    assert done.returncode == code and printed in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "Exception" not in done.stderr and done.stderr.count("\n") <= 1


def test_no_file_takes_the_number_of_a_closed_stream(small_workspace: Workspace) -> None:
    code = (
        "import os, sys, engine.cli.__main__ as m\nm._prepare_streams()\n"
        "sys.exit(int(os.open(sys.argv[1], os.O_RDONLY) < 3))"
    )
    path = small_workspace.dataset_path("small")
    command = f"{sys.executable} -c '{code}' {path} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], timeout=60).returncode == 0
    command = f"{sys.executable} -m engine.cli {' '.join(SCORED)} --workspace {small_workspace.root} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", command], timeout=120).returncode == 0
    assert [small_workspace.is_published(run) for run in small_workspace.run_ids()] == [True]


HOMELESS = {"HOME": None, "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None}
ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "nothing but ASCII": {
        **HOMELESS,
        "TMPDIR": "/nowhere",
        "PYTHONIOENCODING": "ascii",
        "TERM": "dumb",
        "COLUMNS": "20",
    },
    "the C locale": {**HOMELESS, "HOME": "/proc/nowhere", "LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0"},
}


SEVERAL = """
import json, sys
from engine.cli.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""Several commands in one process, up to the first that fails."""


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_odd_environments(scored_workspace: Workspace, tmp_path: Path, case: str) -> None:
    environment = {k: v for k, v in {**os.environ, **ENVIRONMENTS[case]}.items() if v is not None}
    to = tmp_path / "кошки" / "猫.csv"
    to.parent.mkdir()
    sql = "SELECT chr(29483) AS cat, sample_id FROM samples LIMIT 1"  # 猫
    at = ["--workspace", str(scored_workspace.root)]
    commands = [["query", sql], ["query", sql, "--format", "csv"], ["runs"], list(SCORED)]
    commands += [["export", "small", "--where", "label = 1", "--to", str(to)]]
    commands = [[*words, *at] for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)], capture_output=True, env=environment, timeout=300
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert to.read_text(encoding="utf-8").startswith("sample_id,")


def test_a_bug_is_no_refusal() -> None:
    assert refusal(KeyError("allocate")) is None and refusal(ValueError("x")) is None
    assert refusal(FileNotFoundError(2, "No such file or directory", "x")) is None
    wrapped = RuntimeError("x")
    wrapped.__cause__ = MemoryError()
    assert "not enough memory" in (refusal(wrapped) or "")
    assert "not enough memory" in (refusal(ImportError("libx.so: failed to map segment from shared object")) or "")
    assert "threads" in (refusal(RuntimeError("can't start new thread")) or "")
