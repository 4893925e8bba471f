"""The guide: the Markdown files in guide/, as a page shows them. No Streamlit in here.

A chapter is one file `NN-name.md` whose first line is `# Title`; NN gives the order, `name` is its name in an address.
The files read as they are on a code host, so chapters link to each other by file name and pictures lie beside them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("guide")

_FILE = re.compile(r"\d+-(?P<name>[\w-]+)\.md")
_TARGET = r"\((?P<{0}>[^()\s]+)\)"
_PART = re.compile(
    r"(?P<code>^```.*?^```[^\n]*$|`[^`\n]+`)"
    r"|!\[(?P<alt>[^\]]*)\]" + _TARGET.format("picture") + r"|\[(?P<text>(?:`[^`]*`|[^\]`])+)\]" + _TARGET.format("to"),
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Chapter:
    """One chapter of the guide, as it is written."""

    name: str
    title: str
    file: Path
    markdown: str


@dataclass(frozen=True)
class Picture:
    """A picture between two pieces of Markdown."""

    file: Path
    alt: str


def all_chapters() -> list[Chapter]:
    """Every chapter, in order. Raises ValueError, with the file, for one that does not begin with a title."""
    chapters = []
    for file in sorted(FOLDER.glob("*.md")):
        if found := _FILE.fullmatch(file.name):
            markdown = file.read_text(encoding="utf-8")
            first = markdown.partition("\n")[0]
            if not first.startswith("# "):
                raise ValueError(f"{file} begins with '{first[:40]}'; the first line of a chapter is '# Title'")
            chapters.append(Chapter(found["name"], first.removeprefix("# ").strip(), file, markdown))
    return chapters


def pieces(chapter: Chapter, address_of: Callable[[str], str]) -> list[str | Picture]:
    """A chapter as a page shows it: Markdown, with HTML for the links between chapters, and pictures in between.

    A link to another chapter opens that one in the same tab; one to a file that the page cannot show is its text
    alone; all others, and whatever stands in code, stay as they are.

    Args: address_of: from a chapter's name to its address
    """
    parts: list[str | Picture] = [""]
    end = 0

    def add(markdown: str) -> None:
        if isinstance(parts[-1], str):
            parts[-1] += markdown
        else:
            parts.append(markdown)

    for found in _PART.finditer(chapter.markdown):
        add(chapter.markdown[end : found.start()])
        end = found.end()
        if found["picture"] and not _is_web(found["picture"]):
            parts.append(Picture((chapter.file.parent / found["picture"]).resolve(), found["alt"]))
        elif found["to"] and not _is_web(found["to"]) and not found["to"].startswith("#"):
            add(_link(found["text"], found["to"], address_of))
        else:
            add(found[0])
    add(chapter.markdown[end:])
    return [part for part in parts if part]


def _link(text: str, to: str, address_of: Callable[[str], str]) -> str:
    name, mark, section = to.partition("#")
    chapter = _FILE.fullmatch(name)
    if not chapter:
        return text
    return f'<a href="{html.escape(address_of(chapter["name"]) + mark + section)}" target="_self">{text}</a>'


def _is_web(target: str) -> bool:
    return target.startswith(("https://", "http://"))
