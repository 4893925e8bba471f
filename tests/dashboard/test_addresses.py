"""Whatever an address says, a page opens: numbers are parsed by one function, names that are none count for nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hostile_names import HOSTILE
from test_names_are_text import PAGES, Open, wrong

from dashboard import state
from engine.errors import WinnowError
from engine.queries.connection import connected
from engine.queries.samples import condition
from engine.store.workspace import Workspace

NUMBERS = (
    "²", "--5", "+-5", "-5", "5,000"[:1] * 5_000, "٣", "1_000", " 7 ", "0x10", "1e9", "1e999", "-1e308", "nan", "inf",
    "-inf", "NaN", "1.", ".5", ".", "-", "+", "99999999999999999999", "-0", "1,2,3", "1;2", "१", "5\u0660", "\0", "1\n2", "",
)  # fmt: skip
REGIONS = (
    "nan,nan inf,inf 1,1", "1,1 2,2", "1,1 2,2 3,3", "1,1,1 2,2 3,3", "a,b c,d e,f", "-1e308,1e308 1e308,-1e308 0,0",
    "0,0 0,0 0,0", " ".join(f"{i},{i}" for i in range(5_000)), "1,1 2,2 3", ",,, ,", "1e999,1 2,2 3,3", "٣,٣ 1,1 2,2",
    "-5,-5 -5,15 15,15 15,-5",
)  # fmt: skip
WORDS = (
    *HOSTILE, "x" * 10_000, "\0", "'", '"', "; DROP TABLE samples; --", "..", "aum", "el2n", "p_wrong", "aum_threshold",
    "margin_last", "train", "test", "all", "wrong", "right", "agrees", "short", "brightness", "about:", "score:",
)  # fmt: skip
PARAMETERS = {
    "page": NUMBERS, "sample": NUMBERS, "samples": NUMBERS, "label": NUMBERS, "other": NUMBERS, "low": NUMBERS, "high": NUMBERS,
    "least": NUMBERS, "most": NUMBERS, "from": NUMBERS, "to": NUMBERS, "seed": NUMBERS, "n": NUMBERS, "region": REGIONS,
    "outline": REGIONS, "loop": REGIONS, "across": WORDS, "up": WORDS, "measure": WORDS, "above": NUMBERS, "below": NUMBERS,
    "top": WORDS, "against": WORDS,
    "run": WORDS, "sort": WORDS, "rule": WORDS, "truth": WORDS, "agrees": WORDS, "split": WORDS, "list": WORDS, "about": WORDS,
    "value": WORDS, "x": WORDS, "y": WORDS, "compare": WORDS, "color": WORDS, "mode": WORDS, "order": WORDS, "psi": WORDS,
    "figure": WORDS, "size": WORDS, "before": WORDS, "chapter": WORDS, "unknown": WORDS, "suggested": NUMBERS,
    "classes": WORDS, "proof": WORDS, "suggests": WORDS, "sure": WORDS,
}  # fmt: skip


def random_addresses(seed: int, count: int, most: int) -> Iterator[dict[str, str]]:
    """Addresses with several parameters that make no sense, or only some."""
    rng = random.Random(seed)
    for _ in range(count):
        names = rng.sample(list(PARAMETERS), rng.randrange(1, most))
        query = {name: rng.choice(PARAMETERS[name if rng.random() < 0.9 else rng.choice(names)]) for name in names}
        if rng.random() < 0.3:
            name = rng.choice(names)
            query[name] = ",".join(rng.choice(NUMBERS)[:20] for _ in range(5)) + query[name][:100]
        yield query


@pytest.mark.parametrize("text", ["²", "--5", "9" * 5_000, "٣", "1_000", "", "-", "1.0", "0x1", "nan", "1e3", "5\0"])
def test_what_is_no_whole_number_is_none(text: str) -> None:
    assert state.whole_number(text) is None


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "infinity", "1e999", "9" * 5_000, "٣", "1_0", "", ".", "e5", "0x1p3"]
)
def test_what_is_no_finite_number_is_none(text: str) -> None:
    assert state.real_number(text) is None


def test_numbers_are_read_as_they_are_written() -> None:
    assert [state.whole_number(t) for t in ("0", "-12", "+7", " 5 ", "999999999")] == [0, -12, 7, 5, 999999999]
    assert [state.real_number(t) for t in ("0", "-1.5", "1.", ".5", "1e-3", "-2E5")] == [0, -1.5, 1.0, 0.5, 0.001, -2e5]


def test_ten_thousand_addresses_make_filters(noisy: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, dataset = noisy
    queried = 0
    with connected(Workspace.open(root), dataset) as connection:
        ((run_id,),) = connection.execute("SELECT run_id FROM scores LIMIT 1").fetchall()
        for number, query in enumerate(random_addresses(20, 10_000, 8)):
            monkeypatch.setattr(state, "chosen", lambda query=query: query)
            wanted = state.get_filter(query.get("sort", "aum")[:50], "train")
            assert all(math.isfinite(v) for point in wanted.region for v in point)
            assert wanted.at_least <= wanted.at_most and 0 <= wanted.low <= wanted.high <= 100
            assert all(isinstance(i, int) and 0 <= i < 10**9 for i in (*state.get_ints("samples"), *wanted.labels))
            state.get_int("page", 1), state.get_int("sample")
            if number % 20 == 0:
                try:
                    where = condition(connection, run_id, wanted) or "true"
                except WinnowError as error:  # a score or rule that the run does not have
                    assert "\n" not in str(error).replace("Zq14\r\n", "")
                    continue
                connection.execute(f"SELECT count(*) FROM samples WHERE {where}").fetchall()
                queried += 1
    assert queried > 100


def test_names_in_an_address_are_never_sql(old_workspace: Path) -> None:
    from engine.queries.samples import Filter

    with connected(Workspace.open(old_workspace), "noisy") as connection:
        ((run_id,),) = connection.execute("SELECT run_id FROM scores LIMIT 1").fetchall()
        for name in (*HOSTILE, "' OR true --", "x' UNION SELECT 1 --"):
            where = condition(connection, run_id, Filter(about=name, value=name))
            (row,) = connection.execute(f"SELECT count(*) FROM samples WHERE {where}").fetchall()
            assert row == (0,), name
            assert isinstance(connection, duckdb.DuckDBPyConnection)


def opens(open_page: Open, root: Path, page: str, query: dict[str, str]) -> None:
    app = open_page(root, page, **{"dataset": "digits-noisy", **query})
    shown = {name: value[:60] for name, value in query.items()}
    assert not app.exception, (page, shown, app.exception[0].message, app.exception[0].stack_trace)
    found, _ = wrong(app)
    assert not found, (page, shown, found[:3])


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_whatever_its_address_says(judged_workspace: Path, open_page: Open, page: str) -> None:
    for query in random_addresses(PAGES.index(page), 3, 20):
        opens(open_page, judged_workspace, page, query)
    opens(open_page, judged_workspace, page, {"dataset": HOSTILE[0] + HOSTILE[1]})
    assert PAGES


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_whatever_its_address_says_long(noisy: tuple[Path, str], open_page: Open, page: str) -> None:
    for query in random_addresses(100 + PAGES.index(page), 60, 20):
        opens(open_page, noisy[0], page, {"dataset": noisy[1], **query})
    assert PAGES
