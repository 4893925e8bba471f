"""The columns of CSV and Parquet files: label, truth, split, metadata; and that an export is read back as it was."""

from __future__ import annotations

import csv
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.data.columns import as_number, as_text, named_classes, parse_wanted
from engine.data.ingest import ingest
from engine.data.outcome import describe
from engine.data.request import IngestSpec
from engine.data.sources import open_source
from engine.data.sources.places import open_original
from engine.errors import SourceError, SpecError, WinnowError
from engine.queries.connection import connected
from engine.queries.listing import fetch_ids
from engine.queries.metadata import fetch_metadata_names, fetch_metadata_samples, fetch_metadata_values
from engine.queries.samples import (
    Filter,
    condition,
)
from engine.queries.writers import export, fetch_selected
from engine.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", create=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """12 images 9 x 9, each of one gray, i for 0 .. 11."""
    root = tmp_path / "images"
    root.mkdir()
    for i in range(12):
        Image.new("RGB", (9, 9), (i, i, i)).save(root / f"{i:02}.png")
    return root


def write_csv(path: Path, header: list[str], rows: list[list[str]], **options: str) -> Path:
    with open(path, "w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        csv.writer(file, **options).writerows([header, *rows])  # type: ignore[arg-type]
    return path


def fetch(workspace: Workspace, name: str, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(workspace.dataset_path(name)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def message(text: str) -> str:
    with pytest.raises((SourceError, SpecError)) as caught:
        open_source(text, 0)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def rows_of(n: int = 12) -> list[list[str]]:
    return [[f"images/{i:02}.png", "cat" if i % 2 else "dog"] for i in range(n)]


# Truth, split, metadata ------------------------------------------------------------------------------------


def test_truth_split_and_metadata_of_a_csv(workspace: Workspace, images: Path) -> None:
    given = [
        [
            *row,
            "dog" if i == 1 else ("" if i == 3 else row[1]),
            "Test" if i > 8 else "TRAIN",
            f"{i / 4}",
            'a, "b"\nc' if i else "",
        ]
        for i, row in enumerate(rows_of())
    ]
    table = write_csv(images.parent / "x.csv", ["path", "label", "true_label", "split", "age", "note; *"], given)
    done = ingest(workspace, IngestSpec("d", str(table)))
    assert (done.train, done.test, done.known, done.wrong, done.noise_rate) == (9, 3, 8, 1, None)
    assert done.metadata == ("age", "note; *")
    assert "1 of 8 with a known true label wrong" in describe(done, "1 s")[0]
    assert fetch(workspace, "d", "SELECT sample_id, label, true_label FROM samples WHERE sample_id IN (1, 3, 11)") == [
        (1, 0, 1), (3, 0, None), (11, 0, 0)
    ]  # fmt: skip
    assert fetch(workspace, "d", "SELECT value, number FROM metadata WHERE name = 'age' AND sample_id = 6") == [
        ("1.5", 1.5)
    ]
    noted = fetch(workspace, "d", "SELECT count(*), min(sample_id), any_value(value), any_value(number) FROM metadata "
                  "WHERE name = 'note; *'")  # fmt: skip
    assert noted == [(11, 1, 'a, "b"\nc', None)]


def test_a_split_column_that_says_train_for_all_holds_nothing_out(workspace: Workspace, images: Path) -> None:
    table = write_csv(images.parent / "x.csv", ["path", "label", "split"], [[*row, "train"] for row in rows_of()])
    done = ingest(workspace, IngestSpec("d", str(table)))
    assert (done.train, done.test) == (12, 0) and done.notes == ("column 'split' calls all samples train",)
    plain = write_csv(images.parent / "y.csv", ["path", "label"], rows_of())
    done = ingest(workspace, IngestSpec("e", str(plain)))
    assert (done.train, done.test) == (10, 2) and "20 % of each class, held out" in describe(done, "1 s")[0]
    done = ingest(workspace, IngestSpec("f", str(plain), test_fraction=0))
    assert (done.train, done.test, done.notes) == (12, 0, ())


def test_val_and_test_of_a_column_stay_apart_as_metadata(images: Path) -> None:
    splits = ["train"] * 8 + ["val", "test", "validation", "val"]
    table = write_csv(
        images.parent / "x.csv", ["path", "label", "split"], [[*r, s] for r, s in zip(rows_of(), splits, strict=True)]
    )
    source = open_source(str(table), 0)
    assert source.test is not None and source.test.metadata["source_split"] == ["val", "test", "validation", "val"]
    assert source.notes == ("test and val and validation of column 'split' are the test part",)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0", "1", "-1", "NaN"], [0, 1, -1, -1]),  # numbers of classes
        (["0.0", "1.0", "", ""], [0, 1, -1, -1]),  # as pandas writes them beside gaps
        (["cat", "dog", "?", "n/a"], [0, 1, -1, -1]),
    ],
)
def test_true_labels_as_names_or_numbers(images: Path, values: list[str], expected: list[int]) -> None:
    table = write_csv(
        images.parent / "x.csv",
        ["path", "label", "true_label"],
        [[*r, v] for r, v in zip(rows_of(4), values, strict=True)],
    )
    truth = open_source(str(table), 0).train.true_labels
    assert truth is not None and truth.tolist() == expected


def test_a_class_that_is_called_none_is_one(images: Path) -> None:
    table = write_csv(
        images.parent / "x.csv", ["path", "label", "true_label"],
        [["images/00.png", "none", "some"], ["images/01.png", "some", "none"], ["images/02.png", "some", "null"]],
    )  # fmt: skip
    truth = open_source(str(table), 0).train.true_labels
    assert truth is not None and truth.tolist() == [1, 0, -1]


def test_a_true_label_that_is_no_class_is_named(images: Path) -> None:
    table = write_csv(images.parent / "x.csv", ["path", "label", "true_label"], [[*row, "fox"] for row in rows_of(3)])
    assert "row 0: the true label 'fox' is none of the classes (cat, dog); leave it empty" in message(str(table))


def test_noise_on_partly_known_truth_takes_the_labels_where_it_is_unknown(workspace: Workspace, images: Path) -> None:
    given = [[*row, "cat" if i == 0 else ""] for i, row in enumerate(rows_of())]
    table = write_csv(images.parent / "x.csv", ["path", "label", "true_label"], given)
    done = ingest(workspace, IngestSpec("d", str(table), noise="symmetric:0.5", test_fraction=0))
    truth = [row[0] for row in fetch(workspace, "d", "SELECT true_label FROM samples ORDER BY sample_id")]
    assert truth == [0, *(0 if i % 2 else 1 for i in range(1, 12))] and done.known == 12
    ingest(workspace, IngestSpec("plain", str(table), test_fraction=0.25))
    ingest(workspace, IngestSpec("e", "dataset:plain", noise="symmetric:0.5"))
    assert fetch(workspace, "e", "SELECT count(*) FROM samples WHERE true_label IS NULL") == [(0,)]


def test_columns_under_other_names(images: Path) -> None:
    table = write_csv(
        images.parent / "x.csv",
        ["file", "breed", "gold", "fold", "label"],
        [[r[0], r[1], r[1], "train", "x"] for r in rows_of(4)],
    )
    wanted = parse_wanted("path=file,label=breed, true_label=gold,split=fold", "all")
    source = open_source(str(table), 0, wanted=wanted)
    assert source.classes == ("cat", "dog") and source.train.true_labels is not None and source.test_fraction == 0
    assert source.train.metadata == {"column_label": ["x"] * 4}
    assert open_source(str(table), 0, wanted=parse_wanted("path=file,label=breed", "fold")).train.metadata == {
        "fold": ["train"] * 4
    }
    with pytest.raises(SourceError, match="unknown column 'bred'; did you mean 'breed'"):
        open_source(str(table), 0, wanted=parse_wanted("label=bred", "all"))
    assert "has no column 'path'; its columns are: file, breed, gold, fold, label (--columns path=NAME" in message(
        str(table)
    )


@pytest.mark.parametrize(
    ("columns", "metadata", "expected"),
    [
        ("label", "all", "--columns has 'label'; write ROLE=COLUMN"),
        ("lable=x", "all", "unknown role 'lable'; did you mean 'label'"),
        ("label=x,label=y", "all", "--columns names 'label' twice"),
        ("label=x,path=x", "all", "--columns names 'x' twice"),
        (None, "a,,b", "--metadata is 'a,,b'; write all, none"),
    ],
)
def test_options_that_are_not_allowed(columns: str | None, metadata: str, expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        IngestSpec("d", "x.csv", columns=columns, metadata=metadata)
    assert expected in str(caught.value)


def test_values_as_text_and_number() -> None:
    values = [True, 3, 0.1, float("nan"), "", None, date(2024, 2, 29), Decimal("1.50"), "x", float("inf")]
    texts = [as_text(value) for value in values]
    assert texts == ["true", "3", "0.1", None, None, None, "2024-02-29", "1.50", "x", "inf"]
    assert [as_number(t) for t in texts] == [1, 3, 0.1, None, None, None, None, 1.5, None, None]
    assert [as_number(t) for t in ("1_000", "1e400", "٣", "-.5", "0x1", "False")] == [None, None, None, -0.5, None, 0]
    assert named_classes(["1", "0", "1"], ["b", "a", "b"]) == {"0": "a", "1": "b"}
    assert named_classes(["1", "0", "1"], ["b", "a", "c"]) == named_classes(["1", "0"], ["a", "a"]) == {}


def test_parquet_keeps_plain_columns_as_metadata(images: Path) -> None:
    data = [(images / f"{i:02}.png").read_bytes() for i in range(4)]
    table = pa.table(
        {
            "image": [{"bytes": one, "path": None} for one in data],
            "label": ["a", "b", "a", "b"],
            "taken": pa.array([date(2020, 1, i + 1) for i in range(4)]),
            "score": pa.array([0.5, None, float("nan"), 2.0]),
            "camera": pa.array(["x", "y", None, "x"]).dictionary_encode(),
            "box": [[1, 2]] * 4,
            "mask": data,
        }
    )
    pq.write_table(table, images.parent / "x.parquet")
    assert open_source(str(images.parent / "x.parquet"), 0).train.metadata == {
        "taken": ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"],
        "score": ["0.5", None, None, "2.0"],
        "camera": ["x", "y", None, "x"],
    }


def test_parquet_columns_under_other_names_may_hold_images_or_paths(images: Path) -> None:
    data = [(images / f"{i:02}.png").read_bytes() for i in range(4)]
    columns = {
        "photo": data,
        "file": [f"images/{i:02}.png" for i in range(4)],
        "kind": ["a", "b"] * 2,
        "box": [[1]] * 4,
    }
    pq.write_table(pa.table(columns), images.parent / "x.parquet")
    for path, others in (("photo", {"file"}), ("file", set())):
        wanted = parse_wanted(f"path={path},label=kind", "all")
        train = open_source(str(images.parent / "x.parquet"), 0, wanted=wanted).train
        assert np.asarray(train.load(3)).max() == 3 and set(train.metadata) == others
    with pytest.raises(SourceError, match="unknown column 'fotos'; did you mean 'photo'"):
        open_source(str(images.parent / "x.parquet"), 0, wanted=parse_wanted("path=fotos,label=kind", "all"))


# There and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_is_read_back_as_it_was(
    workspace: Workspace, images: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and values that are hard to write, a true class that no sample is labeled, relative paths, val and test."""
    hard = ["a,b", 'say "hi"', "two\nlines", "ünïcode 猫", "-1", "007", "1.50", "null", "1e5", "=1+1", "9" * 30, "0.1"]
    splits = ["train"] * 8 + ["val", "test", "test", "val"]
    names = [["a,b", 'x"y', "ü\u2028z"][i % 3] for i in range(12)]
    given = [
        [f"images/{i:02}.png", names[i], names[(i + 1) % 3] if i < 2 else "", splits[i], hard[i], str(i), str(i / 8)]
        for i in range(12)
    ]
    write_csv(
        images.parent / "x.csv", ["path", "label", "true_label", "split", "hard one", "Count", "weight kg"], given
    )
    monkeypatch.chdir(images.parent)
    first = ingest(workspace, IngestSpec("d", "x.csv"))
    (images.parent / "elsewhere").mkdir()
    monkeypatch.chdir(images.parent / "elsewhere")
    to = Path(f"out.{ending}")
    assert export(workspace, "d", "true", to, split="all") == (12, 12)
    again = ingest(workspace, IngestSpec("e", str(to)))
    assert again.fingerprint == first.fingerprint and again.metadata == first.metadata == (
        "Count",
        "hard one",
        "source_split",
        "weight kg",
    )
    for sql in (
        "SELECT * EXCLUDE (true_label), coalesce(true_label, -1) FROM samples ORDER BY sample_id",
        "SELECT * FROM metadata ORDER BY name, sample_id",
        "SELECT * FROM classes ORDER BY label",
    ):
        assert fetch(workspace, "d", sql) == fetch(workspace, "e", sql)
    kept, total = export(workspace, "d", '"Count" > 3 AND "hard one" <> \'null\'', Path(f"some.{ending}"))
    assert (kept, total) == (3, 8)
    part = ingest(workspace, IngestSpec("f", f"some.{ending}"))
    assert (part.train, part.test) == (3, 0)


