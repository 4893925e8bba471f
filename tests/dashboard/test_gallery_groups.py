"""The gallery's heads, colors and saved filters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard import data, gallery, state
from dashboard.data import View
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.queries.connection import connected
from engine.queries.groups import Grouped
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.decisions import fetch_decisions_log, undo
from engine.store.workspace import Workspace


def found(sizes: list[int], keys: list[int]) -> Grouped:
    return Grouped(np.arange(sum(sizes), dtype=np.int32), np.cumsum([0, *sizes]), np.array(keys))


VIEW = View(None, "", ("cat", "dog", "a name of several words"))  # type: ignore[arg-type]


def test_heads_cover_the_page_and_say_what_goes_on() -> None:
    pairs = found([5, 3, 4], [1, 5, -1])
    heads = gallery.heads(VIEW, pairs, "pair", 4, 9)
    assert [(h.title, h.first, h.last) for h in heads] == [
        ("cat → dog", 0, 1),
        ("dog → a name of several words", 1, 4),
        ("no other label", 4, 5),
    ]
    assert heads[0].notes == [("", "5 samples"), ("", "continued")] and heads[1].notes == [("", "3 samples")]
    assert [h.title for h in gallery.heads(VIEW, found([2, 2], [0, 2]), "class", 0, 2)] == ["cat"]


def test_the_next_group_is_on_the_page_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[object] = []
    monkeypatch.setattr(state, "put", lambda **values: pages.append(values["page"]))
    groups = found([100, 7, 30], [0, 1, 2])  # pages of 10: the second group begins on page 11, as does the third
    gallery.turn(groups, 0, 10, 10, 1)
    gallery.turn(groups, 100, 110, 10, 1)  # no group begins after this page
    gallery.turn(groups, 110, 120, 10, -1)
    gallery.turn(groups, 100, 110, 10, -1)
    assert pages == [11, 11, 1]


def test_the_scale_goes_from_dark_to_light() -> None:
    light = [sum(bytes.fromhex(gallery.scale(share)[1:])) for share in np.linspace(0, 1, 9)]
    assert light == sorted(light) and gallery.scale(-1) == gallery.scale(0) != gallery.scale(2) == gallery.scale(1)


def test_a_saved_filter_is_the_whole_filter_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "session_state", {})
    monkeypatch.setattr(type(st.query_params), "from_dict", lambda self, given: None)
    state.put(label="1,2", name="a&b=c", list="short", sort="aum", page=3)
    query = state.filter_query()
    state.clear_filter()
    assert state.filter_query() == ""
    state.put(rule="aum_threshold", sample=7)
    state.choose_filter(query + "&sort=el2n&dataset=other&evil=1")
    assert (state.get("label"), state.get("name"), state.get("list"), state.get("rule")) == (
        "1,2",
        "a&b=c",
        "short",
        "",
    )
    assert (state.get("sort"), state.get("dataset"), state.get("evil"), state.get("sample")) == ("aum", "", "", "")
    assert data.Filter(labels=(1, 2), named="a&b=c", flagged=True, split="train") == state.get_filter("")


def test_spare_copies_are_dropped_by_one_button(tmp_path: Path, open_page: Callable[..., AppTest]) -> None:
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(12)]
    images[4], images[7] = images[2], images[6]
    for i, image in enumerate(images):
        (tmp_path / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "images" / "ab"[i % 2] / f"{i:02}.png")
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec("copies", str(tmp_path / "images"), test_fraction=0))
    compute(workspace, plan_run(workspace, "copies", ["dark"], TrainingSpec()), "cpu")
    app = open_page(workspace.root, "gallery", dataset="copies", list="all", group="duplicates")
    (button,) = [button for button in app.button if "spare" in button.label]
    assert button.label == "Drop 2 spare copies"
    button.click().run()
    assert not app.exception and not [button for button in app.button if "spare" in button.label]
    rows = fetch_decisions_log(workspace, "copies")
    assert set(rows["action"]) == {"drop"} and set(rows["note"]) == {"spare copy"}
    with connected(workspace, "copies") as connection:
        names = connection.execute("SELECT sample_id, source FROM samples").fetchall()
    assert {source[-6:] for i, source in names if i in set(rows["sample_id"])} == {"04.png", "07.png"}
    assert undo(workspace, "copies") and not len(fetch_decisions_log(workspace, "copies"))  # in one batch
