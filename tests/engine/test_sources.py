"""Every kind of source on real small files, and what each says when the files are bad."""

import gzip
import io
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.data.images import decode
from engine.data.parts import Part, Source
from engine.data.sources import kinds, open_source, resolve, source_help
from engine.data.sources.kinds import declared_sources, source
from engine.errors import SourceError, SpecError


def picture(value, size=(6, 4)):
    """An RGB image whose pixels are all `value`."""
    return Image.new("RGB", size, (value, value, value))


def encoded(value, kind="PNG", size=(6, 4)):
    out = io.BytesIO()
    picture(value, size).save(out, kind)
    return out.getvalue()


def write(path, value=0, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(value).save(path, kind)


def first_value(part, i):
    return decode(part.load(i), 128).convert("L").getpixel((0, 0))


def write_parquet(path, values, labels, *, image="image", label="label", names=None, raw=False, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [encoded(v) if raw else {"bytes": encoded(v), "path": None} for v in values]
    kind = pa.binary() if raw else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(images, kind), label: pa.array(labels)})
    if names:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)


def write_idx(path, array, compress=False):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if compress else data)


def message(text, **options):
    with pytest.raises((SourceError, SpecError)) as caught:
        open_source(text, 0, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Built in --------------------------------------------------------------------------------------------------


def test_digits():
    from sklearn.datasets import load_digits

    source = open_source("digits", 0)
    assert len(source.train) == 1797 and source.classes == tuple("0123456789") and source.test is None
    pixels = np.asarray(source.train.load(5))
    np.testing.assert_array_equal(pixels, np.floor(load_digits().images[5] * 255 / 16))
    assert source.train.labels[5] == load_digits().target[5] and source.train.places[5] == "digits:5"


def test_synthetic_has_ten_gaussians_seven_apart():
    source = open_source("synthetic", 3)
    vectors = np.stack([source.train.load(i) for i in range(len(source.train))])
    assert vectors.shape == (15_000, 100) and vectors.dtype == np.float32
    by_class = [vectors[source.train.labels == c] for c in range(10)]
    assert [len(v) for v in by_class] == [1500] * 10
    means = np.stack([v.mean(0) for v in by_class])
    sigma = np.array([np.sqrt(((v - m) ** 2).mean()) for v, m in zip(by_class, means, strict=True)])
    assert sigma.min() > 0.95 and sigma.max() < 5.05 and sigma.std() > 0.3
    for a in range(10):
        for b in range(a):
            # E|mean_a - mean_b|^2 = 49 + 100 (sigma_a^2 + sigma_b^2) / 1500
            expected = 49 + (sigma[a] ** 2 + sigma[b] ** 2) / 15
            assert abs(((means[a] - means[b]) ** 2).sum() - expected) < 8
    again = open_source("synthetic", 3)
    np.testing.assert_array_equal(again.train.load(7), source.train.load(7))
    assert (open_source("synthetic", 4).train.load(7) != source.train.load(7)).any()


def test_torchvision_mnist_from_local_files(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    for name, n in (("train", 6), ("t10k", 4)):
        write_idx(raw / f"{name}-images-idx3-ubyte", np.arange(n)[:, None, None] * np.ones((1, 28, 28)))
        write_idx(raw / f"{name}-labels-idx1-ubyte", np.arange(n) % 2)
    source = open_source(f"torchvision:MNIST:{tmp_path}", 0)
    assert (len(source.train), len(source.test)) == (6, 4)
    assert first_value(source.train, 5) == 5 and source.test.labels.tolist() == [0, 1, 0, 1]
    assert source.classes[3] == "3 - three" and source.train.places[2] == "MNIST:2"


def test_torchvision_without_a_root():
    source = open_source("torchvision:FakeData", 0)
    assert len(source.train) == 1000 and len(source.classes) == 10 and source.train.load(0).size == (224, 224)


def test_torchvision_says_what_is_missing(tmp_path):
    assert "torchvision's CIFAR10 cannot be read from" in message(f"torchvision:CIFAR10:{tmp_path}")
    assert message("torchvision:CIFAR1") == "unknown torchvision dataset 'CIFAR1'; did you mean 'CIFAR10'?"
    assert list(tmp_path.iterdir()) == []  # nothing was downloaded


# Folders ---------------------------------------------------------------------------------------------------


def test_folder_with_a_sub_folder_per_class(tmp_path):
    write(tmp_path / "dog" / "b.png", 3)
    write(tmp_path / "dog" / "a.jpg", 2)
    write(tmp_path / "cat" / "deep" / "x.webp", 1)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / ".DS_Store").write_text("")
    (tmp_path / "labels.txt").write_text("")
    source = open_source(str(tmp_path), 0)
    assert source.classes == ("cat", "dog") and source.train.labels.tolist() == [0, 1, 1]
    assert source.train.places == [str(tmp_path / p) for p in ("cat/deep/x.webp", "dog/a.jpg", "dog/b.png")]
    assert first_value(source.train, 2) == 3
    assert source.train.ignored == (
        (str(tmp_path / "labels.txt"), "not an image file"),
        (str(tmp_path / "cat/.DS_Store"), "a hidden file"),
        (str(tmp_path / "cat/notes.txt"), "not an image file"),
    )


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_folder_with_splits(tmp_path, test_name):
    for i, place in enumerate(["train/a/1.png", "train/b/1.png", "train/c/1.png", f"{test_name}/c/1.png"]):
        write(tmp_path / place, i)
    source = open_source(str(tmp_path), 0)
    assert source.classes == ("a", "b", "c") and source.test.labels.tolist() == [2]
    assert first_value(source.test, 0) == 3


def test_val_and_test_are_the_test_part_and_can_be_told_apart(tmp_path):
    places = ["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/a/2.png", "test/b/1.png"]
    for i, place in enumerate(places):
        write(tmp_path / place, i)
    source = open_source(str(tmp_path), 0)
    assert source.notes == ("test/ (1 images) and val/ (2 images) are the test part",)
    assert source.test.labels.tolist() == [1, 0, 0] and [first_value(source.test, i) for i in range(3)] == [4, 2, 3]
    assert source.test.metadata == {"source_split": ["test", "val", "val"]}
    assert source.train.metadata == {"source_split": ["train", "train"]}


def test_a_class_may_be_called_train(tmp_path):
    for place in ("bus/1.png", "train/1.png"):
        write(tmp_path / place)
    assert open_source(str(tmp_path), 0).classes == ("bus", "train")


def test_folder_says_what_is_wrong(tmp_path):
    assert "has no class folders" in message(str(tmp_path))
    write(tmp_path / "a" / "1.png")
    assert "has training samples of 1 class; at least 2 are needed" in message(str(tmp_path))
    (tmp_path / "empty").mkdir()
    assert "has training samples of 1 class; at least 2 are needed" in message(str(tmp_path))
    write(tmp_path / "b" / "1.png")
    assert open_source(str(tmp_path), 0).train.ignored == ((str(tmp_path / "empty"), "a class folder without images"),)


def test_a_test_class_that_is_not_trained_is_named(tmp_path):
    for place in ("train/a/1.png", "train/b/1.png", "test/z/1.png"):
        write(tmp_path / place)
    assert "class 'z' is in the test split and not in the training split" in message(str(tmp_path))


def test_another_source_as_test(tmp_path):
    for place in ("one/a/1.png", "one/b/1.png", "two/b/1.png", "two/b/2.png"):
        write(tmp_path / place)
    source = open_source(str(tmp_path / "one"), 0, test=str(tmp_path / "two"))
    assert source.test.labels.tolist() == [1, 1]


def test_missing_and_unknown(tmp_path):
    assert message(str(tmp_path / "gone")).startswith(f"there is no {tmp_path / 'gone'}; give an existing path")
    assert "unknown source 'digit'; did you mean 'digits'?" in message("digit")
    (tmp_path / "x.zip").write_bytes(b"PK")
    assert "x.zip is not understood; allowed: .parquet, .csv" in message(str(tmp_path / "x.zip"))
    assert "matches 0 files" in message(str(tmp_path / "*.parquet"))


# Parquet ---------------------------------------------------------------------------------------------------


def test_parquet_with_names_in_the_metadata_over_many_row_groups(tmp_path):
    path = tmp_path / "x.parquet"
    write_parquet(path, range(50), [i % 3 for i in range(50)], names=["c", "b", "a"], row_group_size=4)
    source = open_source(str(path), 0)
    assert source.classes == ("c", "b", "a") and source.train.labels.tolist() == [i % 3 for i in range(50)]
    for i in (0, 49, 3, 4, 27, 11, 48):
        assert first_value(source.train, i) == i
    assert source.train.places[17] == f"{path}:17"


@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
@pytest.mark.parametrize("image", ["image", "img"])
def test_parquet_column_names(tmp_path, image, label):
    write_parquet(tmp_path / "x.parquet", [7, 8], ["dog", "cat"], image=image, label=label, raw=image == "img")
    source = open_source(str(tmp_path / "x.parquet"), 0)
    assert source.classes == ("cat", "dog") and source.train.labels.tolist() == [1, 0]
    assert first_value(source.train, 1) == 8


def test_parquet_columns_that_only_the_metadata_names(tmp_path):
    write_parquet(tmp_path / "x.parquet", [7, 8], [0, 1], image="photo", label="kind", names=["a", "b"])
    assert open_source(str(tmp_path / "x.parquet"), 0).classes == ("a", "b")


def test_parquet_numbers_without_names_sort_as_numbers(tmp_path):
    write_parquet(tmp_path / "x.parquet", range(3), [10, 2, 2])
    source = open_source(str(tmp_path / "x.parquet"), 0)
    assert source.classes == ("2", "10") and source.train.labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize("layout", ["{}-00000-of-00001.parquet", "data/{}-0.parquet", "{}/0000.parquet"])
def test_parquet_folder_with_splits(tmp_path, layout):
    write_parquet(tmp_path / layout.format("train"), [1, 2, 3], ["a", "b", "a"])
    write_parquet(tmp_path / layout.format("test"), [4], ["b"])
    write_parquet(tmp_path / "human_labels_train.parquet", [9], ["a"])
    source = open_source(str(tmp_path), 0)
    assert (len(source.train), source.test.labels.tolist()) == (3, [1])
    assert first_value(source.test, 0) == 4


def test_parquet_glob_over_shards(tmp_path):
    write_parquet(tmp_path / "train-0.parquet", [1, 2], ["a", "b"])
    write_parquet(tmp_path / "train-1.parquet", [3], ["a"])
    source = open_source(str(tmp_path / "train-*.parquet"), 0)
    assert source.train.labels.tolist() == [0, 1, 0] and first_value(source.train, 2) == 3
    assert source.train.places[2] == f"{tmp_path / 'train-1.parquet'}:0"


def test_parquet_image_by_path(tmp_path):
    write(tmp_path / "img" / "1.png", 5)
    images = pa.array([{"bytes": None, "path": "img/1.png"}] * 2)
    pq.write_table(pa.table({"image": images, "label": ["a", "b"]}), tmp_path / "x.parquet")
    assert first_value(open_source(str(tmp_path / "x.parquet"), 0).train, 0) == 5


def test_parquet_says_what_is_wrong(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [b"a"], "caption": ["x"]}), path)
    assert message(str(path)) == (
        f"{path} has no label column; allowed: label, labels, fine_label or one that the schema metadata calls "
        "ClassLabel; its columns are: image, caption"
    )
    pq.write_table(pa.table({"label": [1]}), path)
    assert f"{path} has no image column; allowed: image, img" in message(str(path))
    write_parquet(path, [1, 2], [0, -1])
    assert f"{path}, row 1: no label (-1)" in message(str(path))
    write_parquet(path, [1, 2], [0, 2], names=["a", "b"])
    assert f"{path}, row 1: label 2; the file names classes 0 to 1" in message(str(path))
    path.write_bytes(b"PAR1 but not really")
    assert f"{path} cannot be read as Parquet" in message(str(path))


