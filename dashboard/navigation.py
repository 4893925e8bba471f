"""The pages of the dashboard: each is one file in app_pages/ that declares itself at its top. No Streamlit in here.

A page is a script `app_pages/<address>_page.py`. The first line of its docstring says what it shows, and a literal
says how it is listed:

    PAGE = {"title": "Gallery", "icon": ":material/grid_view:", "place": 20}

`place` orders the navigation, `"section": "Analyze"` lists a page there instead of by itself. `"pickers": False` is for
a page that shows no dataset: it is drawn without the pickers of dataset and run, and without a workspace too. The
declarations are read without running the scripts.
"""

from __future__ import annotations

import ast
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).with_name("app_pages")


@dataclass(frozen=True)
class PageInfo:
    """One page: its address on the server, what the navigation shows of it, and what the page shows."""

    address: str
    title: str
    icon: str
    place: int
    shows: str
    file: Path
    section: str = ""
    pickers: bool = True


_reading = threading.Lock()
"""Every session reads the pages in a thread of its own, and Python 3.11 cannot make two syntax trees at once."""


def all_pages(folder: Path = FOLDER) -> list[PageInfo]:
    """Every page, in the order of the navigation; the first is the one that opens. Read once in a process.

    Raises: ValueError, with the file, for a page that is not declared as above
    """
    with _reading:
        return list(_read_all(folder))


@lru_cache(maxsize=4)
def _read_all(folder: Path) -> tuple[PageInfo, ...]:
    return tuple(sorted(map(_read, folder.glob("*_page.py")), key=lambda page: (page.place, page.address)))


def _read(file: Path) -> PageInfo:
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    shows = (ast.get_docstring(tree) or "").partition("\n")[0]
    try:
        (literal,) = (
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["PAGE"]
        )
        declared = ast.literal_eval(literal)
        page = PageInfo(address=file.stem.removesuffix("_page"), shows=shows, file=file, **declared)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'{file} needs one literal PAGE = {{"title": "...", "icon": ":material/...:", "place": 20}} at its top: {error}'
        ) from error
    if not shows:
        raise ValueError(f"{file} needs a docstring whose first line says what the page shows")
    return page
