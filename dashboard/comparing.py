"""What the page Compare holds against each other: two scores, a score and a threshold, two runs, a set before and after."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import charts, data, filters, grid, state, widgets
from dashboard.cloud import Shown, draw_cloud
from dashboard.coloring import Coloring, choose_color
from dashboard.data import View
from dashboard.detail import detail
from dashboard.markup import plain
from dashboard.threshold import choose_measure, draw_threshold

ROW, PER_PAGE = 12, 60
_SHARES = {"1": 0.01, "5": 0.05, "10": 0.10}


def open_sample(sample_id: int | None) -> None:
    state.put(sample=sample_id)


def two_scores(view: View) -> None:
    """Any two scores of a run: where every sample lies, how far they agree, and on which samples they do not."""
    with st.sidebar:
        x = widgets.choose_score(view, "Horizontal axis", "x", "aum")
        y = widgets.choose_score(view, "Vertical axis", "y", "el2n")
        coloring = choose_color(view, _first_color(view))
    wanted = filters.filter_bar(view, x, suspicion=False)
    of = data.clouds.Cloud(view.at, data.clouds.Plane(view.run_id, x, y))
    own = wanted.plane == (x, y)
    outline = wanted.outline if own else ()
    drawn = replace(wanted, plane=("", ""), outline=()) if own else wanted
    higher = data.catalog(view.at, view.run_id).set_index("score")["higher_means"]
    shared = "turned so that higher = harder" if higher[x] != higher[y] else f"higher = {higher[x]} in both"
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        rho = data.clouds.spearman_of(of)
        st.markdown(f"#### Spearman {_number(rho)}&ensp;:gray[:small[{plain(shared)}]]", width="content")
        _overlap(view, of, "both scores")
    ids = data.ids(view.at, view.run_id, wanted, x)
    filters.filter_chips(view, wanted, len(ids), data.dataset_facts(view.at)["train"])

    def outlined(corners: str) -> None:
        state.put(outline=corners, across=x if corners else None, up=y if corners else None, page=None)

    shown = Shown(of, drawn, coloring, f"{x} and {y}", (x, y), outline=outline, selected=state.get_int("sample"))
    left, right = st.columns([3, 2], gap="large")
    with left:
        draw_cloud(view, shown, "pair", outlined, open_sample)
    with right:
        if outline or state.get_int("sample") is not None:
            _chosen(view, ids, x)
        else:
            _disagreements(view, of, drawn, (f"Hard by {x}, easy by {y}", f"Hard by {y}, easy by {x}"), x)


def _first_color(view: View) -> str:
    return "wrong" if data.dataset_facts(view.at)["wrong"] else "none"


def _number(value: float) -> str:
    return "is not defined: a score is constant" if math.isnan(value) else f"{value:.3f}"


def _overlap(view: View, of: data.clouds.Cloud, of_what: str) -> None:
    """Which of the hardest both have: the Jaccard index of as many as are flagged, or of a share."""
    verdict = data.verdict(view.at, view.run_id)
    train = int(data.dataset_facts(view.at)["train"])
    tops = {"flagged": verdict.listed} if verdict and verdict.listed else {}
    tops |= {name: max(1, round(share * train)) for name, share in _SHARES.items()}
    titles = {"flagged": "as many as flagged", **{name: f"{name} %" for name in _SHARES}}
    with st.container(horizontal=True, vertical_alignment="center", width="content"):
        top = tops[
            widgets.choose(
                "Hardest", "top", list(tops), next(iter(tops)), lambda t: titles[t], segments=True, collapsed=True
            )
        ]
        both, either = data.clouds.jaccard(of, top)
        text = (
            f"**Jaccard {both / max(1, either):.3f}**&ensp;:gray[:small[{both:,} of the {top:,} hardest by {of_what}]]"
        )
        st.markdown(text, width="content")


def _chosen(view: View, ids: data.Ids, score: str) -> None:
    """The open sample, else those inside the outline, a page at a time."""
    sample_id = state.get_int("sample")
    if sample_id is not None:
        with st.container(key="detail"):
            detail(view, sample_id, ids)
        return
    if not len(ids):
        st.info("No sample meets all of these conditions.", icon=":material/filter_alt_off:")
        return
    count = -(-len(ids) // PER_PAGE)
    number = max(1, min(state.get_int("page", 1) or 1, count))
    st.markdown(f"**{len(ids):,}** inside the outline")
    shown = ids[(number - 1) * PER_PAGE : number * PER_PAGE]
    grid.draw_cards(data.cards(view.at, view.run_id, shown, score), view.names, "chosen", open_sample, size=84)
    widgets.pages(number, count)


def _disagreements(view: View, of: data.clouds.Cloud, wanted: data.Filter, titles: tuple[str, str], score: str) -> None:
    """Two rows of images: those that one ranks hard and the other easy, and the reverse."""
    st.caption("Click a sample, or draw around some, to see them here. These are the samples the two disagree on most.")
    for title, harder in zip(titles, ("x", "y"), strict=True):
        found = data.clouds.apart(of, wanted, harder, ROW)
        st.markdown(f"##### {plain(title)}")
        if len(found):
            cards = data.cards(view.at, view.run_id, found, score)
            grid.draw_cards(cards, view.names, f"apart_{harder}", open_sample, size=84)
        else:
            st.caption("none")


def one_score(view: View) -> None:
    """One score with a threshold to drag, and the samples beyond it."""
    with st.sidebar:
        score = widgets.choose_score(view, "Score")
    wanted = filters.filter_bar(view, score, suspicion=False)
    bins = data.clouds.thresholds(view.at, view.run_id, score)
    if bins.empty:
        st.info("This score has no finite value.", icon=":material/bar_chart:")
        return
    row = next(r for r in charts.rows(data.catalog(view.at, view.run_id)) if r.score == score)
    ids = data.ids(view.at, view.run_id, wanted, score)
    filters.filter_chips(view, wanted, len(ids), data.dataset_facts(view.at)["train"])
    chosen = (wanted.above, wanted.below) if wanted.measure == score else (-math.inf, math.inf)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.caption(
            "Drag the line, or move it with the arrow keys: what it flags is counted here, and filters every page."
        )
        draw_threshold(bins, score, row.higher_means, chosen, lambda above, below: choose_measure(score, above, below))
    with right:
        if state.get_int("sample") is not None:
            _chosen(view, ids, score)
        elif len(ids):
            turned = ids if math.isinf(chosen[0]) and math.isinf(chosen[1]) else ids[::-1]
            named = "the hardest" if turned is ids else "just beyond the threshold"
            st.markdown(f"**{len(ids):,}** samples&ensp;:gray[:small[{named} first]]")
            cards = data.cards(view.at, view.run_id, turned[:PER_PAGE], score)
            grid.draw_cards(cards, view.names, "beyond", open_sample, size=84)
        else:
            st.info("No sample meets all of these conditions.", icon=":material/filter_alt_off:")


def two_runs(view: View) -> None:
    """Two runs of a dataset: what to believe of each, what they flag, how their scores agree, what moved most."""
    runs = data.runs(view.at)
    others = runs[runs["kind"].isin(data.SCORED) & (runs["run_id"] != view.run_id)]
    if others.empty:
        widgets.empty(
            f"{view.at.dataset} has one run with scores. This command makes another, of three networks:",
            *("run", view.at.dataset, "--seeds", "3"),
        )
    titles = widgets.run_titles(runs)
    with st.sidebar:
        ids = [str(run_id) for run_id in others["run_id"]]
        other = widgets.choose("Against the run", "against", ids, ids[0], lambda r: titles[r])
    shared = data.clouds.shared_scores(view.at, other, view.run_id)
    facts = [_facts(view, run_id, title) for run_id, title in ((other, "first"), (view.run_id, "second"))]
    st.dataframe(pd.DataFrame(facts).set_index("run"), height="content")
    flags = data.clouds.shared_flags(view.at, other, view.run_id)
    if not shared:
        st.info("The two runs have no score in common.", icon=":material/compare_arrows:")
    else:
        with st.sidebar:
            score = widgets.choose("Score", "sort", shared, "aum")
            coloring = choose_color(view, _first_color(view))
        plane = data.clouds.Plane(view.run_id, score, score, "rank", other)
        _ranks(view, data.clouds.Cloud(view.at, plane), coloring, ("first run", "second run"), score)
    st.markdown("#### What they flag")
    words = {"both": "Flagged by both", "first": "Only by the first run", "second": "Only by the second run"}
    for column, row in zip(st.columns(3, gap="large"), charts.rows(flags), strict=True):
        with column:
            st.markdown(f"##### {words[row.side]}&ensp;:gray[:small[{row.n:,}]]")
            if len(row.ids):
                cards = data.cards(view.at, view.run_id, row.ids)
                grid.draw_cards(cards, view.names, f"flags_{row.side}", open_sample, size=84)
    if shared:
        st.markdown("#### Scores that both have")
        st.dataframe(
            data.clouds.shared_spearman(view.at, other, view.run_id).map(
                lambda cell: data.shown(cell) if isinstance(cell, str) else cell
            ),
            hide_index=True,
            height="content",
            column_config={
                "score": "Score",
                "spearman": st.column_config.ProgressColumn(
                    "Spearman of its two values", min_value=-1, max_value=1, format="%.3f"
                ),
            },
        )


def _facts(view: View, run_id: str, which: str) -> dict[str, str]:
    """What to believe of a run, in words."""
    found = data.verdict(view.at, run_id)
    title = widgets.run_titles(data.runs(view.at))[run_id]

    def share(value: float | None) -> str:
        return "unknown" if value is None else data.percent(value)

    return {
        "run": data.shown(f"{which}: {title}", 120),
        "held-out accuracy": share(found.accuracy if found else None),
        "wrong labels, estimated": share(found.noise if found else None),
        "flagged": f"{found.listed:,}" if found else "unknown",
    }


def before_and_after(view: View) -> None:
    """A set against the one that it was derived from: the ranks by a score before and after noise."""
    parent = data.dataset_facts(view.at)["parent"]
    if not parent:
        widgets.empty(
            f"{view.at.dataset} was not derived from another dataset. This command derives one with label noise from it:",
            *("ingest", f"{view.at.dataset}-noisy", "--from", f"dataset:{view.at.dataset}", "--noise", "symmetric:0.2"),
        )
    if parent not in data.datasets():
        widgets.empty(
            f"{parent}, which it was derived from, is not in this workspace.", "ingest", parent, "--from", "SOURCE"
        )
    before = data.snapshot(parent)
    runs = data.runs(before)
    runs = runs[runs["kind"].isin(data.SCORED)]
    if runs.empty:
        widgets.empty(f"{parent} has no scores yet.", "run", parent)
    with st.sidebar:
        score = widgets.choose_score(view, "Score")
        titles = widgets.run_titles(runs)
        other = widgets.choose(
            f"Run on {parent}", "before", list(titles), str(runs["run_id"].iloc[0]), lambda r: titles[r]
        )
        coloring = choose_color(view, _first_color(view))
    if score not in set(data.catalog(before, other)["score"]):
        widgets.empty(f"That run on {parent} has no {score}.", "run", parent, "--scores", score)
    plane = data.clouds.Plane(view.run_id, score, score, "rank", data.clouds.BEFORE)
    of = data.clouds.Cloud(view.at, plane, (before, other))
    moved = data.clouds.moved(of)
    last = data.clouds.extent(of)["right"]
    moves = (
        ""
        if math.isnan(moved[0])
        else f"; the mislabeled moved from rank {last * moved[0]:,.0f} to {last * moved[1]:,.0f} on average"
    )
    st.markdown(f"#### Rank by {plain(score)} before and after noise&ensp;:gray[:small[0 = easiest{moves}]]")
    _ranks(view, of, coloring, (parent, view.at.dataset), score)


def _ranks(view: View, of: data.clouds.Cloud, coloring: Coloring, names: tuple[str, str], score: str) -> None:
    """The ranks of two runs against each other, with the fit, and the samples that moved most."""
    corners = state.get_region("loop")
    wanted = data.Filter()
    slope, intercept = data.clouds.line(of)
    lines: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()
    if not math.isnan(slope):
        ends = data.clouds.extent(of)
        low, high = ends["left"], ends["right"]
        lines = ((f"fit, slope {slope:.2f}", (low, slope * low + intercept, high, slope * high + intercept)),)
    title = f"ranks by {score}: {names[0]} and {names[1]}"
    axes = (f"rank, {names[0]}", f"rank, {names[1]}")
    shown = Shown(of, wanted, coloring, title, axes, True, corners, state.get_int("sample"), lines)
    left, right = st.columns([3, 2], gap="large")
    with left:
        draw_cloud(view, shown, "ranks", lambda text: state.put(loop=text, page=None), open_sample)
    with right:
        if corners or state.get_int("sample") is not None:
            _chosen(view, data.clouds.outlined(of, wanted, corners) if corners else np.empty(0, np.int32), score)
        else:
            _disagreements(view, of, wanted, (f"Harder in {names[0]}", f"Harder in {names[1]}"), score)


def all_scores(view: View) -> None:
    """The correlation of every two scores."""
    st.markdown("#### Spearman correlation&ensp;:gray[:small[all scores turned so that higher = harder]]")
    matrix = data.spearman(view.at, view.run_id)
    same = np.isnan(np.diag(matrix.to_numpy(float)))
    constant = [str(name) for name in matrix.columns[same]]
    drawn = charts.spearman_chart(matrix.drop(index=constant, columns=constant))
    st.plotly_chart(drawn, config=charts.NO_BAR, key="spearman")
    if constant:
        st.caption(plain(f"Left out, as every sample has the same value: {', '.join(constant)}."))