# CSV -------------------------------------------------------------------------------------------------------


def test_csv_with_splits_relative_to_itself(tmp_path):
    for i in range(3):
        write(tmp_path / "sub" / "images" / f"{i}.png", i)
    path = tmp_path / "sub" / "list.csv"
    path.write_text("path,label,split\nimages/0.png,dog,train\nimages/1.png,cat,train\nimages/2.png,dog,val\n")
    source = open_source(str(path), 0)
    assert source.classes == ("cat", "dog") and source.train.labels.tolist() == [1, 0]
    assert source.test.labels.tolist() == [1] and first_value(source.test, 0) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\na,b\n", "has no column 'path'; its columns are: file, label"),
        ("path,label\na\n", "row 0: 1 fields; the header has 2"),
        ("path,label\na,x\nb,\n", "row 1: the label is empty"),
        ("path,label,split\na,x,dev\n", "row 0: split is 'dev'; allowed: train, test"),
        ("path,label,split\na,x,train\nb,y,train\nc,z,test\n", "row 2: label 'z' is none of the classes (x, y)"),
        ("", "has no column 'path'"),
        ("path,label\n", "has no training rows"),
    ],
)
def test_csv_says_what_is_wrong(tmp_path, text, expected):
    (tmp_path / "list.csv").write_text(text)
    assert expected in message(str(tmp_path / "list.csv"))


