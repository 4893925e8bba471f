"""The dashboard as a person sees it: what is painted, what the keyboard and the mouse do, what a link brings back."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Error, Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from dashboard.chapters import all_chapters
from engine.queries.connection import connected
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.jobs import computing
from engine.store.journal import append_journal
from engine.store.workspace import Workspace

pytestmark = pytest.mark.browser
expect.set_options(timeout=90_000)

READY = "[data-testid=stApp][data-test-script-state=notRunning]"


def visit(page: Page, address: str, path: str = "/") -> None:
    page.goto(at(address, path))
    page.wait_for_selector("[data-testid=stSidebar] [data-testid=stSelectbox]")
    settle(page)


def open_from_menu(page: Page, menu: str, name: str) -> None:
    """Open a page of a menu of the navigation, which a script run that ends meanwhile closes again."""
    for _ in range(20):
        page.get_by_text(menu, exact=True).click()
        try:
            page.get_by_text(name, exact=True).last.click(timeout=5_000)
        except PlaywrightTimeout:
            continue
        return
    raise AssertionError(f"{menu} never listed {name}")


def at(address: str, path: str) -> str:
    """A page by its path, opened with the token of the address that was printed."""
    origin, token = address.split("/?")
    return f"{origin}{path}{'&' if '?' in path else '?'}{token}"


def settle(page: Page) -> None:
    """Wait until the script has run and nothing more is on its way."""
    page.wait_for_timeout(250)
    page.wait_for_selector(READY)
    page.wait_for_timeout(250)


def colors(element: Locator) -> int:
    """How many different colors an element is painted in."""
    try:
        painted = element.screenshot()
    except Error:  # a chart that grows was drawn anew meanwhile, and the element of before is gone
        painted = element.screenshot()
    picture = Image.open(io.BytesIO(painted)).convert("RGB")
    return len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0))


def ids(page: Page, sql: str, root: Path) -> list[int]:
    with connected(Workspace.open(root), "digits-noisy") as connection:
        return [int(row[0]) for row in connection.execute(sql).fetchall()]


HARDEST = "SELECT sample_id FROM scores WHERE score = 'aum' ORDER BY rank DESC"
EVERYTHING = "/gallery?dataset=digits-noisy&list=all&split=train&sort=aum"
"""The training samples in the order of HARDEST."""


def test_a_page_without_a_chart_does_not_load_the_library_of_charts(page: Page, address: str) -> None:
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url) if "plotly" in request.url.lower() else None)
    for path in ("/", "/gallery", "/review", "/matrix", "/embedding", "/decisions"):
        visit(page, address, path)
        assert loaded == [], path
    visit(page, address, "/psi")
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    assert loaded  # 4.7 MB


@pytest.mark.parametrize(
    ("path", "plots"),
    [
        ("/trajectories", 4), ("/scores", 2), ("/compare?dataset=digits-noisy&compare=all", 1),
        ("/psi", 1), ("/export", 1),
        ("/figures?dataset=digits-noisy&figure=prune-3", 1), ("/figures?dataset=digits-noisy&figure=cg-4", 1),
        ("/figures?dataset=digits-noisy&figure=aum-2", 1), ("/figures?dataset=digits-noisy&figure=rop-3", 1),
    ],
)  # fmt: skip
def test_every_chart_is_painted(page: Page, address: str, path: str, plots: int) -> None:
    visit(page, address, path)
    charts = page.locator(".js-plotly-plot")
    expect(charts).to_have_count(plots)
    for i in range(plots):
        chart = charts.nth(i)
        chart.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
        assert colors(chart) > 30, f"chart {i} of {path} is nearly blank"
    assert page.get_by_text("Share chart").count() == 0
    assert page.locator("[data-testid=stException], [data-testid=stAlertContentError]").count() == 0


def test_the_overview_opens_at_its_own_address_and_at_the_root(page: Page, address: str) -> None:
    for path in ("/", "/overview", "/overview?dataset=digits"):
        visit(page, address, path)
        expect(
            page.get_by_role("heading", name="digits" if "?" in path else "digits-noisy", exact=True)
        ).to_be_visible()
        expect(page.get_by_role("heading", name="Runs")).to_be_visible()
        expect(page.locator("[data-testid=stTopNavLink][aria-current=page]")).to_contain_text("Overview")
        assert page.get_by_text("Page not found").count() == 0


def test_the_gallery_shows_the_hardest_first_as_sharp_pictures(page: Page, address: str, demo_workspace: Path) -> None:
    visit(page, address, EVERYTHING)
    cards = page.locator(".card")
    expect(cards).to_have_count(96)
    shown = cards.evaluate_all("cards => cards.map(c => Number(c.dataset.id))")
    assert shown == ids(page, HARDEST, demo_workspace)[:96]
    images = cards.locator("img").evaluate_all(
        "images => images.map(i => [i.complete, i.naturalWidth, getComputedStyle(i).imageRendering, i.width])"
    )
    assert all(
        complete and natural == 8 and how == "pixelated" and width > 64 for complete, natural, how, width in images
    )
    cards.first.locator(".mark, .value").evaluate_all(
        "marks => marks.forEach(mark => mark.remove())"
    )  # they lie on the picture
    assert colors(cards.first.locator("img")) <= 80  # 64 pixels, enlarged without a shade between them
    assert cards.first.locator(".chip").count() == 2
    assert cards.first.locator(".chip.true").count() == 1


def test_the_gallery_opens_on_the_shortlist(page: Page, address: str, demo_workspace: Path) -> None:
    visit(page, address, "/gallery?dataset=digits-noisy")
    listed = ids(page, "SELECT sample_id FROM shortlist WHERE listed ORDER BY rank", demo_workspace)
    cards = page.locator(".card")
    expect(cards).to_have_count(min(96, len(listed)))
    assert cards.evaluate_all("cards => cards.map(c => Number(c.dataset.id))") == listed[:96]
    expect(page.locator(".st-key-chips")).to_contain_text(f"{len(listed):,} of 1,797")
    assert cards.first.locator(".mark.on").count() == 1 and "%" in cards.first.locator(".mark").inner_text()
    page.locator(".st-key-chips").get_by_role("button", name="on the shortlist").click()
    expect(page.locator(".st-key-chips")).to_contain_text("1,797 of 1,797")


def test_a_click_opens_the_detail_and_the_keyboard_moves_on(page: Page, address: str, demo_workspace: Path) -> None:
    hardest = ids(page, HARDEST, demo_workspace)
    visit(page, address, EVERYTHING)
    page.locator(".card").nth(2).click()
    expect(page.get_by_text("Nearest neighbors (cosine of the features)")).to_be_visible()
    expect(page).to_have_url(re.compile(f"sample={hardest[2]}(&|$)"))
    settle(page)
    expect(page.locator(".card.selected:focus")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(f"sample={hardest[3]}(&|$)"))
    settle(page)
    assert page.locator(".card.selected").get_attribute("data-id") == str(hardest[3])
    assert page.locator(".st-key-neighbors .card").count() == 12
    assert colors(page.locator(".st-key-detail .js-plotly-plot").first) > 30
    picture = page.locator(".st-key-detail .zoom .opens img")
    assert picture.evaluate("i => [i.naturalWidth, getComputedStyle(i).imageRendering]")[1] == "pixelated"
    page.reload()
    expect(page.get_by_role("heading", name=f"Sample {hardest[3]}")).to_be_visible()  # the link brings it back
    settle(page)
    page.locator(".card.selected").focus()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Nearest neighbors (cosine of the features)")).to_have_count(0)
    assert "sample=" not in page.url


def test_enter_opens_the_card_that_has_the_focus(page: Page, address: str, demo_workspace: Path) -> None:
    visit(page, address, EVERYTHING)
    expect(page.locator(".card")).to_have_count(96)
    page.locator(".card").first.focus()
    page.keyboard.press("ArrowRight")
    assert "sample=" not in page.url  # nothing is open, so the arrows only move
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"sample={ids(page, HARDEST, demo_workspace)[1]}(&|$)"))


def test_a_class_filters_with_n_of_n_and_its_chip_takes_it_back(page: Page, address: str, demo_workspace: Path) -> None:
    total = len(ids(page, HARDEST, demo_workspace))
    threes = ids(page, "SELECT sample_id FROM samples WHERE split = 'train' AND label = 3", demo_workspace)
    visit(page, address, EVERYTHING)
    page.locator(".facets .row").nth(3).click()
    chips = page.locator(".st-key-chips")
    expect(chips).to_contain_text(f"{len(threes)} of {total:,}")
    expect(page.locator(".facets .row.on .name")).to_have_text("3")
    settle(page)
    assert {c.inner_text() for c in page.locator(".card .chip.given").all()} == {"3"}
    chips.get_by_role("button", name="given 3").click()
    expect(chips).to_contain_text(f"{total:,} of {total:,}")
    assert "label=" not in page.url


def test_pages_follow_one_another_without_a_gap(page: Page, address: str, demo_workspace: Path) -> None:
    visit(page, address, f"{EVERYTHING}&n=48&page=2")
    expect(page.locator(".card")).to_have_count(48)
    shown = page.locator(".card").evaluate_all("cards => cards.map(c => Number(c.dataset.id))")
    assert shown == ids(page, HARDEST, demo_workspace)[48:96]


def test_an_export_downloads_what_the_page_counts(page: Page, address: str) -> None:
    visit(page, address, "/export?dataset=digits-noisy&rule=aum_threshold&mode=drop")
    heading = page.get_by_role("heading", name=re.compile("kept")).first.inner_text()
    n = int(heading.split(" of ")[0].replace(",", ""))
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    content = Path(download.value.path()).read_text().splitlines()
    written = "sample_id,split,label,true_label,class_name,true_class_name,source,p_wrong,flagged,suspicion_rank"
    assert content[0].startswith(written)
    assert len(content) == n + 1


def test_a_run_shows_its_progress_and_appears_by_itself(
    small_address: str, page: Page, small_workspace: Workspace, small_training: Callable[..., TrainingSpec]
) -> None:
    visit(page, small_address)
    expect(page.get_by_text("winnow run small")).to_be_visible()
    with computing(small_workspace, "feedfeedfeed", {"kind": "run", "dataset": "small"}, "a long one", {}) as folder:
        append_journal(folder, "progress", stage="training", fraction=0.37, seconds_left=80.0)
        expect(page.get_by_text("a long one · training · 37 % · 80 s left")).to_be_visible()
        open_from_menu(page, "Analyze", "Psi curves")  # the other pages stay usable
        expect(page.get_by_text("small has no psi-curve yet")).to_be_visible()
        page.get_by_role("link", name="Overview").click()
        expect(page.get_by_text("37 %")).to_be_visible()
    compute(small_workspace, plan_run(small_workspace, "small", ["all"], small_training()), "cpu")
    expect(page.get_by_text(re.compile("Most suspicious|Hardest to learn"))).to_be_visible()  # nobody reloaded the page
    expect(page.locator(".card").first).to_be_visible()


def test_the_guide_opens_its_chapters_by_links_that_keep_what_is_chosen(page: Page, address: str) -> None:
    first, second = all_chapters()[:2]
    visit(page, address, "/gallery?dataset=digits")
    page.get_by_role("link", name="Guide").click()
    chapters = page.locator(".st-key-chapters")
    expect(page.locator("h1")).to_have_text(first.title)
    expect(chapters.locator("strong")).to_have_text(first.title)
    chapters.get_by_role("link", name=second.title, exact=True).click()
    expect(page.locator("h1")).to_have_text(second.title)
    expect(page).to_have_url(re.compile(f"/guide[?].*dataset=digits&.*chapter={second.name}"))
    page.go_back()
    expect(page.locator("h1")).to_have_text(first.title)


def test_the_dark_theme_is_dark_and_its_charts_too(page: Page, address: str) -> None:
    page.emulate_media(color_scheme="dark")
    visit(page, address, "/scores")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    settle(page)
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), np.float64)
    assert picture.mean() < 70
    assert colors(page.locator(".js-plotly-plot").first) > 30


def test_no_page_is_wider_than_a_phone_where_an_open_sample_covers_it(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    for path in ("/versions", "/figures?figure=aum-6", "/matrix", "/compare?compare=all", "/gallery?sample=3"):
        page.goto(at(address, path))
        page.wait_for_selector("[data-testid=stMainBlockContainer] [data-testid=stElementContainer]")
        settle(page)
        main = page.locator("[data-testid=stMain]")
        assert main.evaluate("m => m.scrollWidth - m.clientWidth") <= 0, path
    sheet = page.locator(".st-key-detail").bounding_box()
    assert sheet is not None and sheet["y"] < 80 and sheet["width"] == 420 and sheet["y"] + sheet["height"] == 800


def test_pages_fit_a_narrow_window(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 1000, "height": 800})
    for path in ("/", "/gallery?dataset=digits-noisy&sample=3", "/embedding", "/export"):
        visit(page, address, path)
        assert (
            page.evaluate("(m => m.scrollWidth - m.clientWidth)(document.querySelector('[data-testid=stMain]'))") <= 0
        ), path
