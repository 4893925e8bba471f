"""Manifests: sizes at every opening, hashes once and by `winnow verify`, and what is remembered of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
import tampered
from forked_command import winnow
from given_verdicts import list_again
from tampered import DATASET, RUN

from engine.data.verifying import verify
from engine.errors import NotFoundError, StorageError
from engine.queries.connection import connected
from engine.store import verified
from engine.store.tensors import load_tensors, save_tensors
from engine.store.verified import check_sizes, checked_file, is_known, read_manifest
from engine.store.workspace import Workspace


@pytest.fixture
def root(old_workspace: Path, tmp_path: Path) -> Path:
    return shutil.copytree(old_workspace, tmp_path / "sent" / "w")


def unreadable(root: Path) -> dict[str, str]:
    with connected(Workspace.open(root), DATASET) as connection:
        return dict(connection.execute("FROM unreadable").fetchall())


def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own, and nothing known in this process. Returns where the cache is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verified, "_of_process", set())
    return tmp_path / "cache" / "winnow" / "verified.txt"


def test_a_file_is_hashed_once_and_again_when_it_is_touched(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = forget(monkeypatch, tmp_path)
    read: list[Path] = []
    hashing = verified.check_hash
    monkeypatch.setattr("engine.store.values.check_hash", lambda path, about: (read.append(path), hashing(path, about)))
    assert unreadable(root) == {} and len(read) == 5
    lines = cache.read_text().split()
    assert len(lines) == 5 and all(len(line) == 64 for line in lines)
    assert unreadable(root) == {} and len(read) == 5
    monkeypatch.setattr(verified, "_of_process", set())  # as another process
    assert unreadable(root) == {} and len(read) == 5
    tampered.results(root).touch()
    assert unreadable(root) == {} and len(read) == 6
    shutil.copytree(root, tmp_path / "copy")
    assert unreadable(tmp_path / "copy") == {} and len(read) == 11


def test_a_cache_that_cannot_be_written_is_done_without(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(monkeypatch, tmp_path)
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert unreadable(root) == {}
    path = tampered.results(root)
    assert is_known(path, read_manifest(path.parent)[path.name].sha256)
    tampered.in_results("UPDATE scores SET value = 0", lists=False)(root)
    assert RUN in unreadable(root)


def test_what_this_user_computed_is_known_at_once(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w", create=True)
    workspace.start_run("abc", {})
    with workspace.building_run("abc") as folder:
        (folder / "weights.safetensors").write_bytes(b"x" * 100)
    folder = workspace.published_dir("abc")
    assert is_known(folder / "weights.safetensors", read_manifest(folder)["weights.safetensors"].sha256)


def test_verify_names_every_file_that_is_not_what_was_published(root: Path) -> None:
    workspace = Workspace.open(root)
    whole = verify(workspace)
    assert [row.problem for row in whole] == [""] * 8 and {row.kind for row in whole} == {"dataset", "run"}
    folder = workspace.published_dir(RUN)
    for name in ("weights.safetensors", "features.safetensors"):
        tampered.flip(folder / name)
    (folder / "weights-epoch1.safetensors").unlink()
    (folder / "more.txt").write_text("x")
    with duckdb.connect(str(workspace.dataset_path("digits"))) as connection:
        connection.execute("UPDATE samples SET label = 1 - label WHERE label < 2")
    problems = sorted(row.problem for row in verify(workspace) if row.problem)
    printed = ["digits.duckdb is not the dataset", "features.safetensors is not the file", "more.txt is not in its manifest",
            "weights-epoch1.safetensors is missing", "weights.safetensors is not the file"]  # fmt: skip
    assert len(problems) == len(printed)
    assert all(any(text in problem for problem in problems) for text in printed)
    assert verify(workspace, "noisy")[0] == whole[1] and [row.name for row in verify(workspace, RUN[:5])] == [RUN] * 4
    with pytest.raises(NotFoundError, match="neither a dataset nor a run"):
        verify(workspace, "nothing")


def test_verify_finds_pixels_and_keys_that_were_changed(root: Path) -> None:
    workspace = Workspace.open(root)
    path = workspace.dataset_path("digits")
    with duckdb.connect(str(path)) as connection:
        (data,) = connection.execute("SELECT data FROM inputs WHERE first_id = 0").fetchone()
        changed = bytes([data[0] ^ 1]) + data[1:]
        connection.execute("UPDATE inputs SET data = ? WHERE first_id = 0", [changed])
    (row,) = [row for row in verify(workspace, "digits") if row.kind == "dataset"]
    assert "is not the dataset that was ingested" in row.problem


def test_the_command_ends_with_2_and_a_line_for_each_damaged_file(root: Path) -> None:
    tampered.flip(tampered.results(root))
    done = winnow("verify", "--json", workspace=root)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "results.duckdb is not the file that was published" in line
    rows = json.loads(done.stdout)["verified"]
    assert [row["name"] for row in rows if row["problem"]] == [RUN]


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"files": []}', '{"files": {"../x": {"bytes": 1, "sha256": "00"}}}', '{"files": {"x": {"bytes": "1"}}}',
     '{"files": {"x": 7}}', '{"format": 99, "files": {}}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(StorageError) as error:
        read_manifest(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_sizes_are_checked_at_every_opening(root: Path) -> None:
    folder = tampered.results(root).parent
    check_sizes(folder, read_manifest(folder))
    with open(folder / "weights.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(StorageError, match="weights.safetensors has .* in its manifest; it is damaged"):
        check_sizes(folder, read_manifest(folder))
    assert RUN in unreadable(root)


def test_weights_are_hashed_before_they_are_loaded(root: Path) -> None:
    folder = tampered.results(root).parent
    assert checked_file(folder, "weights.safetensors").is_file()
    tampered.flip(folder / "weights.safetensors")
    with pytest.raises(StorageError, match="is not the file that was published"):
        checked_file(folder, "weights.safetensors")
    with pytest.raises(StorageError, match="more.safetensors is missing"):
        checked_file(folder, "more.safetensors")


def lying(header: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + bytes(16)


LIES = {
    "header longer than the file": lying(b"{}", 1 << 40),
    "header longer than memory": lying(b"{}", (1 << 64) - 1),
    "no header": b"",
    "half a length": b"\1\2",
    "deep": lying(b"[" * 100_000),
    "offsets beyond the file": lying(b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'),
    "offsets back to front": lying(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}'),
    "another shape": lying(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,16]}}'),
    "a type of no array": lying(b'{"__metadata__":{"meta":"{}"},"a":{"dtype":"BF16","shape":[8],"data_offsets":[0,16]}}'),
    "meta deep": lying(b'{"__metadata__":{"meta":"' + b"[" * 50_000 + b'"},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "no meta": lying(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_a_safetensors_header_that_lies_is_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": np.zeros(4, np.float32)}, {})
    assert load_tensors(path) is not None
    path.write_bytes(LIES[case])
    with pytest.raises(StorageError, match="is damaged; remove it and run again") as error:
        load_tensors(path)
    assert "\n" not in str(error.value)


def test_a_manifest_that_is_written_anew_is_believed_and_its_values_are_checked(root: Path) -> None:
    tampered.in_results("UPDATE suggestions SET suggested_label = 9999")(root)
    list_again(tampered.results(root).parent)
    assert "'suggestions' has values that cannot be" in unreadable(root)[RUN]
