"""Clouds of samples in a real browser: outlines on a slow server, clicks, zoom, and what an address brings back."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import serving
from playwright.sync_api import Locator, Page, WebSocketRoute, expect
from test_dashboard import colors, open_from_menu, settle, visit

pytestmark = pytest.mark.browser
MAKE = Path(__file__).parents[1] / "benchmarks" / "make_workspace.py"


class Line:
    """The connection to the server, on which what the server says can be held back: a slow server."""

    def __init__(self, page: Page) -> None:
        self.slow, self.held, self.heard = False, [], 0
        page.route_web_socket(re.compile("_stcore/stream"), self._connected)

    def _connected(self, client: WebSocketRoute) -> None:
        self.client, self.server = client, client.connect_to_server()
        self.server.on_message(self._from_server)

    def _from_server(self, message: Any) -> None:
        self.heard += len(message)
        if self.slow:
            self.held.append(message)
        else:
            self.client.send(message)

    def release(self) -> None:
        self.slow = False
        while self.held:
            self.client.send(self.held.pop(0))


def cloud(page: Page) -> Locator:
    """The cloud, once it is painted."""
    found = page.locator(".cloud")
    expect(found).to_have_attribute("data-painted", re.compile("points|density"))
    settle(page)
    return found


def drag(page: Page, corners: tuple[tuple[float, float], ...]) -> None:
    """Draw over the cloud, corners in shares of its width and height."""
    box = page.locator(".cloud .over").bounding_box()
    assert box is not None
    places = [(box["x"] + fx * box["width"], box["y"] + fy * box["height"]) for fx, fy in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for x, y in places[1:]:
        page.mouse.move(x, y, steps=10)
    page.mouse.up()


HALF = ((0.02, 0.02), (0.98, 0.02), (0.98, 0.5), (0.02, 0.5), (0.02, 0.02))


def counted(page: Page) -> tuple[int, int]:
    """The samples that meet the conditions, and all."""
    first = page.locator(".st-key-chips").inner_text().split("\n")[0]
    n, total = first.split(" of ")
    return int(n.replace(",", "")), int(total.replace(",", ""))


def test_a_lasso_on_the_map_becomes_a_filter_that_other_pages_follow(page: Page, address: str) -> None:
    visit(page, address, "/embedding")
    shown = cloud(page)
    assert colors(page.locator(".cloud .stage")) > 30
    page.get_by_role("button", name="Lasso: draw around samples").click()
    drag(page, HALF)
    expect(page).to_have_url(re.compile("[?&]region="))
    expect(shown).to_have_attribute("data-outline", "kept")
    expect(page.locator(".st-key-chips")).to_contain_text("region of the map")
    n, total = counted(page)
    assert 0 < n < total
    page.reload()
    expect(page.locator(".st-key-chips")).to_contain_text(f"{n:,} of {total:,}")  # the outline is in the link
    expect(shown).to_have_attribute("data-outline", "kept")
    settle(page)
    open_from_menu(page, "Curate", "Export")
    expect(page.get_by_role("heading", name=f"{n:,} of")).to_be_visible()


def test_a_lasso_outlives_a_click_that_follows_it_on_a_slow_server(own_page: Page, address: str) -> None:
    page = own_page
    line = Line(page)
    visit(page, address, "/embedding?dataset=digits-noisy")
    shown = cloud(page)
    page.get_by_role("button", name="Lasso: draw around samples").click()
    line.slow = True
    drag(page, HALF)
    expect(shown).to_have_attribute("data-outline", "sent")  # it stays while nothing comes back
    page.wait_for_timeout(1500)
    page.locator("[data-testid=stPagination] button", has_text="2").first.click()  # with the address of before
    page.wait_for_timeout(1500)
    assert "region=" not in page.url
    line.release()
    expect(page).to_have_url(re.compile("[?&]region="))
    expect(shown).to_have_attribute("data-outline", "kept")
    settle(page)
    expect(page.locator(".st-key-chips")).to_contain_text("region of the map")
    assert "region=" in page.url


def test_a_click_opens_a_sample_beside_the_map_and_the_pointer_shows_its_picture(page: Page, address: str) -> None:
    visit(page, address, "/embedding?dataset=digits-noisy")
    shown = cloud(page)
    places = "c => [...c.cloud.points.ids].map((id, i) => [id, c.cloud.px(c.cloud.points.x[i]), c.cloud.py(c.cloud.points.y[i])])"
    sample_id, x, y = shown.evaluate(places)[-1]  # painted last, so that it is on top
    over = page.locator(".cloud .over")
    over.hover(position={"x": x, "y": y})
    card = page.locator(".peek")
    expect(card).to_contain_text(f"sample {sample_id}")
    expect(card.locator("img")).to_be_visible()
    over.click(position={"x": x, "y": y})
    expect(page).to_have_url(re.compile(f"sample={sample_id}(&|$)"))
    expect(page.get_by_role("heading", name=f"Sample {sample_id}")).to_be_visible()
    assert "/embedding" in page.url and shown.is_visible()
    settle(page)
    over.focus()
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("sample="))


def test_an_outline_over_two_scores_filters_the_gallery(page: Page, address: str) -> None:
    visit(page, address, "/compare?dataset=digits-noisy")
    shown = cloud(page)
    page.get_by_role("button", name="Box: drag over samples").click()
    drag(page, ((0.1, 0.05), (0.6, 0.6)))
    expect(shown).to_have_attribute("data-outline", "kept")
    expect(page.locator(".st-key-chips")).to_contain_text("region of aum and el2n")
    n, total = counted(page)
    assert 0 < n < total
    page.get_by_role("link", name="Gallery").click()
    expect(page.locator(".st-key-chips")).to_contain_text(re.compile(f"^{n:,} of"))
    page.locator(".st-key-chips").get_by_role("button", name="region of aum and el2n").click()
    expect(page.locator(".st-key-chips")).not_to_contain_text("region")


def test_a_threshold_counts_as_it_is_moved_and_filters_when_released(page: Page, address: str) -> None:
    visit(page, address, "/compare?dataset=digits-noisy&compare=threshold")
    told = page.locator(".threshold output")
    expect(told).to_contain_text("1,438 samples, 100.0 %")
    line = page.locator(".threshold .line")
    line.focus()
    for _ in range(12):
        page.keyboard.press("PageUp")
    expect(told).to_contain_text("precision")
    n = int(re.findall(r": ([\d,]+) samples", told.inner_text())[0].replace(",", ""))
    assert 0 < n < 1438
    expect(page).to_have_url(re.compile("measure=aum"))
    expect(page.locator(".st-key-chips")).to_contain_text("aum at most")
    assert counted(page) == (n, 1438)
    assert line.get_attribute("role") == "slider" and str(n) in (line.get_attribute("aria-valuetext") or "")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard over a workspace of more samples than are drawn one by one."""
    out = tmp_path_factory.mktemp("many") / "workspace"
    subprocess.run([sys.executable, str(MAKE), "24000", str(out)], check=True, capture_output=True)
    with serving(out, out.parent) as url:
        yield url


def test_a_large_map_is_a_density_that_zooming_refines_into_points(own_page: Page, many: str) -> None:
    page = own_page
    line = Line(page)
    visit(page, many, "/embedding")
    shown = cloud(page)
    assert shown.get_attribute("data-painted") == "density" and colors(page.locator(".cloud .stage")) > 30
    assert page.locator(".js-plotly-plot").count() == 0 and line.heard < 3_000_000
    before = shown.get_attribute("data-window")
    over = page.locator(".cloud .over")
    over.focus()
    for _ in range(3):
        page.keyboard.press("+")
    expect(shown).to_have_attribute("data-painted", "points")
    assert shown.get_attribute("data-window") != before
    page.keyboard.press("0")
    expect(shown).to_have_attribute("data-painted", "density")
    assert 0 < int(shown.get_attribute("data-labels") or 0) <= 10
