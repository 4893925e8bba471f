"""A psi-curve from the browser: started, watched, paused, resumed and deleted, by a real job of its own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Page, expect
from test_dashboard import colors, settle, visit

from engine.queries.pruned import fetch_psi_journal
from engine.store.jobs import fetch_jobs
from engine.store.workspace import Workspace

pytestmark = pytest.mark.browser

COUNT = (
    "plot => (plot.calcdata || []).filter(c => c[0].trace.mode === 'lines+markers').reduce((n, c) => n + c.length, 0)"
)
POINTS, SEEDS = 20, 2
MEASURED = 2 * POINTS * SEEDS
Serve = Callable[[], AbstractContextManager[str]]


@pytest.fixture
def busy(small_workspace: Workspace) -> Iterator[Workspace]:
    """A workspace whose jobs are stopped in the end, whatever became of the test."""
    yield small_workspace
    for job in fetch_jobs(small_workspace):
        if job.state == "running":
            (small_workspace.run_dir(job.run_id) / "cancel").touch()


def drawn(page: Page) -> int:
    """How many measured points the chart shows."""
    chart = page.locator(".js-plotly-plot").first
    chart.wait_for()
    return int(chart.evaluate(COUNT))


def fill(page: Page, label: str, value: int) -> None:
    page.get_by_label(label, exact=True).fill(str(value))
    page.keyboard.press("Enter")
    settle(page)


def test_a_curve_is_started_watched_paused_and_resumed(page: Page, busy: Workspace, serve: Serve) -> None:
    with serve() as address:
        visit(page, address, "/psi")
        expect(page.get_by_text("small has no psi-curve yet")).to_be_visible()
        for label, value in (("Points", POINTS), ("Seeds", SEEDS), ("Epochs", 60)):
            fill(page, label, value)
        expect(page.get_by_text(f"{SEEDS + (POINTS - 1) * 2 * SEEDS} networks")).to_be_visible()
        page.get_by_role("button", name="Start", exact=True).click()
        pause = page.get_by_role("button", name="Pause", exact=True)
        expect(pause).to_be_visible()
        expect(page.get_by_text(re.compile(r"a minute"))).to_be_visible()
        first = drawn(page)
        while drawn(page) <= first:  # nobody reloads it
            page.wait_for_timeout(200)
        while colors(page.locator(".js-plotly-plot").first) <= 30:  # nothing of it is painted yet
            page.wait_for_timeout(200)
        pause.click()
        resume = page.get_by_role("button", name="Resume", exact=True)
        expect(resume).to_be_visible()
        expect(page.get_by_text("· paused")).to_be_visible()
        (job,) = fetch_jobs(busy)
        assert job.state == "cancelled"
        kept = len(fetch_psi_journal(busy, job.run_id))
        assert 0 < kept < MEASURED
        settle(page)
        resume.click()
        expect(resume).to_have_count(0)
        expect(pause).to_be_visible()
        page.goto("about:blank")
    # The dashboard is gone; the job is not.
    assert fetch_jobs(busy)[0].state == "running"
    until = time.monotonic() + 600  # dozens of networks are left to train, on a machine that may be busy
    while len(fetch_psi_journal(busy, job.run_id)) < 0.8 * MEASURED and time.monotonic() < until:
        time.sleep(0.5)  # nobody looks
    with serve() as address:
        visit(page, address, "/psi")
        while not busy.is_published(job.run_id) and time.monotonic() < until:
            page.wait_for_timeout(500)
        expect(page.get_by_role("button", name="Pause", exact=True)).to_have_count(0)
        expect(page.get_by_text("With every sample").first).to_be_visible()
        settle(page)
        assert busy.is_published(job.run_id)
        assert len(fetch_psi_journal(busy, job.run_id)) == MEASURED > kept
        assert drawn(page) == 2 * POINTS
        page.goto("about:blank")


def test_a_curve_that_is_not_wanted_is_stopped_and_deleted(page: Page, busy: Workspace, serve: Serve) -> None:
    with serve() as address:
        visit(page, address, "/psi")
        fill(page, "Points", 50)
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
        settle(page)
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("button", name="Delete it").click()
        expect(page.get_by_text("small has no psi-curve yet")).to_be_visible()
        assert busy.run_ids() == []
        page.goto("about:blank")


def test_what_cannot_be_started_is_said(page: Page, busy: Workspace, serve: Serve) -> None:
    with serve() as address:
        visit(page, address, "/psi")
        fill(page, "Points", 900)
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_text(re.compile(r"--points is 900; allowed: 2 to"))).to_be_visible()
        assert not any(job.state == "running" for job in fetch_jobs(busy))
        page.goto("about:blank")
