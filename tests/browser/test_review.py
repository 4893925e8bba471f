"""Deciding by keys in a real Chromium: nothing is lost when the server is killed, when it is not there, or beside others."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from given_verdicts import scored_run
from playwright.sync_api import Browser, Page, expect

from engine.queries.connection import connected
from engine.queries.reviews import fetch_doubts
from engine.store.decisions import fetch_decisions_log
from engine.store.workspace import Workspace

pytestmark = pytest.mark.browser
expect.set_options(timeout=90_000)

REVIEW = "/review?dataset=digits-noisy"


@pytest.fixture
def root(judged_workspace: Path, tmp_path: Path) -> Path:
    """A workspace of the test's own whose shortlist has 350 samples, 100 of them of the test part."""
    shutil.copytree(judged_workspace, tmp_path / "workspace")
    return tmp_path / "workspace"


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """start(port): a dashboard, without a token, so that one that is started again is the same to a browser."""
    running: list[subprocess.Popen[bytes]] = []

    def started(port: int) -> subprocess.Popen[bytes]:
        words = ["--workspace", str(root), "--port", str(port), "--no-token"]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dashboard", *words],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        running.append(process)
        assert process.stdout is not None
        assert any(line.startswith(b"dashboard at ") for line in process.stdout), "the dashboard did not start"
        return process

    yield started
    for process in running:
        process.kill()
        process.communicate(timeout=20)


