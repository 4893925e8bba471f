"""Pages in Streamlit's own test harness, opened by their address as a browser does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from dashboard import navigation

APP = Path(navigation.__file__).with_name("app.py")  # installed, or of the checkout


# Every run of the harness reads what each installed package declares, 0.4 s that are most of a run. They stay as they are.
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """open_page(root, page, **query): the page of a workspace, after its first run at that address."""

    def opened(root: Path, page: str, /, **query: str) -> AppTest:
        monkeypatch.setenv("WINNOW_WORKSPACE", str(root))
        app = AppTest.from_file(str(APP), default_timeout=120)
        if page != navigation.all_pages()[0].address:  # that one opens at the root
            app._page_hash = calc_hash(page)  # `switch_page` needs the first page to be drawn before it
        for name, value in query.items():
            app.query_params[name] = value
        return app.run()

    return opened