def test_exports_of_rows_of_other_files_are_read_back(workspace: Workspace, images: Path) -> None:
    data = [{"bytes": (images / f"{i:02}.png").read_bytes(), "path": None} for i in range(12)]
    pq.write_table(pa.table({"image": data, "label": ["a", "b"] * 6}), images.parent / "x.parquet")
    for name, source in (("p", str(images.parent / "x.parquet")), ("digits", "digits")):
        first = ingest(workspace, IngestSpec(name, source, limit=40))
        export(workspace, name, "true", images.parent / "out.csv", split="all")
        again = ingest(workspace, IngestSpec(f"{name}-again", str(images.parent / "out.csv")))
        assert again.fingerprint == first.fingerprint
        [(place,)] = fetch(workspace, name, "SELECT source FROM samples WHERE sample_id = 3")
        assert isinstance(open_original(str(place)), Image.Image)


def test_originals_are_found_by_a_process_that_starts_with_them(images: Path) -> None:
    code = "import sys; from engine.data.sources.places import open_original; print(open_original(sys.argv[1]).size)"
    done = subprocess.run([sys.executable, "-c", code, str(images / "03.png")], capture_output=True, text=True, cwd="/")
    assert done.stdout == "(9, 9)\n"


def test_conditions_name_metadata_unless_something_else_is_called_so(workspace: Workspace, images: Path) -> None:
    header = ["path", "label", "site", "Site", "action", "flagged", "source", 'we"ird; --', "x" * 200]
    rows = [[*row, str(i), "north", "keep", "1", "web", str(-i), "1"] for i, row in enumerate(rows_of())]
    ingest(workspace, IngestSpec("d", str(write_csv(images.parent / "x.csv", header, rows)), test_fraction=0))
    with connected(workspace, "d") as connection:
        cases = {
            "site > 9": [10, 11],
            '"we""ird; --" < -10': [11],
            "column_source = 'web' AND sample_id < 2": [0, 1],
            f'"{"x" * 200}" = 1 AND site = 5': [5],
            "action IS NULL AND site = 4": [4],  # the decision, not the column
            "sample_id IN (SELECT sample_id FROM metadata WHERE name = 'action' AND number IS NULL) AND site=1": [1],
        }
        for where, expected in cases.items():
            assert fetch_selected(connection, where)["sample_id"].tolist() == expected, where
        with pytest.raises(WinnowError, match="sight"):
            fetch_selected(connection, "sight > 3")


