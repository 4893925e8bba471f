"""Names are text on every page: no text of a workspace is markup, whichever element or chart it stands in.

Every element of every page is walked. A field that is not known to take plain text counts as Markdown, so that a new
element with a raw name fails here until it is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hostile_names import WORDS, tampered
from streamlit.testing.v1 import AppTest

from dashboard.figures.declare import all_figures
from dashboard.markup import plain
from dashboard.navigation import all_pages
from engine.text import shown

PAGES = [page.address for page in all_pages() if page.pickers]
Open = Callable[..., AppTest]

PLAIN = {
    "Selectbox.options", "MultiSelect.options", "Code.code_text", "TextInput.placeholder", "Selectbox.raw_value",
    "ImageList.imgs.alt", "Selectbox.placeholder", "MultiSelect.raw_values",
}  # fmt: skip
"""Fields that Streamlit shows as they are."""

NO_TEXT = re.compile(r"\.(id|key|element_id|url|file_mime_type|fragment_id|query_string)$")
OWN_TAGS = re.compile(r"</?(b|br|extra)>")
OWN_FIELDS = re.compile(r"%\{(x|y|z|text|customdata(\[\d\])?)(:[^{}]*)?\}")
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@pytest.fixture(scope="module")
def hostile(judged_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tampered(judged_workspace, "digits-noisy", tmp_path_factory.mktemp("hostile") / "workspace")


def texts(message: Message, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every text and every piece of bytes in a protobuf message, with the way to it."""
    path = path or type(message).__name__
    for field, value in message.ListFields():
        at = f"{path}.{field.name}"
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                values = list(value.values())
            else:
                values = list(value) if hasattr(value, "__len__") and not isinstance(value, Message) else [value]
            for part in values:
                yield from texts(part, at) if isinstance(part, Message) else [(at, part)]
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield from ((at, part) for part in ([value] if isinstance(value, str | bytes) else value))


def elements(block: Any) -> Iterator[Message]:
    """The message of every element and container of a page."""
    for child in getattr(block, "children", {}).values():
        if isinstance(getattr(child, "proto", None), Message):
            yield child.proto
        yield from elements(child)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from strings(key)
            if key not in ("bdata", "dtype", "image"):
                yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def raw(text: str, written: Callable[[str], str]) -> list[str]:
    """The names that stand in a text in another form than the one that its medium wants."""
    return [name for word, name in WORDS.items() if text.count(word) > text.count(written(name))]


def wrong(app: AppTest) -> tuple[list[str], int]:
    """What is wrong with the texts of a page, and how many hostile names it shows."""
    found: list[str] = []
    seen = 0
    for message in elements(app._tree):
        for path, value in texts(message):
            if NO_TEXT.search(path):
                continue
            if isinstance(value, bytes):  # a table's cells, in Arrow
                if value[:4] == b"\xff\xff\xff\xff":
                    import pyarrow as pa

                    frame = pa.ipc.open_stream(value).read_pandas()
                    parts, written = list(map(str, frame.select_dtypes(["object", "str"]).to_numpy().ravel())), shown
                else:
                    continue
            elif path == "PlotlyChart.spec":
                parts, written = list(strings(json.loads(value))), str  # a chart cuts names: any markup counts
                for part in parts:
                    if re.search(r"<|%\{|\$|&(?!#\d+;)", OWN_FIELDS.sub("", OWN_TAGS.sub("", part))):
                        found.append(f"{path} has markup: {part[:200]!r}")
            elif path.startswith("BidiComponent."):
                parts, written = list(strings(json.loads(value))) if value.startswith(("{", "[")) else [value], shown
            elif path == "Html.body":  # tags and attributes of ours around names of others
                parts, written = [unescape(part) for part in re.split(r"<[^<>]*>", value)], shown
                parts += [unescape(part) for part in re.findall(r'="([^"]*)"', value)]
                if re.search(
                    r"<(?!/?(b|div|h4|i|img|li|p|section|span|table|tbody|td|th|thead|tr|ul|style)[ >])", value
                ):
                    found.append(f"{path} has a tag that is not ours: {value[:300]!r}")
            elif path in PLAIN:
                parts, written = [value], shown
            else:
                parts, written = [value], plain
            for part in parts:
                seen += sum(word in part for word in WORDS)
                if UNSEEN.search(part):
                    found.append(f"{path} has what is not seen: {part[:200]!r}")
                if path != "PlotlyChart.spec" and (names := raw(part, written)):
                    found.append(f"{path} has {names[0]!r} as it is: {part[:300]!r}")
    return found, seen


VIEWS = {
    "overview": [{}, {"dataset": "digits"}],
    "gallery": [{}, {"sample": "3", "list": "all"}, {"label": "1,2", "other": "3,4", "rule": "RULE", "list": "all"}],
    "trajectories": [{"samples": "3,4"}],
    "compare": [
        {"x": "SCORE", "color": "about:NAME"},
        {"compare": "noise", "sort": "SCORE"},
        {"compare": "all"},
        {"compare": "threshold", "sort": "SCORE"},
        {"compare": "runs"},
    ],
    "embedding": [{}, {"color": "about:NAME", "about": "NAME"}, {"color": "score:SCORE"}],
    "scores": [{"sort": "SCORE"}],
    "psi": [{"psi": "ALL"}],
    "export": [{"label": "1,2", "about": "NAME", "value": "VALUE", "sort": "SCORE"}],
}
"""Views of a page beside the one that opens, with names of the workspace in the address."""


def addresses(root: Path, page: str) -> Iterator[dict[str, str]]:
    from engine.queries.connection import connected
    from engine.store.workspace import Workspace

    with connected(Workspace.open(root), "digits-noisy") as connection:
        meant = {
            word: str((connection.execute(sql).fetchone() or [""])[0])
            for word, sql in {
                "SCORE": "SELECT score FROM scores WHERE score LIKE '%Zq%' ORDER BY 1 LIMIT 1",
                "RULE": "SELECT rule FROM rules WHERE rule LIKE '%Zq%' ORDER BY 1 LIMIT 1",
                "NAME": "SELECT name FROM metadata WHERE name LIKE '%Zq%' ORDER BY 1 LIMIT 1",
                "VALUE": "SELECT value FROM metadata WHERE name LIKE '%Zq%' ORDER BY name, value LIMIT 1",
                "ALL": "SELECT string_agg(run_id, ',') FROM runs WHERE kind = 'psi'",
            }.items()
        }
    some = [{"figure": name} for name in all_figures()] if page == "figures" else VIEWS.get(page, [{}])
    for query in some:
        for word, value in meant.items():
            query = {k: v.replace(word, value) for k, v in query.items()}
        yield query


@pytest.mark.parametrize("page", PAGES)
def test_no_name_is_markup_on_any_page(hostile: Path, open_page: Open, page: str) -> None:
    total = 0
    for query in addresses(hostile, page):
        app = open_page(hostile, page, **{"dataset": "digits-noisy", **query})
        assert not app.exception, (query, app.exception[0].message, app.exception[0].stack_trace)
        found, seen = wrong(app)
        assert not found, f"{page} {query}:\n" + "\n".join(dict.fromkeys(found))
        total += seen
    assert total > 3, "the page shows none of the names: is the workspace what it was meant to be?"
