"""Classes against classes as a person works with them: by mouse and by keyboard, few classes and many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from test_dashboard import ids, settle, visit

pytestmark = pytest.mark.browser


def test_a_cell_filters_every_page_to_its_samples(page: Page, address: str, demo_workspace: Path) -> None:
    visit(page, address, "/matrix?dataset=digits-noisy")
    cells = page.locator(".matrix td button")
    expect(cells.first).to_be_visible()
    off = page.locator(".matrix td:not(.same) button").first
    name = off.get_attribute("aria-label") or ""
    given, suggested, n = map(int, re.match(r"given (\d), suggested (\d): (\d+) sample", name).groups())  # type: ignore[union-attr]
    off.click()
    expect(page.locator(".st-key-chips")).to_contain_text(f"{n:,} of 1,797")
    expect(page.get_by_role("heading", name=f"Given {given}, suggested {suggested}")).to_be_visible()
    settle(page)
    page.get_by_role("link", name="Open in the gallery").click()
    expect(page).to_have_url(re.compile(f"/gallery.*label={given}&suggested={suggested}"))
    expect(page.locator(".grid .card")).to_have_count(n)
    sql = f"SELECT sample_id FROM samples WHERE label = {given}"
    shown = page.locator(".grid .card").evaluate_all("cards => cards.map(c => Number(c.dataset.id))")
    assert set(shown) <= set(ids(page, sql, demo_workspace))


def test_the_keyboard_goes_from_cell_to_cell(page: Page, address: str) -> None:
    visit(page, address, "/matrix?dataset=digits-noisy&label=3&suggested=3")
    chosen = page.locator(".matrix td button[aria-pressed=true]")
    expect(chosen).to_have_attribute("aria-label", re.compile("^given 3, suggested 3: "))
    assert page.locator(".matrix td button[tabindex='0']").count() == 1
    chosen.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    focused = page.locator(".matrix td button:focus")
    name = focused.get_attribute("aria-label") or ""
    assert name.startswith("given 4, suggested ")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("label=4&suggested="))
    settle(page)
    expect(page.locator(".matrix td button[aria-pressed=true]")).to_have_attribute("aria-label", name)