# Tables of somebody else -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "delimiter", "end"),
    [("utf-8-sig", ";", "\r\n"), ("utf-16", "\t", "\r\n"), ("utf-8", ",", "\r"), ("utf-8-sig", ",", "\n")],
)
def test_byte_order_marks_semicolons_tabs_and_line_ends(images: Path, encoding: str, delimiter: str, end: str) -> None:
    rows = [[*row, "gr\u00fc\u00df, dich; du\tda"] for row in rows_of()]
    table = write_csv(
        images.parent / "x.csv",
        ["path", "label", "note"],
        rows,
        encoding=encoding,
        delimiter=delimiter,
        lineterminator=end,
    )
    source = open_source(str(table), 0)
    assert source.classes == ("cat", "dog") and source.train.metadata == {"note": ["gr\u00fc\u00df, dich; du\tda"] * 12}
    assert len(source.train) == 12 and np.asarray(source.train.load(5)).max() == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "has no column 'path'"),
        (b"\xef\xbb\xbf", "has no column 'path'"),
        (b"path,label\n\xe9.png,a\n", "it is not UTF-8 text; save it as UTF-8"),
        (b"\xff\xfe\x00", "it is not UTF-8 text"),
        (b"path,label,label\na,b,c\n", "has two columns 'label'; rename one"),
        (b"path,label\n,b\n", "row 0: the path is empty"),
        (b"path,label\na.png," + b"9" * 5000 + b"\nb.png,2\n", "has a label of 5,000 characters"),
        (b"path,label,n\na.png,x," + b"t" * 20_000 + b"\nb.png,y,\n", "column 'n' has 20,000 characters; allowed as"),
        (b"path,label,n\na.png,x," + b"t" * 200_000 + b"\nb.png,y,\n", "cannot be read as CSV: field larger"),
        (b"path,label," + b"n" * 5000 + b"\na,x,1\nb,y,1\n", "a column with a name of 5,000 characters"),
        (b"path,label," + b",".join(b"c%d" % i for i in range(3000)) + b"\n", "has 3,000 further columns (c0, c1, c2"),
        (b"path,label,split\na.png,x,\nb.png,y,test\n", "row 0: split is ''; allowed: train, test"),
        (b"path,label,split\na.png,x,val\nb.png,y,test\n", "has no training rows"),
    ],
)  # fmt: skip
def test_hostile_tables_are_one_line(tmp_path: Path, text: bytes, expected: str) -> None:
    (tmp_path / "x.csv").write_bytes(text)
    assert expected in message(str(tmp_path / "x.csv"))


