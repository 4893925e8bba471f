"""Ingest: what is written, that it is the same for the same seed, and that nothing is left behind by an error."""

import dataclasses
import io
import json
import subprocess
import sys
import zlib

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import BadSampleError, BusyError, NotFoundError, SourceError, SpecError, StorageError
from engine.queries.connection import connected
from engine.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace", create=True)


@pytest.fixture
def folder(tmp_path):
    """20 images 7 x 5 of two classes, each of one color: 0 .. 19 of class i // 10."""
    root = tmp_path / "images"
    for i in range(20):
        path = root / "ab"[i // 10] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (7, 5), (i, 2 * i, 3 * i)).save(path)
    return root


def fetch(workspace, name, sql):
    with duckdb.connect(str(workspace.dataset_path(name)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def inputs_of(workspace, name):
    shape, dtype = fetch(workspace, name, "SELECT input_shape, input_dtype FROM dataset")[0]
    blocks = fetch(workspace, name, "SELECT data FROM inputs ORDER BY first_id")
    return np.frombuffer(b"".join(b for (b,) in blocks), dtype).reshape(-1, *shape)


def column(workspace, name, what, split="train"):
    sql = f"SELECT {what} FROM samples WHERE split = '{split}' ORDER BY sample_id"
    return [row[0] for row in fetch(workspace, name, sql)]


def left_behind(workspace):
    """Everything in datasets/ but the lock files, which hold nothing."""
    return sorted(p.name for p in (workspace.root / "datasets").iterdir() if not p.name.endswith(".lock"))


def refused(workspace, spec, error=SourceError):
    with pytest.raises(error) as caught:
        ingest(workspace, spec)
    assert "\n" not in str(caught.value)
    assert left_behind(workspace) == []
    return str(caught.value)


# What is written -------------------------------------------------------------------------------------------


def test_folder_end_to_end(workspace, folder):
    result = ingest(workspace, IngestSpec("d", str(folder), test_fraction=0.2))
    assert (result.train, result.test, result.classes, result.skipped) == (16, 4, 2, 0)
    assert result.noise_rate is None and not result.existed and result.seconds > 0
    assert fetch(workspace, "d", "SELECT input_shape, input_dtype, bytes, noise, source FROM dataset") == [
        ([3, 5, 7], "uint8", 20 * 105, None, str(folder))
    ]
    assert fetch(workspace, "d", "SELECT * FROM classes ORDER BY label") == [(0, "a"), (1, "b")]
    assert [r[0] for r in fetch(workspace, "d", "SELECT sample_id FROM samples ORDER BY 1")] == list(range(20))
    assert column(workspace, "d", "sample_id") == list(range(16))
    assert set(column(workspace, "d", "true_label")) == {None}
    inputs, labels = (
        inputs_of(workspace, "d"),
        column(workspace, "d", "label") + column(workspace, "d", "label", "test"),
    )
    sources = column(workspace, "d", "source") + column(workspace, "d", "source", "test")
    assert sorted(column(workspace, "d", "label", "test")) == [0, 0, 1, 1]
    for pixels, label, source in zip(inputs, labels, sources, strict=True):
        i = int(source[-6:-4])
        assert label == i // 10 and source == str(folder / "ab"[i // 10] / f"{i:02}.png")
        assert (pixels == np.array([i, 2 * i, 3 * i], np.uint8)[:, None, None]).all()
    for sample_id, blob in fetch(workspace, "d", "SELECT * FROM thumbnails"):
        thumbnail = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
        np.testing.assert_array_equal(thumbnail.transpose(2, 0, 1), inputs[sample_id])
    assert left_behind(workspace) == ["d.duckdb"]


def test_blocks_hold_one_split_each_and_follow_each_other(workspace):
    ingest(workspace, IngestSpec("s", "synthetic"))
    blocks = fetch(workspace, "s", "SELECT first_id, n, octet_length(data) FROM inputs ORDER BY first_id")
    ends = [first + n for first, n, _ in blocks]
    assert [first for first, _, _ in blocks] == [0, *ends[:-1]] and ends[-1] == 15_000 and 10_000 in ends
    assert all(size == n * 400 for _, n, size in blocks)


def test_large_images_of_several_sizes_become_64_and_gray_stays_grey(workspace, tmp_path):
    for i, size in enumerate([(90, 60), (60, 90), (100, 100)]):
        for label in "ab":
            path = tmp_path / "gray" / label / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", size, 40 * i).save(path)
    ingest(workspace, IngestSpec("g", str(tmp_path / "gray"), test_fraction=0))
    inputs = inputs_of(workspace, "g")
    assert inputs.shape == (6, 1, 64, 64) and [int(x.mean().round()) for x in inputs] == [0, 40, 80] * 2
    assert Image.open(io.BytesIO(fetch(workspace, "g", "SELECT thumbnail FROM thumbnails")[0][0])).size == (90, 60)
    Image.new("RGB", (8, 8)).save(tmp_path / "gray" / "a" / "color.png")
    ingest(workspace, IngestSpec("c", str(tmp_path / "gray"), test_fraction=0, image_size=20))
    assert inputs_of(workspace, "c").shape == (7, 3, 20, 20)


def test_limit_keeps_every_class_its_share_and_the_test_split_too(workspace):
    ingest(workspace, IngestSpec("d", "digits", limit=200))
    counts = np.bincount(column(workspace, "d", "label"))
    assert counts.sum() == 200 and counts.min() >= 19 and counts.max() <= 21
    assert len(column(workspace, "d", "label", "test")) == round(359 * 200 / 1438)


def test_same_seed_same_fingerprint_another_seed_another(workspace):
    spec = IngestSpec("a", "digits", noise="symmetric:0.2", limit=300, seed=5)
    first = ingest(workspace, spec)
    same = ingest(workspace, dataclasses.replace(spec, name="b"))
    other = ingest(workspace, dataclasses.replace(spec, name="c", seed=6))
    assert first.fingerprint == same.fingerprint != other.fingerprint and len(first.fingerprint) == 64


def test_progress_is_reported_to_the_end(workspace):
    calls = []
    ingest(workspace, IngestSpec("d", "digits"), lambda *call: calls.append(call))
    images = [done for stage, done, total in calls if stage == "images" and total == 1797]
    assert images == sorted(images) and images[-1] == 1797


def test_no_torch(tmp_path):
    code = "import sys, engine.data.ingest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Noise and labels ------------------------------------------------------------------------------------------


def test_noise_on_the_training_split_alone_with_the_truth_kept(workspace):
    result = ingest(workspace, IngestSpec("d", "digits", noise="symmetric:0.3"))
    labels, truth = (np.array(column(workspace, "d", c)) for c in ("label", "true_label"))
    assert (labels != truth).sum() == round(0.3 * 1438) and result.noise_rate == (labels != truth).mean()
    assert column(workspace, "d", "label", "test") == column(workspace, "d", "true_label", "test")
    assert fetch(workspace, "d", "SELECT noise, noise_rate FROM dataset") == [("symmetric:0.3", result.noise_rate)]
    ingest(workspace, IngestSpec("clean", "digits"))
    assert column(workspace, "clean", "label") == truth.tolist()


def label_file(folder, values, name="human"):
    path = folder.parent / "human.parquet"
    pq.write_table(pa.table({name: values}), path)
    return f"{path}:{name}"


@pytest.mark.parametrize("as_names", [True, False])
def test_labels_from_a_column_keep_the_old_ones_as_true(workspace, folder, as_names):
    new = [(i // 10) ^ (i % 10 == 3) for i in range(20)]
    labels = label_file(folder, ["ab"[v] for v in new] if as_names else [int(v) for v in new])
    ingest(workspace, IngestSpec("d", str(folder), labels=labels, limit=10, seed=1))
    for label, truth, source in zip(
        *(column(workspace, "d", c) for c in ("label", "true_label", "source")), strict=True
    ):
        i = int(source[-6:-4])
        assert (label, truth) == (new[i], i // 10)
    assert fetch(workspace, "d", "SELECT noise FROM dataset") == [("column:human",)]
    for label, source in zip(*(column(workspace, "d", c, "test") for c in ("label", "source")), strict=True):
        assert label == int(source[-6:-4]) // 10


def test_labels_from_a_csv_dropping_the_old_ones(workspace, folder):
    (folder.parent / "new.csv").write_text("human\n" + "b\n" * 10 + "a\n" * 10)
    spec = IngestSpec(
        "d", str(folder), labels=f"{folder.parent / 'new.csv'}:human", true_labels="drop", test_fraction=0
    )
    assert ingest(workspace, spec).noise_rate is None
    assert column(workspace, "d", "label") == [1] * 10 + [0] * 10
    assert set(column(workspace, "d", "true_label")) == {None}


def test_labels_and_noise_twice_contaminate(workspace, folder):
    labels = label_file(folder, [1 - i // 10 if i == 0 else i // 10 for i in range(20)])
    ingest(workspace, IngestSpec("d", str(folder), labels=labels, noise="asymmetric:0.5", test_fraction=0))
    given, truth = (np.array(column(workspace, "d", c)) for c in ("label", "true_label"))
    assert truth.tolist() == [0] * 10 + [1] * 10
    first = truth.copy()
    first[0] = 1
    assert (given != first).sum() == 10
    assert fetch(workspace, "d", "SELECT noise FROM dataset") == [("column:human+asymmetric:0.5",)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a"] * 19, "has 19 labels; the source has 20 training samples"),
        (["a"] * 19 + ["z"], "row 19: label 'z' is none of the classes (a, b)"),
        ([0] * 19 + [2], "row 19: label '2' is none of the classes"),
        (["a"] * 19 + [None], "row 19: label 'None' is none of the classes"),
    ],
)
def test_label_columns_that_do_not_fit(workspace, folder, values, expected):
    assert expected in refused(workspace, IngestSpec("d", str(folder), labels=label_file(folder, values)))


def test_label_files_that_are_not_there(workspace, folder):
    labels = label_file(folder, ["a"] * 20)
    assert "unknown column 'humans'; did you mean 'human'?" in refused(
        workspace, IngestSpec("d", str(folder), labels=labels + "s")
    )
    gone = folder.parent / "gone.csv"
    assert f"there is no {gone}" in refused(workspace, IngestSpec("d", str(folder), labels=f"{gone}:x"))


# Deriving --------------------------------------------------------------------------------------------------


def test_derived_keeps_ids_and_images_and_records_its_parent(workspace):
    parent = ingest(workspace, IngestSpec("digits", "digits", limit=300))
    derived = ingest(workspace, IngestSpec("noisy", "dataset:digits", noise="symmetric:0.2", seed=3))
    for table in ("inputs", "thumbnails"):
        sql = f"SELECT * FROM {table} ORDER BY 1"
        assert fetch(workspace, "digits", sql) == fetch(workspace, "noisy", sql)
    for what in ("sample_id", "source"):
        assert column(workspace, "digits", what) == column(workspace, "noisy", what)
    assert column(workspace, "noisy", "true_label") == column(workspace, "digits", "label")
    changed = np.array(column(workspace, "noisy", "label")) != column(workspace, "digits", "label")
    assert changed.sum() == 60 and derived.noise_rate == 0.2
    assert column(workspace, "noisy", "label", "test") == column(workspace, "digits", "label", "test")
    assert fetch(workspace, "noisy", "SELECT parent, parent_fingerprint FROM dataset") == [
        ("digits", parent.fingerprint)
    ]
    direct = ingest(workspace, IngestSpec("direct", "digits", limit=300, noise="symmetric:0.2"))
    assert direct.fingerprint != derived.fingerprint  # another seed
    same = ingest(workspace, IngestSpec("same", "dataset:digits", noise="symmetric:0.2"))
    assert direct.fingerprint == same.fingerprint  # the same content, made in two ways


def test_deriving_from_a_derived_keeps_the_first_truth(workspace):
    ingest(workspace, IngestSpec("a", "digits", limit=300))
    ingest(workspace, IngestSpec("b", "dataset:a", noise="asymmetric:0.2"))
    ingest(workspace, IngestSpec("c", "dataset:b", noise="symmetric:0.2", seed=1))
    assert column(workspace, "c", "true_label") == column(workspace, "a", "label")
    changed = np.array(column(workspace, "c", "label")) != column(workspace, "b", "label")
    assert changed.sum() == 60
    assert fetch(workspace, "c", "SELECT noise FROM dataset") == [("asymmetric:0.2+symmetric:0.2",)]


def test_derived_with_a_label_column(workspace, folder):
    ingest(workspace, IngestSpec("a", str(folder), test_fraction=0))
    ingest(workspace, IngestSpec("b", "dataset:a", labels=label_file(folder, ["b"] * 20)))
    assert column(workspace, "b", "label") == [1] * 20
    assert column(workspace, "b", "true_label") == [0] * 10 + [1] * 10


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"limit": 5}, "--limit"), ({"test_fraction": 0.1}, "--test-fraction"), ({"test": "digits"}, "--test"),
     ({"skip_bad": True}, "--skip-bad"), ({"image_size": 8}, "--image-size")],
)  # fmt: skip
def test_what_cannot_go_with_deriving(options, flag):
    with pytest.raises(SpecError, match=f"^{flag} cannot go with dataset:a"):
        IngestSpec("b", "dataset:a", noise="symmetric:0.1", **options)


def test_deriving_from_nothing_or_without_a_change(workspace):
    with pytest.raises(SpecError, match="add --noise or --labels"):
        IngestSpec("b", "dataset:a")
    assert "unknown dataset 'a'" in refused(
        workspace, IngestSpec("b", "dataset:a", noise="symmetric:0.1"), NotFoundError
    )


# A name that is taken --------------------------------------------------------------------------------------


def test_the_same_spec_is_found_and_another_is_refused(workspace):
    spec = IngestSpec("d", "digits", limit=100)
    first, second = ingest(workspace, spec), ingest(workspace, spec)
    assert second.existed and (second.fingerprint, second.train, second.test) == (first.fingerprint, 100, first.test)
    with pytest.raises(SpecError, match=r"dataset 'd' exists, made with limit 100, not 50; choose another name"):
        ingest(workspace, dataclasses.replace(spec, limit=50))


def test_a_name_that_another_process_takes_meanwhile(workspace):
    """The other process: ingests under the same name while this one reads its source."""
    calls = []

    def report(stage, done, total):
        if not calls:
            calls.append(stage)
            ingest(workspace, IngestSpec("d", "digits", limit=50))

    with pytest.raises(BusyError, match="was made by another process just now"):
        ingest(workspace, IngestSpec("d", "digits", limit=60), report)
    assert len(column(workspace, "d", "label")) == 50


def test_a_parent_that_was_made_anew_is_noticed(workspace):
    ingest(workspace, IngestSpec("a", "digits", limit=100))
    spec = IngestSpec("b", "dataset:a", noise="symmetric:0.1")
    ingest(workspace, spec)
    workspace.remove_dataset("a")
    ingest(workspace, IngestSpec("a", "digits", limit=90))
    with pytest.raises(SpecError, match="derives from an earlier 'a'"):
        ingest(workspace, spec)


# Bad samples -----------------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:40])


def bomb(path):
    """A PNG that says 20,000 x 20,000 pixels in a few hundred bytes."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (20_000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([8, 0, 0, 0, 0]))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))


def warned_bomb(path):
    """An image above the size at which Pillow only warns: 10,000 x 10,000."""
    Image.new("1", (10_000, 10_000)).save(path)


BAD = {
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "not an image": lambda path: path.write_text("hello"),
    "bomb": bomb,
    "large": warned_bomb,
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("gone.png")),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_among_good_ones(workspace, folder, kind):
    bad = folder / "b" / "13.png"
    BAD[kind](bad)
    text = refused(workspace, IngestSpec("d", str(folder), test_fraction=0), BadSampleError)
    assert text.startswith(f"{bad}: ") and text.endswith("skip it with --skip-bad")

    labels = label_file(folder, ["b" if i in (2, 17) else "a" for i in range(20)])
    result = ingest(workspace, IngestSpec("d", str(folder), test_fraction=0, skip_bad=True, labels=labels))
    assert (result.train, result.skipped) == (19, 1)
    [(place, reason)] = fetch(workspace, "d", "SELECT * FROM skipped")
    assert place == str(bad) and reason and "\n" not in reason
    sources = [int(s[-6:-4]) for s in column(workspace, "d", "source")]
    assert sources == [i for i in range(20) if i != 13]
    assert [s for s, label in zip(sources, column(workspace, "d", "label"), strict=True) if label == 1] == [2, 17]
    assert inputs_of(workspace, "d")[:, 0, 0, 0].tolist() == sources


def test_noise_is_exact_over_the_samples_that_are_left(workspace, folder):
    for i in (4, 5, 6, 7):
        truncate(folder / "a" / f"{i:02}.png")
    ingest(workspace, IngestSpec("d", str(folder), test_fraction=0, skip_bad=True, noise="asymmetric:0.5"))
    given, truth = (np.array(column(workspace, "d", c)) for c in ("label", "true_label"))
    assert len(given) == 16 and (given != truth).sum() == 8


def test_nothing_readable_at_all(workspace, folder):
    for path in folder.glob("*/*.png"):
        truncate(path)
    assert str(folder) in refused(workspace, IngestSpec("d", str(folder), skip_bad=True))


def test_csv_with_a_missing_file(workspace, folder):
    path = folder / "list.csv"
    path.write_text(
        "path,label\n" + "".join(f"{'ab'[i // 10]}/{i:02}.png,{i // 10}\n" for i in range(20)) + "gone.png,1\n"
    )
    spec = IngestSpec("d", str(path), test_fraction=0)
    assert f"{folder / 'gone.png'}: there is no such file" in refused(workspace, spec)
    assert ingest(workspace, dataclasses.replace(spec, skip_bad=True)).skipped == 1


def test_files_that_are_no_images_are_listed(workspace, folder):
    (folder / "a" / "notes.txt").write_text("x")
    assert ingest(workspace, IngestSpec("d", str(folder))).skipped == 1
    assert fetch(workspace, "d", "SELECT * FROM skipped") == [(str(folder / "a" / "notes.txt"), "not an image file")]


# Bad questions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"noise": "symmetric:1.5"}, "the rate of noise 'symmetric' is 1.5"),
        ({"test_fraction": 1.0}, "--test-fraction is 1; allowed: 0 to 0.9"),
        ({"limit": 0}, "--limit is 0; allowed: 2 to"),
        ({"image_size": 2}, "--image-size is 2; allowed: 4 to 256 (pixels a side)"),
        ({"test": "digits", "test_fraction": 0.1}, "--test and --test-fraction were both given"),
        ({"labels": "x.csv"}, "--labels is 'x.csv'; write FILE:COLUMN"),
        ({"true_labels": "maybe"}, "unknown --true-labels 'maybe'; allowed: drop, keep"),
        ({"seed": -1}, "--seed is -1"),
        ({"name": "../x"}, "dataset name '../x'"),
    ],
)
def test_specs_that_are_not_allowed(options, expected):
    with pytest.raises(SpecError) as caught:
        IngestSpec(**{"name": "d", "source": "digits", **options})
    assert expected in str(caught.value)


def test_a_test_fraction_of_a_source_that_has_a_test_split(workspace, folder):
    spec = IngestSpec("d", "digits", test="digits")
    assert ingest(workspace, spec).test == 1797
    train = folder.parent / "split"
    for name in ("train", "test"):
        (train / name).mkdir(parents=True)
        for label in "ab":
            (train / name / label).symlink_to(folder / label)
    with pytest.raises(SpecError, match="has a test split of its own"):
        ingest(workspace, IngestSpec("e", str(train), test_fraction=0.5))
    assert ingest(workspace, IngestSpec("e", str(train))).test == 20


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from engine.data.ingest import IngestSpec, ingest
from engine.errors import StorageError
from engine.store.workspace import Workspace
workspace = Workspace.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    ingest(workspace, IngestSpec("d", sys.argv[3], **eval(sys.argv[4])))
except StorageError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("limit", [100_000, 1_000_000])
@pytest.mark.parametrize(
    ("source", "options"), [("synthetic", {}), ("dataset:parent", {"noise": "symmetric:0.1"})], ids=["read", "derived"]
)
def test_a_full_disk_leaves_nothing(workspace, source, options, limit):
    before = []
    if source == "dataset:parent":
        ingest(workspace, IngestSpec("parent", "synthetic", limit=3000))
        before = ["parent.duckdb"]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(workspace.root), str(limit), source, repr(options)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "no space left to write dataset 'd'" in done.stdout and done.stdout.count("\n") == 1
    assert left_behind(workspace) == before


def test_a_damaged_dataset_file_is_said(workspace):
    workspace.dataset_path("d").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match="cannot be read"):
        ingest(workspace, IngestSpec("d", "digits"))


def test_the_spec_is_stored(workspace, folder):
    ingest(workspace, IngestSpec("d", str(folder), seed=4))
    [(text,)] = fetch(workspace, "d", "SELECT spec FROM dataset")
    assert json.loads(text)["seed"] == 4 and json.loads(text)["source"] == str(folder)


def test_superclass_noise_of_ones_own_groups_stays_within_them(tmp_path):
    workspace = Workspace.open(tmp_path / "w", create=True)
    groups = "0,6,8,9;1,7,4;2,3,5"
    spec = IngestSpec(name="d", source="digits", noise="superclass:0.3", superclasses=groups)
    ingest(workspace, spec)
    with connected(workspace, "d") as connection:
        rows = connection.execute("SELECT true_label, label FROM samples WHERE label <> true_label").fetchall()
    assert len(rows) > 400
    group_of = {int(name): i for i, names in enumerate(groups.split(";")) for name in names.split(",")}
    assert all(group_of[a] == group_of[b] for a, b in rows)
    with pytest.raises(SpecError, match="--superclasses goes with --noise superclass:RATE"):
        IngestSpec(name="e", source="digits", superclasses=groups)
