"""Every page by the rules of axe-core, in the light and in the dark theme: no serious and no critical finding."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from test_dashboard import READY, at

from dashboard.navigation import all_pages

pytestmark = pytest.mark.browser

CONTRAST = "() => axe.run({resultTypes: ['violations'], runOnly: ['color-contrast']}).then(found => found.violations)"
FURTHER = [
    "/gallery?dataset=digits-noisy&sample=147", "/compare?dataset=digits-noisy&compare=noise",
    "/matrix?dataset=digits-noisy&label=7&suggested=9",
]  # fmt: skip


def test_no_page_has_a_serious_finding(browser: Browser, address: str) -> None:
    # axe-core is brought into the page as a script, which the pages' own policy forbids.
    context = browser.new_context(viewport={"width": 1440, "height": 900}, bypass_csp=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    found = []
    for path in [*(f"/{one.address}" for one in all_pages()), *FURTHER]:
        page.emulate_media(color_scheme="light")
        page.goto(at(address, path))
        page.wait_for_selector(READY)
        page.wait_for_timeout(1_500)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.wait_for_timeout(500)
            page.wait_for_selector(READY)  # while a script runs, the head of the page shows Streamlit's own Stop
            if scheme == "light":
                violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            else:  # axe-core is in the page; a theme changes colors and nothing else
                violations = page.evaluate(CONTRAST)
            for finding in violations:
                if finding["impact"] in ("serious", "critical"):
                    nodes = [f"{node['target']} {node['html'][:200]}" for node in finding["nodes"][:3]]
                    found.append(f"{path} {scheme}: {finding['id']}, {len(finding['nodes'])} times: {'; '.join(nodes)}")
    context.close()
    assert not found, "\n".join(found)
