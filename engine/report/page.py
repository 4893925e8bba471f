"""The report as HTML: one file that loads nothing, with the same bytes for the same workspace."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from engine.queries.verdicts import likely, no_verdict, percent
from engine.report.drawing import bars, interval, lines, text
from engine.report.facts import Facts, read_facts
from engine.store.atomic import write_export
from engine.store.version import winnow_version
from engine.store.workspace import Workspace

CLASSES, PAIRS = 100, 25
"""Rows of the tables at most; what is left out is counted."""


def write_report(workspace: Workspace, dataset: str, to: Path, run: str | None = None, most: int = 48) -> int:
    """Write the report of a dataset by one of its runs.

    Args:    to: the file, written whole or not at all; run: a run's id or its first digits, None = the one to be trusted
             most; most: images at most
    Returns: bytes
    Raises:  NotFoundError for an unknown dataset or run, and where no run has scores
    """
    content = report_bytes(workspace, dataset, run, most)
    write_export(to, lambda path: path.write_bytes(content))
    return len(content)


def report_bytes(workspace: Workspace, dataset: str, run: str | None = None, most: int = 48) -> bytes:
    """The report as the bytes of its file."""
    facts = read_facts(workspace, dataset, run, most)
    style = files("engine.report").joinpath("style.css").read_text(encoding="utf-8")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    parts = [
        _head(facts), _verdict(facts), _worst(facts), _classes(facts), _pairs(facts), _scores(facts), _curves(facts),
        _decisions(facts), _versions(facts), _commands(facts),
    ]  # fmt: skip
    title = text(f"Winnow: {facts.dataset['name']}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    ).encode()


def _head(facts: Facts) -> str:
    of, run = facts.dataset, facts.run
    when = f"{run['created_at']:%Y-%m-%d %H:%M} UTC"
    made = f"Run {run['run_id']} ({text(run['title'])}) of {when}, by Winnow {text(winnow_version())}."
    numbers = [("training samples", of["train"]), ("test samples", of["test"]), ("classes", len(facts.names))]
    if facts.verdict:
        numbers.append(("on the shortlist", facts.verdict.listed))
    items = "".join(f"<li><b>{int(n):,}</b>{name}</li>" for name, n in numbers)
    noise = f" Label noise: {text(of['noise'])}." if of["noise"] else ""
    return (
        f"<header><h1>{text(of['name'])}</h1>\n<p class=faint>{made} Source: {text(of['source'], 300)}.{noise}</p>"
        f"<ul class=facts>{items}</ul></header>\n"
    )


def _verdict(facts: Facts) -> str:
    found = facts.verdict
    if found is None:
        words = no_verdict(str(facts.dataset["name"]), str(facts.run["run_id"]))
        return _section("What to believe", f"<p>{text(words, 1000)}</p>")
    sentences = "".join(f"<p>{text(sentence, 1000)}</p>" for sentence in found.sentences())
    if found.noise is None:
        return _section("What to believe", sentences)
    between = ""
    if found.noise_low is not None and found.noise_high is not None:
        between = f", 95 % interval {percent(found.noise_low, False)} to {percent(found.noise_high)}"
    caption = f"Estimated share of wrong labels: {percent(found.noise)}{between}."
    drawing = interval(found.noise, found.noise_low, found.noise_high)
    return _section("What to believe", f"{sentences}{_figure(drawing, caption)}")


def _worst(facts: Facts) -> str:
    if facts.worst.empty:
        return ""
    images = dict(zip(facts.cards["sample_id"], facts.cards["thumbnail"], strict=True))
    items = []
    for row in _rows(facts.worst):
        name = f"sample {row.sample_id}" + (", of the test part" if row.split == "test" else "")
        suggested = f" → {text(row.suggested)}" if isinstance(row.suggested, str) else ""
        items.append(
            f'<li title="{text(row.source, 300)}">{_image(images.get(row.sample_id), name)}<b>{text(likely(row.p_wrong))}</b> '
            f"{text(row.class_name)}{suggested}<br><span class=faint>{name}</span></li>"
        )
    listed = facts.verdict.listed if facts.verdict else len(items)
    words = f"The first {len(items):,} of {listed:,} on the shortlist: probability of a wrong label, given → suggested label."
    return _section("Most suspicious", f"<p class=faint>{words}</p><ul class=images>{''.join(items)}</ul>")


def _image(content: object, name: str) -> str:
    if not isinstance(content, bytes | bytearray):
        return ""
    try:
        small = max(Image.open(io.BytesIO(content)).size) <= 64
    except (OSError, ValueError, Image.DecompressionBombError):  # a damaged picture is left out, the rest is shown
        return ""
    sharp = " class=sharp" if small else ""
    return f'<img{sharp} alt="{text(name)}" src="data:image/webp;base64,{base64.b64encode(content).decode()}">'


def _classes(facts: Facts) -> str:
    known = bool(facts.dataset["known"])
    heads = ["Class", "Samples", "Of all", "Estimated wrong", "Noise", "Flagged", "Kept", "Dropped", "Relabeled"]
    rows = []
    for row in _rows(facts.quality.head(CLASSES)):
        cells = [text(row.class_name), f"{row.n:,}", percent(row.share), _number(row.wrong), _percent(row.noise)]
        cells += [f"{row.flagged:,}", f"{row.kept:,}", f"{row.dropped:,}", f"{row.relabeled:,}"]
        rows.append([*cells, *([_number(row.known_wrong, 0), _percent(row.precision)] if known else [])])
    words = (
        "The class with most wrong labels first. Estimated wrong: the sum of the probabilities of a wrong label over the "
        "judged samples of the class. " + _left_out(len(facts.quality), CLASSES, "classes")
    )
    heads += ["Known wrong", "Precision of the flagged"] if known else []
    return _section("Classes", f"<p class=faint>{words}</p>{_table(heads, rows)}")


def _pairs(facts: Facts) -> str:
    sizes = facts.pairs.groupby("label")["n"].sum()
    apart = facts.pairs[facts.pairs["label"] != facts.pairs["other"]]
    if apart.empty:
        return ""
    found = apart.sort_values(["n", "label", "other"], ascending=[False, True, True])
    rows = [
        [text(facts.names[r.label]), text(facts.names[r.other]), f"{r.n:,}", percent(r.n / sizes[r.label])]
        for r in _rows(found.head(PAIRS))
    ]
    words = _left_out(len(found), PAIRS, "pairs")
    table = _table(["Given", "Suggested", "Samples", "Of the class"], rows, 2)
    return _section("Given and suggested labels", f"<p class=faint>{words}</p>{table}" if words else table)


def _scores(facts: Facts) -> str:
    figures = []
    if len(facts.suspicion):
        bins = facts.suspicion
        parts = [
            ("not flagged", "blue", bins["rest"].astype(int).tolist()),
            ("on the shortlist", "red", bins["listed"].astype(int).tolist()),
        ]
        drawing = bars(_edges(bins), parts, "probability of a wrong label", log=True)
        figures.append(_figure(drawing, "Samples by their probability of a wrong label; heights are logarithmic."))
    for name, bins in facts.histograms.items():
        parts = [
            (title, style, bins[column].astype(int).tolist())
            for column, title, style in (
                ("unknown", "truth unknown", "gray"), ("clean", "clean", "blue"), ("mislabeled", "mislabeled", "red"),
            )
            if bins[column].sum()
        ]  # fmt: skip
        if parts:
            figures.append(_figure(bars(_edges(bins), parts, name), f"Training samples by {text(name)}."))
    return _section("Scores", f"<div class=pair>{''.join(figures)}</div>") if figures else ""


def _curves(facts: Facts) -> str:
    figures = []
    if len(facts.epochs):
        means = facts.epochs.groupby("epoch")[["train_accuracy", "test_accuracy"]].mean()
        curves = [
            (title, [(float(e), 100 * float(v)) for e, v in zip(means.index, means[column], strict=True) if v == v])
            for column, title in (("train_accuracy", "training"), ("test_accuracy", "test"))
        ]
        drawn = [(name, points) for name, points in curves if points]
        if drawn:
            drawing = lines(drawn, "epoch", "accuracy, %")
            figures.append(_figure(drawing, "Accuracy while training, in % of the samples; mean of all networks."))
    for run_id, points in facts.psi.groupby("run_id", sort=True):
        gone = 100 * (1 - points["kept_fraction"])
        curve = points.assign(gone=gone).groupby(["order", "gone"])["accuracy"].mean().reset_index()
        curves = [
            (str(order), [(float(r.gone), 100 * float(r.accuracy)) for r in _rows(part)])
            for order, part in curve.groupby("order", sort=True)
        ]
        drawing = lines(curves, "pruned, %", "test accuracy, %")
        figures.append(_figure(drawing, f"Test accuracy in % by the share pruned, run {text(run_id)}."))
    return _section("Curves", f"<div class=pair>{''.join(figures)}</div>") if figures else ""


def _decisions(facts: Facts) -> str:
    if facts.decisions.empty:
        return ""
    rows = [[text(r.author or "nobody in particular"), text(r.action), f"{r.n:,}"] for r in _rows(facts.decisions)]
    return _section("Decisions", _table(["By", "Decision", "Samples"], rows, 2))


def _versions(facts: Facts) -> str:
    if not facts.versions:
        return ""
    rows = [
        [text(v.name), text(v.note or ""), f"<code>{text(v.hash[:16])}</code>", text(v.author or "")]
        for v in facts.versions
    ]
    return _section("Versions", _table(["Version", "Note", "Hash of its set", "By"], rows, 4))


def _commands(facts: Facts) -> str:
    lines_of = "\n".join(text(command, 10_000) for command in facts.commands)
    return _section("The same again", f"<pre>{lines_of}</pre>")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}</section>\n"


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table of finished cells; the first columns are words."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=text' if i < words else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    head, body = cells("th", heads), "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class=wide tabindex="0" role="group" aria-label="{heads[0]}">{table}</div>'


def _left_out(count: int, most: int, what: str) -> str:
    return f"{count - most:,} further {what} are left out." if count > most else ""


def _edges(bins: pd.DataFrame) -> list[tuple[float, float]]:
    return [(float(left), float(right)) for left, right in zip(bins["left"], bins["right"], strict=True)]


def _number(value: float, digits: int = 1) -> str:
    return "" if pd.isna(value) else f"{value:,.{digits}f}"


def _percent(value: float) -> str:
    return "" if pd.isna(value) else percent(value)


def _rows(frame: pd.DataFrame) -> Iterable[Any]:
    return frame.itertuples()
