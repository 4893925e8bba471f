"""What a person waits for in the dashboard: seconds, bytes and memory, in a real Chromium, at any number of samples.

    python tests/benchmarks dashboard [--workspace WORKSPACE] [--repeats 5] [--json FILE]

WORKSPACE holds the dataset `generated` of make_workspace.py and is not written to but for the decisions of the last two
rows, which are taken back; without it one of 50,000 samples is made first, with --small of 4,000. Every row is measured
--repeats times, a third of it for the first two rows, which start the command anew each time, with
empty caches of the server and of the browser; the rows named cold are the first visit of a browser with an empty cache
to a page that this server has not drawn yet; all others are visits of the same server. A wait ends when what was waited
for is painted: a thumbnail, a number that changed, a canvas with points. Bytes are those on the wire, as Chromium counts
them, WebSocket frames included.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from make_workspace import make_workspace
from measuring import Row, Size, missing
from population import Options

from engine.store.records import dataset_facts
from engine.store.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--disable-gpu-compositing --disable-gpu-rasterization"  # as Chromium itself paints where there is no GPU
).split()
READY = "[data-testid=stApp][data-test-script-state=notRunning]"
PATIENCE_MS = 120_000
GALLERY = "/gallery?dataset=generated&list=all&split=train&sort=aum"


@contextmanager
def served(workspace: Path) -> Iterator[tuple[str, int, float]]:
    """A dashboard of its own: its address, its process id, and when its command was started."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dashboard", "--workspace", str(workspace), "--no-token", "--port", str(free_port())],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("dashboard at "))
        yield line.split()[2], process.pid, started
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def memory_mb(pid: int) -> float:
    """What a process holds of memory now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


class Wire:
    """Bytes that a page has received, as the browser counts them."""

    def __init__(self, page: Page) -> None:
        self.bytes, self.files = 0, []
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", lambda event: self.add(event["encodedDataLength"]))
        session.on("Network.webSocketFrameReceived", lambda event: self.add(frame_bytes(event["response"])))
        session.on("Network.requestWillBeSent", lambda event: self.files.append(event["request"]["url"]))

    def add(self, count: float) -> None:
        self.bytes += int(count)

    @property
    def plotly(self) -> bool:
        return any("plotly" in url.lower() for url in self.files)


def frame_bytes(frame: dict[str, Any]) -> float:
    """Payloads of binary frames come as base64."""
    return len(frame["payloadData"]) * (0.75 if frame["opcode"] == 2 else 1)


def new_page(browser: Browser) -> Page:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


def settle(page: Page) -> None:
    page.wait_for_timeout(150)
    page.wait_for_selector(READY)


# What is waited for ---------------------------------------------------------------------------------------------


def thumbnail(page: Page) -> None:
    """A picture of the grid is there."""
    page.locator(".card img").first.wait_for()


def until(change: Callable[[], Any], before: Any) -> None:
    """Wait until what is read is another than it was."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline:
        try:
            if (now := change()) != before and now is not None:
                return
        except Exception as error:  # noqa: BLE001  # an element that is drawn anew meanwhile
            if "Target" in str(error):
                raise
        time.sleep(0.01)
    raise TimeoutError("what was waited for did not come")


def first_card(page: Page) -> str | None:
    return page.locator(".card").first.get_attribute("data-id")


def count_text(page: Page) -> str:
    """The line "n of N" above the grid."""
    return page.locator(".st-key-chips").inner_text()


def canvas_points(page: Page) -> None:
    page.locator(".cloud[data-painted]").first.wait_for()


Waited = tuple[str, list[float], str]
"""What was waited for, the seconds, and what else was seen."""

MOST = {
    "first page, cold": 3.0, "first page, warm": 3.0, "filter by a class": 0.5, "sort by another score": 0.5,
    "map, cold": 3.0, "map, warm": 3.0, "compare, cold": 3.0, "compare, warm": 3.0, "decision to next image": 0.15,
}  # fmt: skip
"""The most seconds that some may take, at a million samples."""


def timed(act: Callable[[], None]) -> float:
    before = time.perf_counter()
    act()
    return time.perf_counter() - before


def first_pages(browser: Browser, workspace: Path, repeats: int) -> list[Waited]:
    """From the start of the command to the first thumbnail, every cache empty."""
    seconds, sizes, plain = [], [], []
    for _ in range(repeats):
        with served(workspace) as (address, _pid, started):
            page = new_page(browser)
            wire = Wire(page)
            plain.append(timed(lambda p=page, a=address: (p.goto(a), thumbnail(p))))
            seconds.append(time.perf_counter() - started)
            settle(page)
            sizes.append(wire.bytes / 1e6)
            page.context.close()
    size = f"{statistics.median(sizes):.1f} MB on the wire"
    return [("command to first page", seconds, size), ("first page, cold server and browser", plain, "")]


def visits(browser: Browser, address: str, repeats: int) -> list[Waited]:
    """Pages opened by a browser with an empty cache: the first visit, then the others."""
    rows: list[Waited] = []
    for name, path, ready in (
        ("first page", "/", thumbnail), ("gallery", GALLERY, thumbnail), ("map", "/embedding?dataset=generated", canvas_points),
        ("compare", "/compare?dataset=generated", canvas_points),
    ):  # fmt: skip
        seconds, size, plotly = [], 0.0, False
        for _ in range(repeats + 1):
            page = new_page(browser)
            wire = Wire(page)
            seconds.append(timed(lambda p=page, a=path, r=ready: (p.goto(address + a), r(p))))
            settle(page)
            size, plotly = wire.bytes / 1e6, wire.plotly
            page.context.close()
        about = f"{size:.1f} MB on the wire" + (", plotly with it" if plotly else "")
        rows += [(f"{name}, cold", seconds[:1], about), (f"{name}, warm", seconds[1:], "")]
    return rows


