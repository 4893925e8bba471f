"""The pictures of the overview as HTML of a few hundred elements, which a browser paints at once: plotly alone is 4.7 MB.

DataFrame or Verdict -> HTML for st.html; static/overview.css has the looks. Every text of others goes through
`html_text`. What a bar or a point says is its title, and each picture has a name for screen readers. No Streamlit in here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from dashboard.charts import BLUE, GRAY, rows
from dashboard.data import Verdict, percent
from dashboard.markup import html_text

MOST_CLASSES = 12
"""So many classes are drawn as a table; of more, the pairs that are confused most."""

MOST_PAIRS = 12

TINTS = {"train": GRAY, "test": BLUE}


def panels(parts: Iterable[tuple[str, str, str]]) -> str:
    """Titled pictures beside and below one another, as many columns as there is room for.

    Args: parts: title, note under it ("" for none), HTML; those without HTML are left out
    """
    drawn = "".join(
        f"<section><h4>{html_text(title)}</h4>{_note(note)}{body}</section>" for title, note, body in parts if body
    )
    return f'<div class="panels">{drawn}</div>'


def page(*bodies: str) -> str:
    """What the other functions gave, as st.html takes it."""
    return f'<div class="drawn">{"".join(bodies)}</div>'


def _note(text: str) -> str:
    return f'<p class="note">{html_text(text, 300)}</p>' if text else ""


# The verdict ----------------------------------------------------------------------------------------------------


def accuracy_bar(verdict: Verdict) -> str:
    """Held-out accuracy on a line from 0 to 100 %, with what a guess would reach. Without an accuracy: an empty line."""
    inside, words = "", "held-out accuracy: unknown"
    if verdict.accuracy is not None:
        words = f"held-out predictions agree with {percent(verdict.accuracy)} of the labels"
        inside += _band(0, 100 * verdict.accuracy, "given", words)
    if verdict.chance is not None:
        inside += _mark(100 * verdict.chance, f"a guess agrees with {percent(verdict.chance)}", "guess")
    return _line(100, inside, words)


def noise_bar(verdict: Verdict, known: float | None = None) -> str:
    """The estimated share of wrong labels with its interval, the two estimates behind it, and the known share.

    Args: known: the share of the labels that are wrong, 0..1; None = unknown
    """
    shares = [verdict.noise, verdict.noise_low, verdict.noise_high, verdict.noise_joint, verdict.noise_mixture, known]
    most = min(100.0, max(1.0, 130 * max((share for share in shares if share is not None), default=0.0)))
    if verdict.noise is None:
        return _line(most, "", "no estimate")
    inside, low, high = "", verdict.noise_low, verdict.noise_high
    words = f"estimated share of wrong labels: {percent(verdict.noise)}"
    if low is not None and high is not None:
        between = f"95 % interval: {percent(low, False)} to {percent(high)}"
        inside += _band(100 * low / most * 100, 100 * (high - low) / most * 100, "interval", between)
        words += f", {between}"
    for share, name, word in (
        (verdict.noise_joint, "by the held-out predictions", "predictions" if verdict.disagrees else ""),
        (verdict.noise_mixture, "by how the suspicion is distributed", "distribution" if verdict.disagrees else ""),
        (known, "known to be wrong", "" if verdict.disagrees else "known"),
    ):
        if share is not None:
            kind = " known" if name.startswith("known") else ""
            inside += _mark(100 * share / most * 100, f"{name}: {percent(share)}", word, kind)
    inside += _dot(100 * verdict.noise / most * 100, f"estimate: {percent(verdict.noise)}", "estimate")
    return _line(most, inside, words)


def suspicion_bars(bins: pd.DataFrame) -> str:
    """How many samples have which probability of a wrong label, those of the shortlist apart. Counts are on a log scale.

    Args: bins with left, right (0..1), listed, rest (samples)
    """
    most = float(bins[["rest", "listed"]].to_numpy().max(initial=1))
    top = math.log10(most) + 0.15
    bars, totals = [], {}
    for column, name, kind in (("rest", "not flagged", "given"), ("listed", "on the shortlist", "wrong")):
        totals[name, kind] = int(bins[column].sum())
        for left, right, n in zip(bins["left"], bins["right"], bins[column], strict=True):
            if n:
                height = 100 * (math.log10(n) + 0.15) / (top + 0.15)  # one sample is seen
                tip = f"{100 * left:.3g} to {100 * right:.3g} %: {int(n):,} {name}"
                bars.append(
                    f'<i class="{kind}" style="left:{100 * left:.2f}%;width:{100 * (right - left):.2f}%;'
                    f'height:{height:.1f}%" title="{tip}"></i>'
                )
    marks = "".join(
        f'<b class="rule" style="bottom:{100 * (power + 0.15) / (top + 0.15):.1f}%">{_short(10**power)}</b>'
        for power in range(int(math.log10(most)) + 1)
    )
    words = ", ".join(f"{n:,} {name}" for (name, _), n in totals.items())
    legend = "".join(f'<span><i class="{kind}"></i>{name}&ensp;{n:,}</span>' for (name, kind), n in totals.items() if n)
    ticks = "".join(f'<span style="left:{at}%">{at} %</span>' for at in (0, 25, 50, 75, 100))
    return (
        f'<div class="keys">{legend}</div><div class="bars" role="img" aria-label="samples by probability of a wrong '
        f'label: {words}">{marks}{"".join(bars)}</div><div class="ticks inset" aria-hidden="true">{ticks}</div>'
        '<p class="note">probability that the label is wrong; samples on a logarithmic scale</p>'
    )


# The set and its runs ---------------------------------------------------------------------------------------------


def accuracy_lines(epochs: pd.DataFrame) -> str:
    """Training and test accuracy over epochs: the mean over seeds, and from the lowest to the highest seed.

    Args: epochs with seed, epoch, train_accuracy, test_accuracy (0..1, NaN where there is no test split)
    """
    found = []
    for name in ("train", "test"):
        known = epochs[np.isfinite(epochs[f"{name}_accuracy"].astype(float))].dropna(subset=["epoch"])
        if len(known):
            found.append((name, known.groupby("epoch")[f"{name}_accuracy"].agg(["mean", "min", "max"]) * 100))
    if not found:
        return ""
    low = min(float(by["min"].min()) for _, by in found)
    high = max(float(by["max"].max()) for _, by in found)
    floor, ceiling = _ends(low, high)
    first, last = (int(edge) for edge in (min(by.index[0] for _, by in found), max(by.index[-1] for _, by in found)))

    def across(epoch: Any) -> float:
        return 100 * (float(epoch) - first) / max(1, last - first)

    def down(value: float) -> float:
        return 100 * (ceiling - value) / (ceiling - floor)

    drawn, words = "", []
    tips: dict[int, list[str]] = {}
    for name, by in found:
        band = [*zip(by.index, by["max"], strict=True), *zip(by.index[::-1], by["min"][::-1], strict=True)]
        mean = [*zip(by.index, by["mean"], strict=True)]
        for shape, points, look in (
            ("polygon", band, f"fill='{TINTS[name]}' opacity='.2'"),
            (
                "polyline",
                mean,
                f"fill='none' stroke='{TINTS[name]}' stroke-width='2.5' vector-effect='non-scaling-stroke'",
            ),
        ):
            places = " ".join(f"{across(epoch):.2f},{down(float(value)):.2f}" for epoch, value in points)
            drawn += f"<{shape} points='{places}' {look}/>"
        words.append(f"{name} {by['mean'].iloc[-1]:.1f} % after epoch {by.index[-1]}")
        for epoch, value in mean:
            tips.setdefault(int(epoch), []).append(f"{name} {value:.1f} %")
    # As an image: st.html takes SVG out of the page itself.
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 100 100' preserveAspectRatio='none'>{drawn}</svg>"
    picture = f'<img alt="" src="data:image/svg+xml,{quote(svg)}">'
    wide = 100 / max(1, len(tips))
    columns = "".join(
        f'<i style="left:{across(epoch) - wide / 2:.2f}%;width:{wide:.2f}%" title="epoch {epoch}: {", ".join(tip)}"></i>'
        for epoch, tip in tips.items()
    )
    rules = "".join(
        f'<b class="rule" style="top:{down(value):.1f}%">{value:.4g} %</b>'
        for value in (floor, (floor + ceiling) / 2, ceiling)
    )
    ends = "".join(f'<span><i class="{name}"></i>{name}&ensp;{by["mean"].iloc[-1]:.1f} %</span>' for name, by in found)
    ticks = f'<span style="left:0%">epoch {first}</span><span style="left:100%">{last}</span>'
    return (
        f'<div class="keys">{ends}</div><div class="lines" role="img" aria-label="accuracy while training: {", ".join(words)}">'
        f"{rules}{picture}{columns}</div>"
        f'<div class="ticks inset" aria-hidden="true">{ticks}</div>'
    )


def noise_table(matrix: pd.DataFrame, names: Sequence[str]) -> str:
    """The transition matrix of the labels, in percent of each true class; of many classes the pairs confused most.

    Args: matrix with true_label, label, count, share
    """
    wrong = matrix[matrix["true_label"] != matrix["label"]]
    if len(names) > MOST_CLASSES:
        return _pairs(wrong, names)
    cells = {(int(r.true_label), int(r.label)): (float(r.share), int(r.count)) for r in rows(matrix)}
    strongest = float(wrong["share"].max()) if len(wrong) else 1.0
    head = "".join(f'<th scope="col" title="{html_text(name)}"><span>{html_text(name)}</span></th>' for name in names)
    body = ""
    for true, name in enumerate(names):
        row = ""
        for given in range(len(names)):
            share, n = cells.get((true, given), (0.0, 0))
            tip = (
                f"true {html_text(name)}, given {html_text(names[given])}: {percent(share)} of the class, {n:,} samples"
            )
            # Never so strong that the page's own text color, light or dark, could not be read on it.
            look = ' class="same"' if true == given else f' style="--much:{70 * share / strongest:.0f}%"' if n else ""
            row += f'<td{look} title="{tip}">{f"{100 * share:.0f}" if share >= 0.005 else ""}</td>'
        body += f'<tr><th scope="row" title="{html_text(name)}"><span>{html_text(name)}</span></th>{row}</tr>'
    return (
        '<div class="scrolls" tabindex="0" role="region" aria-label="label noise"><table class="confused">'
        f'<thead><tr><th class="corner">true ↓ given →</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _pairs(wrong: pd.DataFrame, names: Sequence[str]) -> str:
    """The pairs of classes that are confused most, as bars."""
    most = wrong.sort_values(["count", "true_label", "label"], ascending=[False, True, True]).head(MOST_PAIRS)
    bars = [
        (
            f"{names[int(r.true_label)]} → {names[int(r.label)]}",
            100 * float(r.share),
            f"{int(r.count):,}",
            f"{percent(float(r.share))} of the true class",
        )
        for r in rows(most)
    ]
    top = max((bar[1] for bar in bars), default=1.0)
    return _list([(name, 0.0, 100 * share / top, value, tip, "wrong") for name, share, value, tip in bars])


def detection_bars(catalog: pd.DataFrame) -> str:
    """How well each score ranks the mislabeled last: ROC AUC as a bar from chance (0.5), the best first.

    Args: catalog with score, roc_auc, average_precision (NaN rows are left out)
    """
    known = catalog.dropna(subset=["roc_auc"]).sort_values("roc_auc", ascending=False, kind="stable")
    low = min(0.48, float(known["roc_auc"].min()) - 0.03) if len(known) else 0.48

    def place(value: float) -> float:
        return 100 * (value - low) / (1 - low)

    bars = []
    for r in rows(known):
        tip = f"ROC AUC {r.roc_auc:.4f}, average precision {r.average_precision:.4f}"
        ends = sorted((place(0.5), place(float(r.roc_auc))))
        bars.append((str(r.score), ends[0], ends[1] - ends[0], f"{r.roc_auc:.3f}", tip, "given"))
    return _list(bars)


def rules_list(rules: pd.DataFrame) -> str:
    """What each rule flags, and how right it is where the truth is known.

    Args: rules as fetch_rules gives them
    """
    items = ""
    for r in rows(rules):
        known = r.recall == r.recall  # NaN where no truth is known
        right = (
            f"precision {100 * r.precision:.1f} % · " if r.precision == r.precision else ""
        )  # NaN where it flags none
        quality = f" · {right}recall {100 * r.recall:.1f} %" if known else ""
        why = f'<p class="note">left out of the vote: {html_text(r.why_unused, 400)}</p>' if r.why_unused else ""
        items += f"<li><b>{html_text(r.rule)}</b> flags {r.flagged:,} of {r.judged:,}{quality}{why}</li>"
    return f'<ul class="rules">{items}</ul>' if items else ""


def disk_bar(kinds: Mapping[str, int], texts: Sequence[str]) -> str:
    """What a workspace takes on the disk, as one bar of parts; those under a hundredth have no name.

    Args: kinds, what the bytes are -> bytes; texts, the bytes of each as they are shown
    """
    total, parts, names = max(1, sum(kinds.values())), "", ""
    for i, ((kind, count), text) in enumerate(zip(kinds.items(), texts, strict=True)):
        tip = f"{html_text(kind)} {html_text(text)}"
        parts += (
            f'<i class="part p{i % 6}" style="width:{100 * count / total:.2f}%" title="{tip}"></i>' if count else ""
        )
        names += f'<span><i class="p{i % 6}"></i>{tip}</span>' if 100 * count >= total else ""
    words = ", ".join(f"{html_text(kind)} {html_text(text)}" for kind, text in zip(kinds, texts, strict=True))
    return f'<div class="stack" role="img" aria-label="{words}">{parts}</div><div class="keys">{names}</div>'


def table(columns: Sequence[tuple[str, str]], lines: Sequence[Sequence[str]], name: str) -> str:
    """A table of texts that scrolls where it is too wide or too long.

    Args: columns: title, and what it means ("" where that is plain); lines: the texts of each row; name: for screen readers
    """
    head = "".join(f'<th scope="col" title="{html_text(about)}">{html_text(title)}</th>' for title, about in columns)
    body = "".join("<tr>" + "".join(f"<td>{html_text(cell, 160)}</td>" for cell in row) + "</tr>" for row in lines)
    return (
        f'<div class="scrolls tall" tabindex="0" role="region" aria-label="{html_text(name)}"><table class="listing">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


# Parts ----------------------------------------------------------------------------------------------------------


def _list(bars: Sequence[tuple[str, float, float, str, str, str]]) -> str:
    """Bars below one another: name, left and width in percent, value, title, kind."""
    items = "".join(
        f'<li title="{html_text(name)}: {html_text(tip)}"><span class="name">{html_text(name)}</span>'
        f'<span class="track">{_band(left, width, kind)}</span><span class="value">{html_text(value)}</span></li>'
        for name, left, width, value, tip, kind in bars
    )
    return f'<ul class="list">{items}</ul>' if items else ""


def _line(most: float, inside: str, words: str) -> str:
    """A horizontal line from 0 to a percentage, with what stands on it."""
    step = next(step for step in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if most / step <= 5)
    ticks = "".join(
        f'<span style="left:{100 * at / most:.2f}%">{at:g} %</span>' for at in np.arange(0, most * 1.001, step).tolist()
    )
    return (
        f'<div class="line" role="img" aria-label="{html_text(words, 300)}"><span class="track">{inside}</span></div>'
        f'<div class="ticks" aria-hidden="true">{ticks}</div>'
    )


def _band(left: float, width: float, kind: str, tip: str = "") -> str:
    about = f' title="{html_text(tip)}"' if tip else ""
    return f'<i class="band {kind}" style="left:{left:.2f}%;width:{max(width, 0.3):.2f}%"{about}></i>'


def _mark(at: float, tip: str, word: str = "", kind: str = "") -> str:
    """A thin line across with a word above it."""
    above = f"<b>{html_text(word)}</b>" if word else ""
    return f'<i class="mark{kind}" style="left:{at:.2f}%" title="{html_text(tip)}">{above}</i>'


def _dot(at: float, tip: str, kind: str) -> str:
    return f'<i class="dot {kind}" style="left:{at:.2f}%" title="{html_text(tip)}"></i>'


def _short(count: int) -> str:
    """1, 10, 100, 1k, 10k, 1M."""
    return f"{count // 1_000_000}M" if count >= 1_000_000 else f"{count // 1_000}k" if count >= 1_000 else str(count)


def _ends(low: float, high: float) -> tuple[float, float]:
    """Round ends in percent that hold two values."""
    step = 5 if high - low < 30 else 10
    floor, ceiling = step * math.floor(low / step), step * math.ceil(high / step)
    return float(floor), float(ceiling if ceiling > floor else floor + step)
