"""A workspace in which every name is hostile, in a real browser: nothing is fetched, run or linked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hostile_names import HOSTILE, tampered
from playwright.sync_api import Page
from test_dashboard import at, settle, visit

from dashboard.navigation import all_pages

pytestmark = pytest.mark.browser

FOREIGN = """() => {
  const all = [];
  const walk = (root) => root.querySelectorAll('*').forEach((e) => { all.push(e); if (e.shadowRoot) walk(e.shadowRoot); });
  walk(document);
  const links = all.flatMap((e) => ['href', 'src', 'xlink:href'].map((name) => e.getAttribute(name) || ''));
  return [
    ...links.filter((link) => /evil|127\\.0\\.0\\.1:9|^javascript:|^mailto:|^x$/i.test(link)),
    ...all.filter((e) => e.hasAttribute('onerror')).map((e) => e.outerHTML.slice(0, 200)),
  ];
}"""


@pytest.fixture(scope="module")
def hostile_address(
    judged_workspace: Path,
    tmp_path_factory: pytest.TempPathFactory,
    serve_workspace: Callable[[Path], AbstractContextManager[str]],
) -> Iterator[str]:
    root = tampered(judged_workspace, "digits-noisy", tmp_path_factory.mktemp("hostile") / "workspace")
    with serve_workspace(root) as url:
        yield url


def test_no_name_is_fetched_or_run_or_linked(page: Page, hostile_address: str) -> None:
    """The fixture `page` fails for any request that leaves this server and for any error of a page."""
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for info in all_pages():
        if not info.pickers:
            continue
        more = {"sample": "3", "list": "all", "label": "1,2", "other": "2,3"} if info.address == "gallery" else {}
        visit(page, hostile_address, f"/{info.address}?{urlencode({'dataset': 'digits-noisy', **more})}")
        settle(page)
        assert page.evaluate(FOREIGN) == [], info.address
        assert page.locator("[data-testid=stException]").count() == 0, info.address
        assert "Zq" in page.content(), f"{info.address} shows no hostile name"
    for name in HOSTILE[:4]:  # from the address
        page.goto(at(hostile_address, f"/gallery?dataset={quote(name)}"))
        page.wait_for_selector("[data-testid=stAlert]")
        assert name[-8:] in page.locator("[data-testid=stAlert]").inner_text().replace("\u2060", "")
        assert page.evaluate(FOREIGN) == [], name
    assert alerts == []
    assert not [url for url in requests if "evil" in url.split("?")[0] or ":9/" in url.split("?")[0]]
