"""What a grid's client says is decided once, in order, whatever the client repeats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import streamlit as st

from dashboard import data, deciding
from dashboard.data import View
from engine.store.decisions import fetch_decisions_log
from engine.store.workspace import Workspace


def act(seq: int, action: str, ids: list[int] | None, **more: object) -> dict[str, object]:
    return {"seq": seq, "action": action, "ids": ids, "label": None, "n": len(ids or []), "scope": ""} | more


@pytest.fixture
def view(small_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> View:
    monkeypatch.setenv("WINNOW_WORKSPACE", str(small_workspace.root))
    at = data.snapshot("small")
    return View(at, "", tuple(data.class_names(at)))


@pytest.fixture
def send(view: View, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Sends acts as the client of a grid over the samples 0 to 9 does; returns what came of them."""
    state: dict[str, object] = {}
    monkeypatch.setattr(st, "session_state", state)

    def send(*acts: dict[str, object], client: str = "one") -> str:
        acting = deciding.acting(view, np.arange(10, dtype=np.int32), "samples")
        state["samples"] = {"acts": {"client": client, "acts": list(acts)}}
        acting.on_acts()
        found = deciding.acting(view, np.arange(10, dtype=np.int32), "samples")
        return found.message + (" (wrong)" if found.wrong else "")

    return send


def decided(root: Workspace) -> dict[int, str]:
    rows = fetch_decisions_log(root, "small")
    return dict(zip(rows["sample_id"].tolist(), rows["action"].tolist(), strict=True))


def test_what_the_client_repeats_is_decided_once(send: Callable[..., str], small_workspace: Workspace) -> None:
    first = act(1, "drop", [3, 4])
    assert send(first) == "2 samples dropped"
    assert send(first, act(2, "keep", [5])) == "1 sample kept"
    assert decided(small_workspace) == {3: "drop", 4: "drop", 5: "keep"}
    assert send(first, act(2, "keep", [5]), act(3, "undo", [])) == "taken back"
    assert decided(small_workspace) == {3: "drop", 4: "drop"}
    assert send(act(1, "keep", [3]), client="another page") == "1 sample kept"  # its numbers begin anew
    assert decided(small_workspace) == {3: "keep", 4: "drop"}


def test_all_that_match_are_those_that_were_counted(
    send: Callable[..., str], view: View, small_workspace: Workspace
) -> None:
    scope = deciding.acting(view, np.arange(10, dtype=np.int32), "samples").scope
    assert send(act(1, "drop", None, n=11, scope=scope)).endswith("select again (wrong)")
    assert send(act(2, "drop", None, n=10, scope="another filter")).endswith("select again (wrong)")
    assert decided(small_workspace) == {}
    assert send(act(3, "drop", None, n=10, scope=scope)) == "10 samples dropped"
    assert decided(small_workspace) == dict.fromkeys(range(10), "drop")
    assert send(act(4, "undo", [])) == "taken back"  # all ten at once
    assert decided(small_workspace) == {}


def test_what_is_refused_is_said_and_does_not_come_back(send: Callable[..., str], small_workspace: Workspace) -> None:
    refused = act(1, "drop", [10_000])
    assert send(refused).startswith("sample 10000; allowed: 0 to ") and send(refused).endswith("(wrong)")
    assert send(refused, act(2, "drop", [1])) == "1 sample dropped"
    assert decided(small_workspace) == {1: "drop"}


def test_classes_of_one_name_are_told_apart_where_a_person_types_one(view: View) -> None:
    alike = View(view.at, "", ("cat", "dog", "cat"))
    assert deciding.acting(alike, np.arange(3, dtype=np.int32), "samples").classes == ["cat · 0", "dog", "cat · 2"]
