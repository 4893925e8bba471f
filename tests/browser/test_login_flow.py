"""Logging in as a person does: to a provider on another site and back, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import serving  # type: ignore[attr-defined]
from oidc_provider import Provider
from playwright.sync_api import Browser, BrowserContext, Page, expect

pytestmark = pytest.mark.browser
expect.set_options(timeout=90_000)


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


def log_in(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.goto(address)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Let me in").click()
    return page


def test_who_is_logged_in_sees_the_pages_and_decides_under_that_name(
    browser: Browser, demo_workspace: Path, tmp_path: Path, provider: Provider
) -> None:
    file = tmp_path / "login.toml"
    file.write_text(
        f'[auth]\nclient_id = "winnow"\nclient_secret = "kept"\nallowed = ["ada@example.org"]\n'
        f'server_metadata_url = "{provider.issuer}/.well-known/openid-configuration"\n'
    )
    file.chmod(0o600)
    with serving(demo_workspace, tmp_path, "--login", str(file)) as address:
        assert "token" not in address
        stranger = browser.new_context()
        page = stranger.new_page()
        page.goto(f"{address}/gallery?dataset=digits-noisy&sample=147")
        expect(page.get_by_role("button", name="Log in")).to_be_visible(timeout=90_000)
        assert page.locator(".card, [data-testid=stSidebar] [data-testid=stSelectbox]").count() == 0
        assert "digits" not in page.locator("[data-testid=stApp]").inner_text()
        stranger.close()

        ada = browser.new_context()
        page = log_in(
            ada, f"{address}/gallery?dataset=digits-noisy&sample=147&q=%3Cb%3E%20x"
        )  # the link of somebody else
        expect(page.get_by_text("Sample 147", exact=False).first).to_be_visible()
        expect(page).to_have_url(re.compile(f"^{address}/gallery\\?.*sample=147"))
        assert not [cookie for cookie in ada.cookies() if "wanted" in cookie["name"]]  # kept for the log-in alone
        page.goto(f"{address}/review?dataset=digits-noisy")
        expect(page.get_by_text("ada@example.org").first).to_be_visible()
        ada.close()

        for claims in ({"email": "eve@example.org"}, {"email": "ada@example.org", "email_verified": False}):
            provider.claims = claims
            eve = browser.new_context()
            page = log_in(eve, address)
            expect(page.get_by_text("This account may not open this dashboard.")).to_be_visible()
            assert "digits" not in page.locator("[data-testid=stApp]").inner_text()
            eve.close()
