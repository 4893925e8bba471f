"""The first address of a browser, with the token and without the dataset, opens what it names."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from test_dashboard import visit

pytestmark = pytest.mark.browser


def test_a_link_with_the_token_and_without_the_dataset_opens_what_it_names(page: Page, address: str) -> None:
    visit(page, address, "/gallery?sample=147")
    expect(page.get_by_role("heading", name="Sample 147")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/gallery\?sample=147&dataset=digits-noisy&run=\w+$"))
    visit(page, address, "/compare?compare=noise")
    expect(page.get_by_role("heading", name="before and after noise")).to_be_visible()
    assert page.get_by_text("Spearman").count() == 0
