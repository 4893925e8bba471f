"""A log-in opens the page that was wanted, and never anything but a page of this server."""

from __future__ import annotations

import base64

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from dashboard.after_login import CALLBACK, LOGIN, AfterLogin

COOKIE = "winnow-8501-wanted"


def to_provider(request: Request) -> Response:
    return RedirectResponse("https://id.example/authorize", 302)


def back(request: Request) -> Response:
    return RedirectResponse("/", 302)


@pytest.fixture
def client() -> TestClient:
    routes = [Route(LOGIN, to_provider), Route(CALLBACK, back)]
    app = Starlette(routes=routes, middleware=[Middleware(AfterLogin, port=8501)])
    return TestClient(app, base_url="http://localhost:8501", follow_redirects=False)


@pytest.mark.parametrize(
    ("referer", "opened"),
    [
        ("http://localhost:8501/gallery?dataset=a%20b&sample=147&q=%22;", "/gallery?dataset=a%20b&sample=147&q=%22;"),
        ("http://localhost:8501/", "/"),
        ("http://localhost:8501//evil.example", "/"),
        ("http://localhost:8501/\\evil.example", "/"),
        ("http://localhost:8501/auth/logout", "/"),
        ("http://localhost:8501/oauth2callback?code=1", "/"),
        ("http://localhost:8502/gallery?sample=1", "/"),
        ("http://localhost:8501@evil.example/gallery", "/"),
        ("https://evil.example/gallery", "/"),
        ("http://[", "/"),
        ("http://localhost:8501/gallery?q=" + "x" * 4_000, "/"),
        ("", "/"),
    ],
)
def test_the_page_from_which_somebody_logs_in_is_opened(client: TestClient, referer: str, opened: str) -> None:
    there = client.get(LOGIN, headers={"referer": referer} if referer else {})
    assert there.headers["location"] == "https://id.example/authorize"
    assert client.get("/gallery").request.headers.get("cookie") is None  # it is sent on the way back alone
    returned = client.get(CALLBACK)
    assert returned.headers["location"] == opened
    assert client.get(CALLBACK).headers["location"] == "/"  # once


@pytest.mark.parametrize(
    "wanted",
    ["//evil.example", "https://evil.example", "/\\evil", "/a\r\nx: y", "javascript:1", "/auth/logout", "\xff"],
)
def test_a_cookie_that_somebody_else_set_leads_nowhere_else(client: TestClient, wanted: str) -> None:
    for value in (base64.urlsafe_b64encode(wanted.encode("latin-1")).decode(), "no base64", "===", '"'):
        answer = client.get(CALLBACK, headers={"cookie": f"{COOKIE}={value}"})
        assert answer.headers["location"] == "/"
