"""Streamlit's own files: the same bytes as Streamlit would send, smaller, and nothing but them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from streamlit import file_util
from streamlit.web.server.starlette import starlette_server

from dashboard.assets import ELEMENTS, Assets, imported
from dashboard.serve import send_at_once

FOLDER = Path(file_util.get_static_dir())


@pytest.fixture
def client() -> TestClient:
    """Behind the middleware: a page, and for all else an answer that says that it was left to Streamlit."""
    inner = Starlette(
        routes=[
            Route("/", lambda request: HTMLResponse("<p>page")),
            Mount("/", app=PlainTextResponse("left to streamlit")),
        ]
    )
    return TestClient(Assets(inner, FOLDER))


def test_every_file_comes_as_it_is_on_the_disk_and_compressed_where_that_helps(client: TestClient) -> None:
    (script,) = (FOLDER / "static" / "js").glob("protobuf.*.js")
    (font,) = (FOLDER / "static" / "media").glob("SourceSansVF-Upright*.woff2")
    for path, packed in ((script, True), (font, False)):
        address = f"/{path.relative_to(FOLDER).as_posix()}"
        answer = client.get(address)
        assert answer.content == path.read_bytes()  # the client unpacks it
        assert (answer.headers.get("content-encoding") == "gzip") == packed
        assert "immutable" in answer.headers["cache-control"]
        if packed:
            assert int(answer.headers["content-length"]) < path.stat().st_size / 2
        plain = client.get(address, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers and plain.content == path.read_bytes()


@pytest.mark.parametrize(
    "address",
    [
        "/static/js/../../index.html",
        "/static/../../../config.py",
        "/static/js/nothing.js",
        "/static/",
        "//static/js",
        "/x",
    ],
)
def test_what_is_no_file_of_the_folder_is_left_to_streamlit(client: TestClient, address: str) -> None:
    assert client.get(address).text == "left to streamlit"


def test_a_part_of_a_file_and_what_is_no_get_are_left_to_streamlit(client: TestClient) -> None:
    (script,) = (FOLDER / "static" / "js").glob("protobuf.*.js")
    address = f"/{script.relative_to(FOLDER).as_posix()}"
    assert client.get(address, headers={"range": "bytes=0-9"}).text == "left to streamlit"
    assert client.post(address).text == "left to streamlit"


def test_a_page_names_the_modules_of_its_elements_and_all_they_import(client: TestClient, tmp_path: Path) -> None:
    links = client.get("/").headers["link"].split(", ")
    assert "link" not in client.get("/other").headers  # it is no page
    for element in ELEMENTS:
        assert any(f"/static/js/{element}." in link for link in links), f"Streamlit has no {element} any more"
    for link in links:
        assert (FOLDER / link[2 : link.index(">")]).is_file() and link.endswith("; rel=modulepreload; crossorigin")
    for name, text in {
        "A.1.js": 'import{x as y}from"./b.2.js";import"./c.3.js"', "b.2.js": "import './A.1.js'", "c.3.js": "",
        "D.4.js": 'from"./gone.js"', "E.5.js": "",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    found = [address.rpartition("/")[2] for address in imported(tmp_path, ("A", "D"))]
    assert found == ["A.1.js", "D.4.js", "b.2.js", "c.3.js"]


def test_the_server_sends_what_it_writes_without_waiting_for_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starlette_server, "_bind_socket", starlette_server._bind_socket)  # put back at the end
    send_at_once()
    with starlette_server._bind_socket("127.0.0.1", 0, 5) as bound:
        bound.setblocking(True)
        with socket.create_connection(bound.getsockname()):
            accepted, _ = bound.accept()
            with accepted:
                # asyncio sets it for a socket that names its protocol; Streamlit's names none
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