@contextlib.contextmanager
def reviewing(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.goto(url)
    page.wait_for_selector(".review .window img")
    yield page
    context.close()


def at(page: Page, number: int, n: int = 350) -> None:
    """Wait until the sample at a place of the list is there."""
    expect(page.locator(".review .place")).to_have_text(f"{number} of {n}")
    page.wait_for_selector(".review .window img")


def shortlist(root: Path) -> list[tuple[int, int | None]]:
    """sample id, suggested label of the shortlist, in its order."""
    run_id = scored_run(root, "digits-noisy")
    with connected(Workspace.open(root), "digits-noisy") as connection:
        ids = [
            i for (i,) in connection.execute("SELECT sample_id FROM shortlist WHERE listed ORDER BY rank").fetchall()
        ]
        doubts = fetch_doubts(connection, run_id, ids)
    return [
        (int(i), None if s != s else int(s)) for i, s in zip(ids, doubts["suggested_label"].astype(float), strict=True)
    ]


def decided(root: Path) -> dict[int, tuple[str, int | None]]:
    found = fetch_decisions_log(Workspace.open(root), "digits-noisy")
    rows = zip(found["sample_id"], found["action"], found["new_label"].astype(float), strict=True)
    return {int(i): (action, None if label != label else int(label)) for i, action, label in rows}


@pytest.mark.parametrize("seconds", [None, pytest.param(60.0, marks=pytest.mark.slow)])
def test_a_hundred_are_reviewed_by_keys_and_a_killed_server_loses_none(
    browser: Browser,
    root: Path,
    start: Callable[[int], subprocess.Popen[bytes]],
    free_port: int,
    seconds: float | None,  # that it may take, on a machine that does nothing else
) -> None:
    samples = shortlist(root)
    expected: list[tuple[int, str, int | None]] = []
    server = start(free_port)
    with reviewing(browser, f"http://localhost:{free_port}{REVIEW}") as page:
        began = time.monotonic()
        for i in range(100):
            sample_id, suggested = samples[i]
            at(page, i + 1)
            key = "kdsu"[i % 4] if suggested is not None or i % 4 != 2 else "k"
            action = {"k": "keep", "d": "drop", "s": "relabel", "u": "unsure"}[key]
            page.keyboard.press("Enter" if key == "s" and i % 8 == 2 else key)
            expected.append((sample_id, action, suggested if key == "s" else None))
        took = time.monotonic() - began
        print(f"100 decisions in {took:.1f} s")
        assert seconds is None or took < seconds
        for i in range(10):
            page.keyboard.press("Backspace" if i % 2 else "Control+z")
            at(page, 100 - i)
        server.kill()  # whatever it has not written by now
        server.wait()
        page.keyboard.press("d")  # nobody is there to hear it
        at(page, 92)
        expect(page.locator(".review .saved")).to_contain_text("not saved: the server does not answer")
        server = start(free_port)
        expect(page.locator(".review .saved")).to_have_text("saved")
        server.kill()  # and what it has acknowledged is on the disk
        server.wait()
    stands = {i: (action, label) for i, action, label in expected[:90]} | {samples[90][0]: ("drop", None)}
    assert decided(root) == stands
    with duckdb.connect(str(root / "decisions.duckdb"), read_only=True) as log:
        [(decisions, undone)] = log.execute(
            "SELECT count(*) FILTER (action <> 'undo'), count(*) FILTER (action = 'undo') FROM log"
        ).fetchall()
    assert (decisions, undone) == (101, 10)  # whatever was sent twice is there once


def test_two_who_decide_at_once_and_go_on_to_another_page_lose_nothing(
    browser: Browser, root: Path, serve_workspace: Callable[[Path], contextlib.AbstractContextManager[str]]
) -> None:
    samples = [i for i, _ in shortlist(root)]
    with serve_workspace(root) as url:
        origin, token = url.split("/?")
        address = f"{origin}{REVIEW}&{token}"
        with reviewing(browser, address) as one, reviewing(browser, f"{address}&order=easy") as other:
            for i in range(12):
                at(one, i + 1)
                one.keyboard.press("k")
                at(other, i + 1)
                other.keyboard.press("d")
            for page in (one, other):
                expect(page.locator(".review .saved")).to_have_text("saved")
            expect(one.locator(".review .decided")).to_have_text(re.compile(r"^2[0-4] decided$"))
            at(one, 13)
            one.keyboard.type("kkk")
            one.get_by_role("link", name="As a gallery").click()  # while most of it is on its way
            expect(one.locator(".card").first).to_be_visible()
            stands = decided(root)
    assert stands == {i: ("keep", None) for i in samples[:15]} | {i: ("drop", None) for i in samples[-12:]}


def test_every_key_does_what_it_says(
    browser: Browser, root: Path, serve_workspace: Callable[[Path], contextlib.AbstractContextManager[str]]
) -> None:
    samples = [i for i, _ in shortlist(root)]
    with serve_workspace(root) as url:
        origin, token = url.split("/?")
        with reviewing(browser, f"{origin}{REVIEW}&{token}") as page:
            keys, now = page.keyboard, page.locator(".review .now")
            keys.press("r")
            keys.type("9")
            expect(page.locator(".review li")).to_have_text(["9"])
            keys.press("Escape")
            at(page, 1)
            expect(now).to_be_hidden()
            keys.press("r")
            keys.type("kdu8")  # a name that is none: these keys do nothing else there
            keys.press("Enter")
            for _ in range(3):
                keys.press("Backspace")
            keys.press("Home")
            keys.press("Delete")
            keys.type("9")
            keys.press("Enter")
            at(page, 2)
            keys.down("d")  # held down
            for _ in range(4):
                keys.down("d")
            keys.up("d")
            at(page, 3)
            keys.press("ArrowLeft")
            expect(now).to_have_text("dropped")
            keys.press("b")
            expect(now).to_have_text("relabeled to 9")
            keys.press("k")  # another decision about the same
            keys.press("Control+z")
            at(page, 1)
            expect(now).to_have_text("relabeled to 9")
            keys.press("z")
            expect(page.locator(".review .window.full")).to_have_count(1)
            keys.press("Escape")
            expect(page.locator(".review .window.full")).to_have_count(0)
            keys.press("?")
            expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
            keys.press("k")
            keys.press("?")
            page.get_by_role("button", name="Next").click()
            page.get_by_role("button", name="Unsure").click()
            at(page, 3)
            expect(page.locator(".review .saved")).to_have_text("saved")
            page.get_by_test_id("stSidebar").get_by_role("combobox", name="Rule").first.click()
            keys.type("kd")  # into a field of the page
            keys.press("Escape")
            at(page, 3)
            page.reload()
            at(page, 3)  # the address names the sample
            page.locator(".review").focus()
            keys.press("Backspace")  # what was decided before the reload
            at(page, 2)
            expect(now).to_have_text("dropped")
            expect(page.locator(".review .saved")).to_have_text("saved")
    assert decided(root) == {samples[0]: ("relabel", 9), samples[1]: ("drop", None)}