def test_thousands_of_columns_can_be_read_by_naming_some(images: Path) -> None:
    header = ["path", "label", *(f"c{i}" for i in range(3000))]
    table = write_csv(images.parent / "x.csv", header, [[*row, *map(str, range(3000))] for row in rows_of(4)])
    for given, expected in (("none", {}), ("c7,c2999", {"c7": ["7"] * 4, "c2999": ["2999"] * 4})):
        assert open_source(str(table), 0, wanted=parse_wanted(None, given)).train.metadata == expected


def test_a_thousand_classes_and_an_unnamed_index(workspace: Workspace, images: Path) -> None:
    rows = [[str(i), f"images/{i % 12:02}.png", f"class {i % 1000}"] for i in range(2000)]
    done = ingest(
        workspace,
        IngestSpec("d", str(write_csv(images.parent / "x.csv", ["", "path", "label"], rows)), test_fraction=0),
    )
    assert done.classes == 1000 and done.metadata == ("column_1",)


def test_more_classes_than_can_be_held(images: Path) -> None:
    rows = [["images/00.png", f"caption {i}"] for i in range(33_000)]
    text = message(str(write_csv(images.parent / "x.csv", ["path", "label"], rows)))
    assert "has 33,000 classes; allowed: 32,767 (is the label column the right one?)" in text


