"""What a person sees in a terminal: progress on standard error, tables and JSON on standard output."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from engine.store.progress import Listener
from engine.text import percent, shown

_MOST_CHARACTERS = 1_000  # of one cell of a table

messages = Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """One line for a person, on standard error so that standard output stays machine-readable."""
    messages.print(shown(text, 10_000), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value on standard output; numbers that JSON does not know become null."""
    typer.echo(json.dumps(_plain(value), default=str))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows as a table on standard output: names and text as they are, never read as markup."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(_text(column), overflow="fold")
    for row in rows:
        table.add_row(*(_text(_cell(row.get(column))) for column in columns))
    Console(highlight=False, soft_wrap=False, width=None if Console().is_terminal else 160).print(table)


def records(frame: Any) -> list[dict[str, Any]]:
    """The rows of a data frame, missing values as None."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def duration(seconds: float | None) -> str:
    """Seconds as they are shown: 0.4 s, 12 s, 3:05, 1:02:03."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0")


def rough(seconds: float) -> str:
    """Seconds as an estimate is shown: 40 s, 15 min, 1.5 h, 9 h, 12 days."""
    for size, unit, last in ((1, "s", 90), (60, "min", 90 * 60), (3600, "h", 72 * 3600)):
        if seconds < last:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" and value < 3 else f"{max(1, round(value))} {unit}"
    return f"{seconds / 86400:.0f} days"


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Listener]:
    """A bar with the stage and the time left; yields what a computation reports to.

    In a notebook it is a line that is written over: rich draws there only with ipywidgets, and warns without.
    """
    if "ipykernel" in sys.modules and not sys.stderr.isatty():
        with _progress_line(title) as listen:
            yield listen
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(shown(title), total=1.0, left="")

        def listen(stage: str, fraction: float, seconds_left: float | None) -> None:
            left = f"{duration(seconds_left)} left" if seconds_left is not None else ""
            bar.update(task, completed=fraction, description=shown(f"{title}: {stage}"), left=left)

        yield listen


@contextlib.contextmanager
def _progress_line(title: str) -> Iterator[Listener]:
    width = 100

    def listen(stage: str, fraction: float, seconds_left: float | None) -> None:
        left = f", {duration(seconds_left)} left" if seconds_left is not None else ""
        sys.stderr.write("\r" + shown(f"{title}: {stage} {percent(fraction)}{left}")[:width].ljust(width))
        sys.stderr.flush()

    try:
        yield listen
    finally:
        sys.stderr.write("\r" + " " * width + "\r")


def visible(text: str) -> str:
    """Text as it is, lines and tabs too, but for what a terminal would obey or hide (escaped) and what fills screens (cut)."""
    return shown(text, _MOST_CHARACTERS, "\n\t")


def _text(text: str) -> Text:
    return Text(visible(text))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
