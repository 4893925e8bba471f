"""Text that others wrote, as it stands in what a page reads as markup: Markdown, and the HTML of charts.

A class may be called `![x](http://...)` or `<b>`. Wherever a name, a message or what an address says stands in Markdown
(labels, captions, options of buttons, messages, titles) it goes through `plain`, in a chart through `chart_text`, in HTML
of ours through `html_text`, on a command line that a person copies through `command_line`; what takes plain text (pick
lists, tables, code, the grid) takes `shown`, without which a text could turn the direction of its line. No Streamlit in
here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from html import escape

from dashboard.data import shown

_NAME = 80
"""Characters of a name at most."""

_JOINER = "\u2060"
# Web addresses, :material/...: and arrows are looked for in the finished text, where an escape is no longer seen: only
# a character in between, one without a width, keeps them as they are written.
_IN_TEXT = re.compile(
    r"(?<=http:)(?=//)|(?<=https:)(?=//)|(?<=www)(?=\.)|(?=@[-\w]+\.)|(?<=:)(?=streamlit:|material/)", re.IGNORECASE
)
_ARROWS = re.compile(r"(?<!\S)([-<>~])([-=>])(>?)(?!\S)")
_MARKUP = re.compile(r"[\\`*_\[\]$~#<>&]|:(?=[a-zA-Z:+-]|\d+:)")
_LIST = re.compile(r"^([-+]|\d{1,9}[.)])(?=\s|$)")
_BLANKS = re.compile(r"^ +| +$| {2,}")


def plain(text: object) -> str:
    """Text in which Markdown finds no markup: it is shown as it is written."""
    given = _ARROWS.sub(rf"\1{_JOINER}\2{_JOINER}\3", _IN_TEXT.sub(_JOINER, shown(text)))
    # Brackets as numbers: Streamlit counts them within :gray[...] whether or not they are escaped.
    given = _MARKUP.sub(lambda c: f"&#{ord(c[0])};" if c[0] in "[]<>&" else "\\" + c[0], given)
    given = _LIST.sub(lambda found: f"{found[1][:-1]}\\{found[1][-1]}", given)
    return _BLANKS.sub(lambda found: "&nbsp;" * len(found[0]), given)


def chart_text(text: object) -> str:
    """A name in a chart, whose texts are HTML and templates (%{x}) to plotly: it is shown as it is written."""
    return re.sub(r"[<>&$%]", lambda c: f"&#{ord(c[0])};", shown(text, _NAME))


def html_text(text: object, most: int = _NAME) -> str:
    """A name in HTML, between tags or in an attribute in double quotes: it is shown as it is written, cut to `most`."""
    return escape(shown(text, most), quote=True)


def short_names(names: Iterable[object]) -> tuple[str, ...]:
    """Names as plain text, of a length that fits on a page."""
    return tuple(shown(name, _NAME) for name in names)


def command_line(words: Sequence[str]) -> str:
    """The command as a person would type it, on one line: no name in it is more than a word to the shell."""
    return shown(" ".join(map(_quoted, ["winnow", *words])), 10_000)


def _quoted(word: str) -> str:
    """A word for the shell: in double quotes, which SQL leaves free, where nothing in it means anything there."""
    safe = shlex.quote(word)
    return safe if safe == word or not word or re.search(r'["$`\\!\n]', word) else f'"{word}"'
