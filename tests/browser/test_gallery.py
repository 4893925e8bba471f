"""Selecting and deciding in the gallery, as a person does it with the keyboard and with the mouse."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from playwright.sync_api import Page, expect

from engine.store.decisions import fetch_batches, fetch_decisions_log
from engine.store.workspace import Workspace

pytestmark = pytest.mark.browser
expect.set_options(timeout=90_000)

Served = Callable[[Path], contextlib.AbstractContextManager[str]]
PATH = "/gallery?dataset=digits-noisy&list=all&split=train&sort=aum&n=48"


def opened(page: Page, address: str) -> list[int]:
    """Open the gallery; the samples on its first page."""
    origin, token = address.split("/?")
    page.goto(f"{origin}{PATH}&{token}")
    expect(page.locator(".card")).to_have_count(48)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    return [int(i) for i in page.locator(".card").evaluate_all("cards => cards.map(c => c.dataset.id)")]


def decided(root: Path) -> dict[int, str]:
    rows = fetch_decisions_log(Workspace.open(root), "digits-noisy")
    return dict(zip(rows["sample_id"].tolist(), rows["action"].tolist(), strict=True))


def test_a_range_is_dropped_and_all_that_match_by_one_batch_each(
    page: Page, demo_workspace: Path, tmp_path: Path, serve_workspace: Served
) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(demo_workspace, root)
    with serve_workspace(root) as address:
        ids = opened(page, address)
        status = page.locator(".bulk .state")
        cards = page.locator(".card")

        # By key alone, from the first Tab on.
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # skip to the samples
        expect(cards.nth(0)).to_be_focused()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        expect(status).to_have_text("3 selected")
        expect(page.locator(".card[aria-selected=true]")).to_have_count(3)
        page.keyboard.press("d")
        expect(status).to_have_text("3 samples dropped")
        expect(cards.nth(3)).to_be_focused()  # the page was drawn anew, and the focus is where it was
        assert decided(root) == dict.fromkeys(ids[1:4], "drop")
        expect(page.locator(".card.dropped")).to_have_count(3)
        with duckdb.connect(str(root / "decisions.duckdb")):  # while somebody else writes, the server answers nothing
            for key in ("ArrowRight", "k", "ArrowRight", "u", "ArrowRight", "s"):
                page.keyboard.press(key)
                page.wait_for_timeout(200)
        expect(status).to_contain_text("1 sample relabeled")
        three = {ids[4]: "keep", ids[5]: "unsure", ids[6]: "relabel"}
        assert decided(root) == dict.fromkeys(ids[1:4], "drop") | three
        batches = fetch_batches(Workspace.open(root), "digits-noisy")
        assert batches["action"].tolist() == ["relabel", "unsure", "keep", "drop"]  # each written once
        page.keyboard.press("Control+z")
        expect(status).to_have_text("taken back")
        assert ids[6] not in decided(root)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name=f"Sample {ids[6]}")).to_be_visible()
        expect(page.locator(".card.selected:focus")).to_have_count(1)
        page.locator(".card.selected").evaluate("card => card.blur()")  # as a page does that is laid out once more
        expect(page.locator(".card.selected:focus")).to_have_count(1)
        page.keyboard.press("Escape")
        expect(page.get_by_role("heading", name=f"Sample {ids[6]}")).to_have_count(0)

        # A box with the mouse, then all that match, confirmed by number.
        first, last = cards.nth(0).bounding_box(), cards.nth(2).bounding_box()
        assert first is not None and last is not None
        page.mouse.move(first["x"] + 30, first["y"] + 30)
        page.mouse.down()
        page.mouse.move(last["x"] + 30, last["y"] + 50, steps=5)
        page.mouse.up()
        expect(status).to_have_text("3 selected")
        before = decided(root)
        total = page.locator(".bulk .all").inner_text().split()[2]
        page.locator(".bulk .all").click()
        expect(status).to_have_text(f"{total} selected")
        page.keyboard.press("d")
        expect(page.locator(".bulk .question")).to_have_text(f"Drop {total} samples?")
        assert decided(root) == before  # nothing before it is confirmed
        page.locator(".bulk .yes").click()
        expect(status).to_have_text(f"{total} samples dropped")
        assert len(decided(root)) == int(total.replace(",", "")) and set(decided(root).values()) == {"drop"}
        page.locator(".bulk .undo").click()
        expect(status).to_have_text("taken back")
        assert decided(root) == before
        page.goto("about:blank")  # before the server ends, or the page says that it is gone
