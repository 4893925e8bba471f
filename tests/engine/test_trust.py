"""What this user trusts in a workspace: kept outside of it, brought along by no copy; and what is read only with it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from engine.cli.commands import app
from engine.data.dataset_file import reading
from engine.data.ingest import ingest
from engine.data.originals import Originals
from engine.data.outcome import describe
from engine.data.request import IngestSpec
from engine.data.sources import base_of
from engine.errors import BadSampleError, NotFoundError, SpecError, WinnowError
from engine.features.stored import is_stored
from engine.queries.connection import fetch_fingerprint
from engine.runs.detectors import load_detector
from engine.runs.named_files import as_stored, trust_files
from engine.spec import RunSpec
from engine.store import trust
from engine.store.trust import Roots, TrustedModel, fetch_trust, trust_file, trust_model, trust_roots
from engine.store.workspace import Workspace


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of the test's own, and a process in which nothing was named yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(trust, "_named", {})
    return tmp_path / "config" / "winnow" / "trust.json"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", create=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images of 80 x 80 pixels in two classes."""
    rng = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later process: what was named in this one is known from the file alone."""
    monkeypatch.setattr(trust, "_named", {})


def table(path: Path, places: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((place, "ab"[i % 2]) for i, place in enumerate(places))])
    return path


def seen(workspace: Workspace, dataset: str = "d") -> list[tuple[bool, bool]]:
    """Of each sample, whether its stored input stands in, and whether that is because it may not be read."""
    originals = Originals(workspace, dataset, 64)
    return [(s.stands_in, s.outside) for s in originals.read(range(len(originals)), lambda: None)]


READ, GONE, REFUSED = (False, False), (True, False), (True, True)


# Whose trust it is ---------------------------------------------------------------------------------------------------


def test_what_is_trusted_is_of_one_workspace_and_goes_with_it_alone(workspace, photos, tmp_path, monkeypatch):
    assert fetch_trust(workspace) == trust.Trust()
    assert trust_roots(workspace, [photos]) == ""
    trust_model(workspace, "nets:make", TrustedModel("ab" * 32, str(tmp_path)))
    forget(monkeypatch)
    kept = fetch_trust(workspace)
    assert kept.roots.paths == (photos,) and kept.models == {"nets:make": TrustedModel("ab" * 32, str(tmp_path))}
    assert trust_file().stat().st_mode & 0o777 == 0o600

    shutil.copytree(workspace.root, tmp_path / "copy")
    assert fetch_trust(Workspace.open(tmp_path / "copy")) == trust.Trust()
    workspace.root.rename(tmp_path / "moved")
    assert fetch_trust(Workspace(tmp_path / "moved")) == kept
    (tmp_path / "copy").rename(workspace.root)  # another one in its place
    assert fetch_trust(workspace) == trust.Trust()
    shutil.copy2(tmp_path / "moved" / "winnow.json", workspace.root / "winnow.json")  # with its times
    assert fetch_trust(workspace) == trust.Trust()
    (workspace.root / "winnow.json").unlink()
    (workspace.root / "winnow.json").symlink_to(tmp_path / "moved" / "winnow.json")
    assert fetch_trust(workspace) == trust.Trust()
    (workspace.root / "winnow.json").unlink()
    os.link(tmp_path / "moved" / "winnow.json", workspace.root / "winnow.json")
    assert fetch_trust(workspace) == trust.Trust()


BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "of a newer version": '{"version": 2, "workspaces": {}}',
    "a number for entries": '{"version": 1, "workspaces": 5}',
    "a relative root": '{"version": 1, "workspaces": {"x": {"roots": ["."]}}}',
    "a root that is no text": '{"version": 1, "workspaces": {"x": {"roots": [5]}}}',
    "a model without a hash": '{"version": 1, "workspaces": {"x": {"models": {"a:b": {"folder": "/"}}}}}',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_trusts_nothing_and_stops_no_ingest(workspace, photos, settings, text, monkeypatch):
    settings.parent.mkdir(parents=True)
    settings.write_text(text)
    settings.chmod(0o600)
    kept = fetch_trust(workspace)
    assert (kept.roots, kept.models) == (Roots(), {})
    assert kept.problem.startswith(str(settings)) and kept.problem.endswith("until then nothing is trusted")
    done = ingest(workspace, IngestSpec("d", str(photos)))
    assert done.train + done.test == 6
    (note,) = [note for note in done.notes if "--originals" in note]
    assert note.endswith(f"later commands that read the originals need --originals {photos}") and "\n" not in note
    assert settings.read_text() == text  # it is not ours to overwrite
    assert set(seen(workspace)) == {READ}  # in this process they were named
    forget(monkeypatch)
    assert set(seen(workspace)) == {REFUSED}


def test_a_file_that_others_can_write_a_pipe_and_no_home_trust_nothing(
    workspace, photos, settings, monkeypatch, tmp_path
):
    trust_roots(workspace, [photos])
    forget(monkeypatch)
    settings.chmod(0o622)
    assert "can be written by others" in fetch_trust(workspace).problem
    settings.unlink()
    os.mkfifo(settings, 0o600)
    assert "is not a regular file" in fetch_trust(workspace).problem
    settings.unlink()
    shutil.rmtree(tmp_path / "config")
    (tmp_path / "config").write_text("a file where the folder should be")
    assert fetch_trust(workspace) == trust.Trust()
    assert "--originals" in trust_roots(workspace, [photos])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust.platformdirs, "user_config_path", lambda *_, **__: Path("relative"))
    assert "set HOME" in fetch_trust(workspace).problem


def test_roots_are_compared_after_links_and_whole_names(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    (tmp_path / "a" / "out").symlink_to(tmp_path / "ab")
    (tmp_path / "in").symlink_to(tmp_path / "a")
    (tmp_path / "ab" / "file").touch()
    roots = Roots((tmp_path / "in",))
    assert (
        roots.cover(tmp_path / "a" / "deep" / "x.png") and roots.cover(tmp_path / "in") and roots.cover(tmp_path / "a")
    )
    for other in ("ab/file", "a/out/file", "a/../ab/file", "in/out/file", "."):
        assert not roots.cover(tmp_path / other), other
    assert not Roots().cover(tmp_path) and Roots((Path("/"),)).cover(tmp_path)
    assert Roots((tmp_path / "ab" / "file",)).cover(tmp_path / "a" / "out" / "file")


# What a source may name ----------------------------------------------------------------------------------------------


def test_a_table_names_images_below_its_folder_or_those_that_are_named(workspace, photos, tmp_path):
    inside = [f"{'ab'[i % 2]}/{i}.png" for i in range(4)]
    listed = table(photos / "lists" / "x.csv", [f"../{place}" for place in inside])
    # the folder that holds all of them, not that of the first
    refusal = rf"a/0\.png: it lies in {photos / 'a'}, outside of what was named \(--originals {photos} reads it\)"
    with pytest.raises(BadSampleError, match=refusal):
        ingest(workspace, IngestSpec("d", str(listed)))
    assert workspace.datasets() == [] and not trust_file().exists()
    mixed = table(photos / "y.csv", [*inside, str(tmp_path / "photos" / "a" / "4.png"), "../other/5.png"])
    (tmp_path / "other").mkdir()
    shutil.copy(photos / "b" / "5.png", tmp_path / "other")
    done = ingest(workspace, IngestSpec("some", str(mixed), skip_bad=True))
    assert (done.train + done.test, done.skipped) == (5, 1) and "outside of what was named" in done.ignored[0][0]

    with pytest.raises(SpecError, match="--originals is .*nowhere; allowed: an existing folder"):
        ingest(workspace, IngestSpec("e", str(listed), originals=str(tmp_path / "nowhere")))
    both = os.pathsep.join([str(photos), str(tmp_path / "other")])
    fresh = Workspace.open(tmp_path / "fresh", create=True)
    assert ingest(fresh, IngestSpec("d", str(listed), originals=both)).existed is False
    assert ingest(fresh, IngestSpec("d", str(listed))).existed  # it says what may be read, not what is made
    assert ingest(fresh, IngestSpec("e", str(mixed))).skipped == 0  # what was named once in a workspace stays
    assert set(fetch_trust(fresh).roots.paths) == {photos / "lists", photos, tmp_path / "other"}


def test_parquet_paths_and_rows_of_other_files_follow_the_same_rule(workspace, photos, tmp_path):
    (tmp_path / "data").mkdir()
    for name, value in (("relative", "../photos/a/0.png"), ("absolute", str(photos / "a" / "0.png"))):
        images = [{"bytes": None, "path": value}] * 4
        pq.write_table(pa.table({"image": images, "label": ["a", "b"] * 2}), tmp_path / "data" / f"{name}.parquet")
        with pytest.raises(BadSampleError, match="outside of what was named"):
            ingest(workspace, IngestSpec(name, str(tmp_path / "data" / f"{name}.parquet")))
    data = [{"bytes": (photos / "ab"[i % 2] / f"{i}.png").read_bytes(), "path": None} for i in range(4)]
    pq.write_table(pa.table({"image": data, "label": ["a", "b"] * 2}), photos / "rows.parquet")
    rows = table(tmp_path / "data" / "rows.csv", [f"{photos / 'rows.parquet'}:{i}" for i in range(4)])
    with pytest.raises(BadSampleError, match="outside of what was named"):
        ingest(workspace, IngestSpec("rows", str(rows)))
    assert ingest(workspace, IngestSpec("rows", str(rows), test_fraction=0, originals=str(photos))).train == 4


def test_links_out_of_a_folder_are_followed_for_classes_alone(workspace, photos, tmp_path):
    pool, source = tmp_path / "pool", tmp_path / "source"
    shutil.copytree(photos / "a", pool / "deep")
    shutil.copytree(photos / "b", source / "b")
    (source / "a").symlink_to(photos / "a")  # a class
    (source / "b" / "more").mkdir()
    (source / "b" / "more" / "all").symlink_to(pool)  # below one
    done = ingest(workspace, IngestSpec("d", str(source), test_fraction=0))
    lines = describe(done, "1 s")
    assert (
        done.train == 6
        and f"one of its folders is a link that leads elsewhere ({source / 'a'} -> {photos / 'a'})" in lines[0]
    )
    assert "1 x a link that leads outside (--originals FOLDER reads it)" in lines[1]
    assert set(seen(workspace)) == {READ}  # where the class leads was named with it

    (source / "b" / "one.png").symlink_to(pool / "deep" / "0.png")  # a file
    with pytest.raises(BadSampleError, match=rf"b/one\.png: it lies in {pool / 'deep'}, outside"):
        ingest(workspace, IngestSpec("e", str(source), test_fraction=0))
    assert ingest(workspace, IngestSpec("e", str(source), test_fraction=0, originals=str(pool))).train == 10


# Originals of a workspace that somebody else made --------------------------------------------------------------------


def test_a_copied_workspace_reads_originals_only_where_they_are_named(workspace, photos, tmp_path, monkeypatch):
    ingest(workspace, IngestSpec("d", str(photos), test_fraction=0))
    forget(monkeypatch)
    assert set(seen(workspace)) == {READ}
    shutil.copytree(workspace.root, tmp_path / "copy")
    copy = Workspace.open(tmp_path / "copy")
    assert seen(copy) == [REFUSED] * 6
    trust_roots(copy, [photos / "a"])
    assert sorted(seen(copy)) == [READ] * 3 + [REFUSED] * 3
    photos.rename(tmp_path / "elsewhere")  # the folder was moved, or is another one on this machine
    assert set(seen(workspace)) == {GONE}
    trust_roots(copy, [tmp_path / "elsewhere"])
    assert seen(copy) == [READ] * 6
    assert ingest(workspace, IngestSpec("d", str(photos), test_fraction=0)).existed


def rewrite(workspace: Workspace, sql: str, *values: object) -> None:
    with duckdb.connect(str(workspace.dataset_path("d"))) as connection:
        connection.execute(sql, list(values))


def test_a_dataset_names_no_file_outside_of_what_was_ingested(workspace, photos, tmp_path, monkeypatch):
    ingest(workspace, IngestSpec("d", str(photos), test_fraction=0))
    shutil.copytree(photos, tmp_path / "private")
    opened: list[str] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file, **given: opened.append(str(file)) or real(file, **given))
    secret = tmp_path / "private" / "a" / "0.png"
    (photos / "a" / "way.png").symlink_to(secret)
    for place in (
        secret,
        f"{photos}/../private/a/0.png",
        photos / "a" / "way.png",
        f"{secret}:0",
        "/proc/self/environ",
    ):
        rewrite(workspace, "UPDATE samples SET source = ? WHERE sample_id = 0", str(place))
        assert seen(workspace)[0] == REFUSED, place
    for place in ("../../../etc/passwd", "", "gone:7"):
        rewrite(workspace, "UPDATE samples SET source = ? WHERE sample_id = 0", place)
        assert seen(workspace)[0][0], place
    assert not any("private" in name or "way" in name for name in opened)


SOURCES = (
    {"source": "/**/*.parquet"},  # which would walk the whole disk
    {"source": "torchvision:CIFAR10:{private}"},  # whose files are pickles
    {"source": "{private}"},
    {"source": "{photos}", "test": "{private}"},
    {"source": 5},
    {"source": None, "test": ["x"]},
    {"source": "/dev/stdin"},
    {"source": "dataset:d"},
)


@pytest.mark.parametrize("spec", SOURCES, ids=str)
def test_a_datasets_source_is_opened_only_where_it_is_trusted(workspace, photos, tmp_path, spec, monkeypatch):
    ingest(workspace, IngestSpec("d", str(photos), test_fraction=0))
    private = tmp_path / "private"
    shutil.copytree(photos, private)
    texts = {k: v.format(private=private, photos=photos) if isinstance(v, str) else v for k, v in spec.items()}
    rewrite(workspace, "UPDATE dataset SET spec = ?", json.dumps(texts))
    rewrite(workspace, "UPDATE samples SET source = 'x:' || sample_id")
    touched: list[str] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": touched.append(str(path)) or real(path))
    assert all(stands_in for stands_in, _ in seen(workspace))
    assert not any(str(path).startswith((str(private), "/usr", "/etc")) or path == "/" for path in touched)


def test_a_dataset_that_is_its_own_parent_ends(workspace, photos):
    ingest(workspace, IngestSpec("d", str(photos), test_fraction=0))
    rewrite(workspace, "UPDATE dataset SET parent = 'd'")
    rewrite(workspace, "UPDATE samples SET source = 'x.png'")
    assert all(stands_in for stands_in, _ in seen(workspace))


def test_where_a_source_begins_is_known_without_looking_at_it():
    assert base_of("digits") is None and base_of("synthetic") is None and base_of("dataset:x") is None
    assert base_of("torchvision:MNIST:/data/sets") == Path("/data/sets")
    assert base_of("/data/x.csv") == Path("/data/x.csv") and base_of("/data/**/a?/*.parquet") == Path("/data")


# Files that a run names ----------------------------------------------------------------------------------------------


def test_a_stored_run_opens_only_files_that_its_user_named(workspace, photos, tmp_path, monkeypatch):
    ingest(workspace, IngestSpec("d", str(photos), test_fraction=0))
    fingerprint = fetch_fingerprint(workspace, "d")
    files = {name: tmp_path / "private" / f"{name}.npy" for name in ("features", "probs", "cscores")}
    weights = {"features": f"torchvision:resnet18:{tmp_path / 'private' / 'weights.pth'}"}
    for options in ({"features": str(files["features"])}, {"probs": str(files["probs"])}, weights):
        spec = RunSpec(
            "d",
            fingerprint,
            ("el2n",),
            None,
            embedding="none",
            neighbors=0,
            download=True,
            features_hash=f"file@{'0' * 12}",
            **options,
        )
        (option,) = options
        with pytest.raises(
            SpecError, match=rf"\(--{option}\), and you have not named it in this workspace: it was not opened"
        ):
            as_stored(workspace, spec)
        trust_files(workspace, spec)  # as `winnow run` does
        forget(monkeypatch)
        assert as_stored(workspace, spec).download is False
    below = RunSpec("d", fingerprint, ("el2n",), None, embedding="none", neighbors=0, probs=str(photos / "probs.npy"))
    assert as_stored(workspace, below) == below


def test_names_in_a_spec_lead_to_no_file_elsewhere(workspace, photos, tmp_path):
    ingest(workspace, IngestSpec("d", str(photos), test_fraction=0))
    (workspace.root / "detectors").mkdir()
    (tmp_path / "outside.safetensors").write_bytes(b"x")
    with pytest.raises(NotFoundError, match="unknown detector"):
        load_detector(workspace, "../../outside")
    for run in ("../../outside", "..", ".", "/tmp", "a/b", ""):
        with pytest.raises(NotFoundError, match="unknown run"):
            workspace.read_spec(run)
    for key in ("../../outside@0123456789ab/..", "/tmp/x", "file@0123456789ab/../..", ""):
        with pytest.raises(SpecError, match="there are no features of the key"):
            is_stored(workspace, "d", key)


# The command line ----------------------------------------------------------------------------------------------------


def test_own_ingest_and_run_need_no_option_and_a_copy_says_what_to_do(photos, tmp_path, monkeypatch):
    def winnow(workspace: Path, *words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--workspace", str(workspace)])
        if done.exception and not isinstance(done.exception, SystemExit):
            assert isinstance(done.exception, WinnowError), done.exception
            return f"winnow: {done.exception}"
        return done.output + (done.stderr if done.stderr_bytes else "")

    run = ("run", "d", "--features", "efficientnet_lite0:32", "--scores", "outlier", "--neighbors", "2")
    own = tmp_path / "own"
    winnow(own, "ingest", "d", "--from", str(photos), "--test-fraction", "0")
    forget(monkeypatch)
    shutil.copytree(own, tmp_path / "copy")
    assert "published" in (text := winnow(own, *run)) and "originals" not in text
    text = winnow(tmp_path / "copy", *run)
    assert "the originals of 6 of 6 images, such as" in text and "--originals FOLDER" in text
    (workspace := Workspace.open(tmp_path / "copy")).remove_run(workspace.run_ids()[0])
    text = winnow(tmp_path / "copy", *run, "--originals", str(photos))
    assert "published" in text and "the originals" not in text  # they were computed again
    with reading(workspace.dataset_path("d")) as connection:
        assert connection.execute("SELECT count(*) FROM samples").fetchone() == (6,)
