"""The report: one file that loads nothing, the same for the same workspace, in which every name is text."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from given_verdicts import scored_run
from hostile_names import HOSTILE, WORDS, tampered
from typer.testing import CliRunner

from engine.cli.commands import app
from engine.errors import NotFoundError, SpecError
from engine.queries.connection import connected
from engine.report.drawing import bars, lines
from engine.report.page import report_bytes
from engine.store.decisions import decide
from engine.store.workspace import Workspace
from engine.text import shown

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1", "h2", "p", "ul", "li", "b", "br",
    "div", "span", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg", "rect", "line", "circle", "text",
    "polyline", "img", "pre", "code",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "viewbox", "role", "aria-label", "aria-hidden", "x", "y", "x1",
    "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "points", "title", "alt", "src", "tabindex",
}  # fmt: skip


class Read(HTMLParser):
    """What is in a page: tags, attributes, sources and text."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.sources: list[str] = []
        self.policy = self.text = self.style = ""
        self._open = ""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._open = tag
        given = {name: value or "" for name, value in attrs}
        self.attributes |= given.keys()
        self.sources += [given["src"]] if "src" in given else []
        self.text += "".join(f" {given[name]} " for name in ("title", "alt", "aria-label") if name in given)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]

    def handle_data(self, data: str) -> None:
        if self._open == "style":
            self.style += data
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def test_the_report_holds_what_is_known_and_loads_nothing(judged_workspace: Path) -> None:
    workspace = Workspace.open(judged_workspace)
    content = report_bytes(workspace, "digits-noisy", most=20)
    page = Read(content)
    hashed = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert page.policy.startswith("default-src 'none'") and f"style-src 'sha256-{hashed}'" in page.policy
    assert "url(" not in page.style and "@import" not in page.style
    assert page.tags <= TAGS and page.attributes <= ATTRIBUTES
    assert len(page.sources) == 20 and all(source.startswith("data:image/webp;base64,") for source in page.sources)
    for text in (
        "About 20 % of the labels look wrong (95 % interval: 18 to 22 %)", "350on the shortlist", "The first 20 of 350",
        "Estimated share of wrong labels: 20 %", "winnow ingest digits-noisy --from dataset:digits --noise symmetric:0.2",
        "winnow run digits-noisy --scores", "Test accuracy in %",
    ):  # fmt: skip
        assert text in page.text, text
    with connected(workspace, "digits-noisy") as connection:
        (first, thumbnail) = connection.execute(
            "SELECT sample_id, thumbnail FROM shortlist JOIN images USING (sample_id) ORDER BY rank LIMIT 1"
        ).fetchall()[0]
    assert page.sources[0].endswith(base64.b64encode(thumbnail).decode())
    assert f"sample {first}" in page.text
    assert content == report_bytes(Workspace.open(judged_workspace), "digits-noisy", most=20)


def test_decisions_are_counted_by_their_author(small_copy_of_judged: Path) -> None:
    workspace = Workspace.open(small_copy_of_judged)
    before = report_bytes(workspace, "digits-noisy", most=1)
    assert b"<h2>Decisions" not in before
    decide(workspace, "digits-noisy", [1, 2, 3], "drop", author="Ada <b>")
    decide(workspace, "digits-noisy", [4], "keep")
    page = Read(report_bytes(workspace, "digits-noisy", most=1))
    assert "Ada <b>drop3" in page.text and "nobody in particularkeep1" in page.text


@pytest.fixture
def small_copy_of_judged(judged_workspace: Path, tmp_path: Path) -> Path:
    shutil.copytree(judged_workspace, tmp_path / "workspace")
    return tmp_path / "workspace"


@pytest.mark.parametrize("which", ["now", "v0.1"])
def test_names_are_text(judged_workspace: Path, old_workspace: Path, tmp_path: Path, which: str) -> None:
    given, dataset = (judged_workspace, "digits-noisy") if which == "now" else (old_workspace, "noisy")
    content = report_bytes(Workspace.open(tampered(given, dataset, tmp_path / "hostile")), dataset)
    page = Read(content)
    assert page.tags <= TAGS and page.attributes <= ATTRIBUTES
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    found = [name for word, name in WORDS.items() if word in page.text]
    assert len(found) > 10, "the report shows none of the names: is the workspace what it was meant to be?"
    for name in HOSTILE:
        if re.search(r"[<>&\u202e\u200b\r]", name):
            assert name.encode() not in content, name
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b]", content.decode())


def test_the_command_writes_the_file_or_says_why_not(judged_workspace: Path, tmp_path: Path) -> None:
    to, root = tmp_path / "report.html", str(judged_workspace)
    done = CliRunner().invoke(app, ["report", "digits-noisy", "--to", str(to), "--workspace", root, "--images", "5"])
    assert done.exit_code == 0, done.output
    run = scored_run(judged_workspace, "digits-noisy")
    assert to.read_bytes() == report_bytes(Workspace.open(judged_workspace), "digits-noisy", run[:8], 5)
    (psi,) = (r for r in Workspace.open(judged_workspace).published_runs() if "psi" in _kind(judged_workspace, r))
    for words, error in (
        (["report", "digits-noisy", "--to", str(to), "--images", "-1"], SpecError),
        (["report", "digits-nosy", "--to", str(to)], NotFoundError),
        (["report", "digits-noisy", "--to", str(to), "--run", psi], SpecError),
    ):
        assert isinstance(CliRunner().invoke(app, [*words, "--workspace", root]).exception, error)


def _kind(root: Path, run_id: str) -> str:
    return Workspace.open(root).read_record(run_id).kind


def test_bars_are_as_high_as_their_counts() -> None:
    drawn = bars([(0, 1), (1, 2)], [("a", "blue", [10, 5]), ("b", "red", [0, 5])], "x")
    heights = [float(h) for h in re.findall(r'<rect class="(?:blue|red)"[^>]* height="([\d.]+)"', drawn)]
    assert heights == [150, 75, 75]  # the second bin's parts stand on one another
    assert "10" in drawn and shown("x") in drawn


def test_lines_go_through_their_points() -> None:
    drawn = lines([("a", [(0, 1), (5, 3), (10, 2)])], "x", "y")
    points = [tuple(map(float, p.split(","))) for p in re.findall(r'points="([^"]*)"', drawn)[0].split()]
    assert points == [(56, 230), (334, 10), (612, 120)]