def in_the_gallery(browser: Browser, address: str, repeats: int) -> list[Waited]:
    """Filter by a class, sort by another score, the next page; each in another state every time."""
    page = new_page(browser)
    page.goto(address + GALLERY)
    thumbnail(page)
    settle(page)
    filters, sorts, pages = [], [], []
    for turn in range(repeats):
        before = count_text(page)
        row = page.locator(".facets button").nth(turn % 10)
        filters.append(timed(lambda r=row, b=before: (r.click(), until(lambda: count_text(page), b))))
        settle(page)
    for _ in range(repeats):
        before = first_card(page)
        link = page.get_by_test_id("stPagination").get_by_role("button").last
        pages.append(timed(lambda k=link, b=before: (k.click(), until(lambda: first_card(page), b))))
        settle(page)
    page.goto(address + GALLERY)
    thumbnail(page)
    settle(page)
    for turn in range(repeats):
        before = first_card(page)
        page.get_by_test_id("stSidebar").get_by_label("Sort by").click()
        option = page.get_by_role("option").nth(turn + 2)
        option.wait_for()
        sorts.append(timed(lambda o=option, b=before: (o.click(), until(lambda: first_card(page), b))))
        settle(page)
    page.context.close()
    return [("filter by a class", filters, ""), ("sort by another score", sorts, ""), ("next page", pages, "")]


def lassos(browser: Browser, address: str, repeats: int) -> list[Waited]:
    """From the end of an outline on the map to the samples inside it."""
    page, seconds = new_page(browser), []
    for turn in range(repeats):
        page.goto(address + "/embedding?dataset=generated")
        canvas_points(page)
        thumbnail(page)
        settle(page)
        before = count_text(page)
        page.get_by_role("button", name=re.compile("^Lasso")).first.click()
        box = page.locator(".cloud .over").first.bounding_box()
        assert box is not None
        x, y, r = box["x"] + box["width"] * (0.35 + 0.03 * turn), box["y"] + box["height"] * 0.5, 60
        page.mouse.move(x - r, y - r)
        page.mouse.down()
        for dx, dy in ((r, -r), (r, r), (-r, r), (-r, -r)):
            page.mouse.move(x + dx, y + dy, steps=3)
        seconds.append(timed(lambda b=before: (page.mouse.up(), until(lambda: count_text(page), b))))
    page.context.close()
    return [("lasso to images", seconds, "")]


def decisions(browser: Browser, address: str, repeats: int) -> list[Waited]:
    """One key on the review page: to the next image, and until the decision is stored."""
    page, shown, stored = new_page(browser), [], []
    page.goto(address + "/review?dataset=generated")
    place, saved = page.locator(".review .place"), page.locator(".review .saved")
    page.locator(".review .window img").first.wait_for()
    settle(page)
    page.wait_for_timeout(3_000)
    for _ in range(repeats):
        before = place.inner_text()
        start = time.perf_counter()
        page.keyboard.press("k")
        until(place.inner_text, before)
        shown.append(time.perf_counter() - start)
        until(lambda: saved.inner_text().startswith("saved") or None, None)
        stored.append(time.perf_counter() - start)
        page.wait_for_timeout(300)
    for _ in range(repeats):
        page.keyboard.press("Backspace")
        page.wait_for_timeout(300)
    until(lambda: saved.inner_text().startswith("saved") or None, None)
    page.context.close()
    return [("decision to next image", shown, ""), ("decision to stored", stored, "")]


def rows(size: Size) -> Iterator[Row]:
    """A row for everything that is waited for, by the clock; one that says what is missing where there is no Chromium."""
    browser = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    absent = missing("playwright") or ("" if browser else "not installed: apt-get install chromium")
    if absent:
        yield Row("dashboard", "in a browser", "", note=absent)
        return
    os.environ.pop("WINNOW_WORKSPACE", None)
    with _workspace(size) as workspace:
        facts = dataset_facts(Workspace.open(workspace).dataset_path("generated"))
        for name, seconds, about in waited(workspace, browser, size.repeats):
            row = Row(name, f"{facts.samples:,} samples, by the clock", "", note=about, most=MOST.get(name))
            yield replace(row, ours=tuple(seconds))


@contextmanager
def _workspace(size: Size) -> Iterator[Path]:
    if size.workspace:
        yield size.workspace
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "workspace"
        make_workspace(Options(4_000 if size.small else 50_000), out, lambda *given: None)
        yield out


def waited(workspace: Path, chromium: str, repeats: int) -> Iterator[Waited]:
    """Everything that is measured, as it comes."""
    from playwright.sync_api import sync_playwright  # which a person may not have

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield from first_pages(browser, workspace, max(1, repeats // 3))
        with served(workspace) as (address, pid, _):
            before = memory_mb(pid)
            for part in (visits, in_the_gallery, lassos, decisions):
                try:
                    yield from part(browser, address, repeats)
                except Exception as error:  # noqa: BLE001  # the other rows are still measured
                    yield part.__name__, [], f"not measured: {type(error).__name__}: {str(error).splitlines()[0]}"
            yield "memory of the server", [], f"{before:,.0f} MB before, {memory_mb(pid):,.0f} MB after all of it"
        browser.close()