# IDX -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("compress", [True, False])
def test_idx_folder(tmp_path, below, compress):
    images = np.arange(4 * 3 * 2).reshape(4, 3, 2)
    for name in ("train", "t10k"):
        suffix = ".gz" if compress else ""
        write_idx(tmp_path / below / f"{name}-images-idx3-ubyte{suffix}", images, compress)
        write_idx(tmp_path / below / f"{name}-labels-idx1-ubyte{suffix}", np.array([2, 0, 1, 2]), compress)
    source = open_source(str(tmp_path), 0)
    assert source.classes == ("0", "1", "2") and source.test.labels.tolist() == [2, 0, 1, 2]
    np.testing.assert_array_equal(np.asarray(source.train.load(2)), images[2])


def test_idx_says_what_is_wrong(tmp_path):
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    write_idx(images, np.zeros((4, 3, 2)))
    assert f"{tmp_path} has no IDX file of the training labels" in message(str(tmp_path))
    write_idx(labels, np.zeros(3))
    assert f"{images} has 4 images, {labels.name} 3 labels" in message(str(tmp_path))
    images.write_bytes(images.read_bytes()[:-1])
    assert f"{images} is truncated or damaged: its header says 24 bytes, it has 23" in message(str(tmp_path))
    images.write_bytes(b"nonsense")
    assert f"{images} is not an IDX file of unsigned bytes with 3 dimensions" in message(str(tmp_path))
    images.unlink()
    packed = gzip.compress(bytes(1000))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed[: len(packed) // 2])
    assert "train-images-idx3-ubyte.gz is damaged or truncated" in message(str(tmp_path))


def test_resolve_makes_paths_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("x/../y") == str(tmp_path / "y")
    assert resolve("digits") == "digits" and resolve("dataset:a") == "dataset:a"
    assert resolve("torchvision:MNIST:.") == f"torchvision:MNIST:{tmp_path}"


def test_the_help_is_that_of_the_kinds(tmp_path):
    named, paths = source_help().split(", or a path: ")
    assert named.startswith("digits, synthetic, dataset:NAME") and "torchvision:NAME[:ROOT]" in named
    assert "Parquet (a file, a glob or a folder), a CSV with path,label, a folder of MNIST IDX files" in paths
    assert paths.endswith("a folder with one sub-folder per class")
    assert source_help() in message("digit")
    (tmp_path / "x.zip").write_bytes(b"PK")
    assert source_help() in message(str(tmp_path / "x.zip"))
    assert message("digits", test="dataset:mine").startswith("--test is dataset:mine; allowed: a source of images")


def test_a_folder_of_several_kinds_is_read_as_the_first_that_fits(tmp_path):
    write(tmp_path / "a" / "1.png")
    write(tmp_path / "b" / "1.png")
    assert len(open_source(str(tmp_path), 0).train) == 2
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 2, 2)))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([0, 1, 1]))
    assert len(open_source(str(tmp_path), 0).train) == 3
    write_parquet(tmp_path / "x.parquet", range(4), [0, 1, 0, 1])
    assert len(open_source(str(tmp_path), 0).train) == 4


def test_a_source_is_declared_where_it_is_written(monkeypatch):
    monkeypatch.setattr(kinds, "_REGISTRY", dict(kinds._REGISTRY))
    before = declared_sources()

    @source("gray:N", matches=lambda named: named.text.startswith("gray:"), priority=30, resolved=str)
    def gray(named):
        """N gray pictures of two classes."""
        n = int(named.text.removeprefix("gray:"))
        return Source(("dark", "light"), Part(np.arange(n) % 2, [f"gray:{i}" for i in range(n)], picture))

    assert ", gray:N, or a path" in source_help()
    assert len(open_source("gray:6", 0).train) == 6 and resolve("gray:6") == "gray:6"
    assert len(declared_sources()) == len(before) + 1
    with pytest.raises(TypeError, match="source 'gray:N' has no docstring, or is declared twice"):
        source("gray:N", matches=bool)(gray)
