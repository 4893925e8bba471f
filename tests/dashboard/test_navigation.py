"""Pages declare themselves: one file each, read without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.navigation import FOLDER, PageInfo, all_pages

DECLARED = 'PAGE = {"title": "Mine", "icon": ":material/star:", "place": 15, "section": "Analyze"}\n'


def test_every_file_is_a_page_with_a_title_a_place_and_a_sentence() -> None:
    pages = all_pages()
    assert {page.file.name for page in pages} == {p.name for p in FOLDER.glob("*.py")} - {"__init__.py"}
    assert [page.address for page in pages][:4] == ["overview", "review", "decisions", "gallery"]
    assert len({page.title for page in pages}) == len({page.place for page in pages}) == len(pages)
    assert all(page.shows.endswith(".") and page.icon.startswith(":material/") for page in pages)


def test_a_page_is_added_by_its_file_alone_and_not_run_to_be_read(tmp_path: Path) -> None:
    (tmp_path / "mine_page.py").write_text(f'"""What I look at.\n\nMore."""\n{DECLARED}raise SystemExit("was run")\n')
    (tmp_path / "first_page.py").write_text('"""First."""\n' + DECLARED.replace("15", "1"))
    first, mine = all_pages(tmp_path)
    assert mine == PageInfo(
        address="mine", title="Mine", icon=":material/star:", place=15, shows="What I look at.",
        file=tmp_path / "mine_page.py", section="Analyze",
    )  # fmt: skip
    assert first.address == "first"


@pytest.mark.parametrize(
    "text",
    [
        '"""No declaration."""\n',
        '"""Two."""\n' + DECLARED * 2,
        '"""Not a literal."""\nPAGE = dict(title="Mine")\n',
        '"""Something is missing."""\nPAGE = {"title": "Mine"}\n',
        '"""Something is unknown."""\n' + DECLARED.replace('"place"', '"color": "red", "place"'),
    ],
)
def test_a_page_that_is_not_declared_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine_page.py").write_text(text)
    with pytest.raises(ValueError, match="mine_page.py needs one literal PAGE"):
        all_pages(tmp_path)


def test_a_page_says_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "mine_page.py").write_text(DECLARED)
    with pytest.raises(ValueError, match="mine_page.py needs a docstring"):
        all_pages(tmp_path)