def test_hostile_parquet_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    image = [b"x", b"y"]
    cases: list[tuple[pa.Table, str]] = [
        (pa.table({"image": image, "label": pa.array([2**62, 1], pa.timestamp("ms"))}), "column 'label'"),
        (pa.table([image, ["a", "b"], ["a", "b"]], names=["image", "label", "label"]), "has two columns 'label'"),
        (pa.table({"image": image, "label": pa.array([b"\xff", b"a"]).view(pa.string())}), "column 'label' is damaged"),
    ]
    for names in (
        "5",
        '{"a": null}',
        "[null, null]",
        '[1, {"a": 2}]',
        '[["a"], ["b"]]',
        '["\\ud800", "a"]',
        '["a", "a"]',
    ):
        features = f'{{"info": {{"features": {{"label": {{"_type": "ClassLabel", "names": {names}}}}}}}}}'
        table = pa.table({"image": image, "label": [0, 1]}).replace_schema_metadata({"huggingface": features})
        cases.append((table, "class"))
    for table, expected in cases:
        pq.write_table(table, path)
        assert expected in message(str(path))
    deep = pa.table({"image": image, "label": [0, 1]}).replace_schema_metadata({"huggingface": "[" * 100_000})
    pq.write_table(deep, path)
    assert open_source(str(path), 0).classes == ("0", "1")


def test_filters_by_metadata_are_conditions_that_an_export_takes(workspace: Workspace, images: Path) -> None:
    rows = [[*row, str(i / 2), "it's" if i % 3 else ""] for i, row in enumerate(rows_of())]
    table = write_csv(images.parent / "x.csv", ["path", "label", "age", "site"], rows)
    ingest(workspace, IngestSpec("d", str(table), test_fraction=0))
    with connected(workspace, "d") as connection:
        names = fetch_metadata_names(connection).set_index("name")
        assert names.loc[["age", "site"]].to_numpy().tolist()[0] == [12, 12, True, 0.0, 5.5]
        assert fetch_metadata_values(connection, "site").to_numpy().tolist() == [["it's", 8]]
        assert fetch_metadata_samples(connection, "age")["number"].tolist() == [i / 2 for i in range(12)]
        cases = (
            (Filter(about="site"), [i for i in range(12) if i % 3]),
            (Filter(about="site", value="it's"), [i for i in range(12) if i % 3]),
            (Filter(about="age", at_least=1.5, at_most=2.5), [3, 4, 5]),
            (Filter(about="age", at_least=5), [10, 11]),
            (Filter(about="'; --"), []),
        )
        for wanted, expected in cases:
            where = condition(connection, "", wanted)
            assert fetch_selected(connection, where)["sample_id"].tolist() == expected
            assert fetch_ids(connection, "", wanted).tolist() == expected
    with pytest.raises(SpecError, match="at_most"):
        Filter(about="age", at_least=3, at_most=2)
