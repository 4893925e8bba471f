"""Text that others wrote - names, notes, messages - where a screen or a spreadsheet would do more than show it.

One function per medium, used wherever such text appears: `shown` for a line of a screen, `csv_text` for a cell of a
CSV. (SQL: store/sql.py. Markdown and charts: dashboard/markup.py.) And `percent`, for shares in what Winnow itself says.
"""

from __future__ import annotations

import re

LONGEST = 1_000
"""Characters of one text that are shown at most."""

# What a terminal obeys, what has no width, and what turns the direction of a line: Unicode's control and format
# characters, unpaired surrogates, and two letters that are blank. Joiners are none within a script that needs them.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
_UNSEEN_CHARACTER = re.compile(rf"[{_UNSEEN}]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])")


def shown(text: object, most: int = LONGEST, keep: str = "") -> str:
    r"""Text as a screen shows it on one line: what is not seen is written as Python writes it, what is too long is cut.

    Args: most: characters of the text at most; keep: characters to leave, such as line breaks

    >>> shown("a\u202eb\n")
    'a\\u202eb\\n'
    """
    given = str(text)
    if len(given) > most:
        given = f"{given[:most]}... ({len(given):,} characters)" if most >= 200 else f"{given[: most - 1]}…"
    return _UNSEEN_CHARACTER.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], given)


def percent(share: float, digits: int = 0) -> str:
    """A share 0..1 as people read it.

    >>> percent(0.2), percent(0.125, digits=1)
    ('20 %', '12.5 %')
    """
    return f"{100 * share:.{digits}f} %"


# A spreadsheet computes a cell that begins so, some after they have passed over blanks, quotes or a byte order mark.
# Blanks at either end are guarded as well, because a reader of CSV files takes them away.
_GUARDED = re.compile(
    r"""(?:['"\s\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20\x00-\x1f]|'*[\s\ufeff])|.*\s\Z""", re.DOTALL
)


def csv_text(text: str) -> str:
    """Text as a cell of a CSV: an apostrophe first where a spreadsheet would compute it. `from_csv_text` takes it back.

    >>> csv_text("=1+1"), csv_text("'=1"), csv_text("it's")
    ("'=1+1", "''=1", "it's")
    """
    return f"'{text}" if _GUARDED.match(text) else text


def from_csv_text(cell: str) -> str:
    """The text that `csv_text` made a cell of; any other cell without the blanks around it."""
    return cell[1:] if cell[:1] == "'" and _GUARDED.match(cell[1:]) else cell.strip()
