"""Text that others wrote: what a terminal would obey and what a spreadsheet would compute is only shown, and comes back."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pandas as pd
import pytest
from hostile_names import HOSTILE

from engine.data.sources.files import read_csv
from engine.queries.writers import csv_of
from engine.text import csv_text, from_csv_text, shown

LETTERS = "=+-@'\"\t\r\n\0 \u00a0\ufeff\u200b\u202e,;|\\ab1é猫\uff1d\u2028\x1c"


def any_texts(seed: int, count: int) -> list[str]:
    """Texts of the characters that matter here, and of any others."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        letters = LETTERS if rng.random() < 0.8 else [chr(rng.randrange(1, 0xD800)) for _ in range(8)]
        found.append("".join(rng.choice(letters) for _ in range(rng.randrange(12))))
    return found


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("-5 degrees", "'-5 degrees"),
        ("\t=1", "'\t=1"),
        ("\ufeff=1", "'\ufeff=1"),
        ('"=1"', '\'"=1"'),
        ("'=1", "''=1"),
        ("\uff1d1", "'\uff1d1"),
        (" cat", "' cat"),
        ("cat", "cat"),
        ("it's", "it's"),
        ("'tis", "'tis"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_a_spreadsheet_computes_no_cell(text: str, cell: str) -> None:
    assert csv_text(text) == cell
    assert from_csv_text(cell) == text


def test_every_text_comes_back_from_its_cell() -> None:
    for text in [*any_texts(0, 50_000), *HOSTILE]:
        cell = csv_text(text)
        assert from_csv_text(cell) == text, repr(text)
        assert cell.lstrip(" '\"\t\r\n\ufeff\u200b\xa0")[:1] not in tuple("=+-@") or cell.startswith("'"), repr(text)


def test_every_table_of_texts_comes_back_from_its_csv(tmp_path: Path) -> None:
    texts = [text for text in any_texts(1, 4_000) if text]
    headers = [f"{text}{i}" for i, text in enumerate(HOSTILE)]
    rows = [texts[i : i + len(headers)] for i in range(0, len(texts) - len(headers), len(headers))]
    frame = pd.DataFrame(rows, columns=headers).assign(number=-1.5)
    (tmp_path / "a.csv").write_bytes(csv_of(frame).encode())
    found = read_csv(tmp_path / "a.csv")
    assert list(found) == [*headers, "number"]
    assert found.pop("number") == ["-1.5"] * len(rows)  # a number is one: nothing stands before it
    assert list(zip(*found.values(), strict=True)) == [tuple(row) for row in rows]


def test_numbers_and_what_is_missing_are_as_they_are() -> None:
    frame = pd.DataFrame({
        "a": [-1, 2], "b": [-0.5, None], "c": ["-1", None], "d": pd.array([-3, None], "Int64"), "e": [-1, "=1"],
        "f": pd.to_datetime(["2026-01-01", None]), "g": [True, None],
    })  # fmt: skip
    (first, second) = list(csv.reader(io.StringIO(csv_of(frame))))[1:]
    assert first == ["-1", "-0.5", "'-1", "-3", "-1", "2026-01-01", "True"]
    assert second == ["2", "", "", "", "'=1", "", ""]


def test_a_screen_shows_what_is_not_seen() -> None:
    assert shown("a\u202eb\x1b[2J\r\n\u200bc\ufeff\x9b\ud800") == r"a\u202eb\x1b[2J\r\n\u200bc\ufeff\x9b\ud800"
    assert shown("a\nb\t", keep="\n\t") == "a\nb\t"
    for kept in ("naïve", "שלום", "مرحبا", "👨\u200d👩\u200d👧", "می\u200cخواهم", "e\u0301", "a b"):
        assert shown(kept) == kept
    assert shown("cat\u200d") == r"cat\u200d" and shown("c\u200dat") == r"c\u200dat"
    assert shown("x" * 5_000) == "x" * 1_000 + "... (5,000 characters)"
    assert shown("x" * 5_000, 80) == "x" * 79 + "…"
