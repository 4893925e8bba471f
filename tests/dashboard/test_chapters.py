"""The guide's files: their order and titles, and what becomes of links and pictures on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard import chapters
from dashboard.chapters import Chapter, Picture, all_chapters, pieces

ROOT = Path(__file__).parents[2]


def chapter(markdown: str) -> Chapter:
    return Chapter("mine", "Mine", Path("/guide/01-mine.md"), markdown)


def address(name: str) -> str:
    return f"guide?chapter={name}&dataset=d"


def test_chapters_come_in_the_order_of_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapters, "FOLDER", tmp_path)
    (tmp_path / "10-last-words.md").write_text("# Last words\n")
    (tmp_path / "02-scores.md").write_text("# Scores\n\nWhat they mean.\n")
    (tmp_path / "README.md").write_text("# An index for a code host\n")
    assert [(c.name, c.title) for c in all_chapters()] == [("scores", "Scores"), ("last-words", "Last words")]
    (tmp_path / "03-none.md").write_text("No title.\n")
    with pytest.raises(
        ValueError, match="03-none.md begins with 'No title.'; the first line of a chapter is '# Title'"
    ):
        all_chapters()


def test_a_link_to_a_chapter_becomes_one_of_the_page() -> None:
    (markdown,) = pieces(
        chapter("See [the `aum` score](03-scores.md#aum), [here](#top) and [that](https://a.b/c.md)."), address
    )
    assert markdown == (
        'See <a href="guide?chapter=scores&amp;dataset=d#aum" target="_self">the `aum` score</a>, [here](#top) '
        "and [that](https://a.b/c.md)."
    )


def test_a_link_to_what_the_page_cannot_show_is_its_text() -> None:
    assert pieces(chapter("Read [the registry](../../engine/scores/registry.py)."), address) == ["Read the registry."]


@pytest.mark.parametrize("code", ["```sh\n[a](02-b.md) ![x](y.png)\n```", "`[a](02-b.md)`"])
def test_code_stays_as_it_is(code: str) -> None:
    assert pieces(chapter(f"# Mine\n\n{code}\n"), address) == [f"# Mine\n\n{code}\n"]


def test_a_picture_stands_between_the_pieces_before_and_after_it() -> None:
    shown = pieces(chapter("# Mine\n\n![a curve](images/psi.png)\n\nAfter [it](02-b.md).\n"), address)
    assert shown == [
        "# Mine\n\n",
        Picture(Path("/guide/images/psi.png"), "a curve"),
        '\n\nAfter <a href="guide?chapter=b&amp;dataset=d" target="_self">it</a>.\n',
    ]


def test_the_installed_guide_is_that_of_the_repository() -> None:
    def files(folder: Path) -> set[str]:
        return {str(p.relative_to(folder)) for kind in ("md", "png") for p in folder.rglob(f"*.{kind}")}

    assert files(chapters.FOLDER) == files(ROOT / "dashboard" / "guide")


def test_every_link_and_picture_of_the_guide_leads_somewhere() -> None:
    found = all_chapters()
    names = {c.name for c in found}
    linked: list[str] = []
    for c in found:
        for piece in pieces(c, lambda name: linked.append(name) or name):  # type: ignore[func-returns-value]
            assert isinstance(piece, str) or piece.file.is_file(), f"{c.file.name}: {piece}"
    assert set(linked) <= names
