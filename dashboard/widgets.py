"""What several pages share: pickers bound to the address, the filter bar, empty states, the error box."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd
import streamlit as st

from dashboard import charts, data, state
from dashboard.data import View
from dashboard.markup import command_line, plain, short_names


def error_box(error: Exception) -> None:
    """Show an expected error and end the page."""
    st.error(plain(error), icon=":material/error:")
    st.stop()


def guarded(draw: Callable[[], None]) -> Callable[[], None]:
    """A fragment's function whose expected errors are shown in its place: the router does not see fragments rerun."""

    @functools.wraps(draw)
    def safely() -> None:
        try:
            draw()
        except data.WinnowError as error:
            st.error(plain(error), icon=":material/error:")

    return safely


def empty(text: str, *command: str) -> None:
    """An empty state: what is missing, and the words of the command that makes it. Ends the page."""
    missing, _, advice = text.partition(". ")
    with st.container(key="empty"):
        st.markdown(f"#### {plain(missing.removesuffix('.'))}")
        if advice:
            st.markdown(plain(advice))
        st.code(command_line(command), language="bash", wrap_lines=True)
    st.stop()


def choose(
    label: str,
    name: str,
    options: Sequence[str],
    default: str = "",
    titles: Callable[[str], str] = str,
    *,
    segments: bool = False,
    collapsed: bool = False,
    help: str | None = None,
    resets: Sequence[str] = (),
) -> str:
    """A picker for one query parameter; what is not an option counts as the default, and is named under the picker.

    Args: titles: what a person reads for an option, as plain text; resets: what is taken back on change
    """
    label = plain(label)
    named = state.get(name)
    current = named or default
    if current not in options:
        current = default if default in options else options[0]
    key = f"pick_{name}"
    st.session_state[key] = current

    def changed() -> None:
        picked = st.session_state[key]
        value = current if picked is None else picked
        state.put(**{name: "" if value == default else value, **dict.fromkeys(resets)})

    visibility: Literal["visible", "collapsed"] = "collapsed" if collapsed else "visible"
    if segments:
        st.segmented_control(
            label,
            options,
            format_func=lambda option: plain(titles(option)),  # buttons read Markdown, lists do not
            key=key,
            on_change=changed,
            help=help,
            label_visibility=visibility,
            required=True,
        )
    else:
        st.selectbox(
            label,
            options,
            format_func=lambda option: data.shown(titles(option), 120),
            key=key,
            on_change=changed,
            help=help,
            label_visibility=visibility,
        )
    if named and named not in options:
        st.caption(plain(f"The address names {data.shown(named, 60)}, which is not there."))
    return current


def current_view() -> View:
    """What the shared pickers chose in this script run."""
    view: View = st.session_state["winnow_view"]
    return view


def shared_pickers() -> None:
    """The dataset and the run, in the sidebar; ends the page with what to do when there is none."""
    root = data.workspace_root()
    names = data.datasets() if root.exists() else []
    if not names:
        empty("There is no dataset in this workspace yet. This command makes a demo:", "demo", "--workspace", str(root))
    named = state.get("run")
    dataset = state.get("dataset") or data.dataset_of(named)
    if dataset and dataset not in names:
        _no_such(dataset)
    with st.sidebar:
        dataset = choose(
            "Dataset",
            "dataset",
            names,
            dataset or data.latest_dataset(),
            resets=("run", "sample", "samples", "page", "label", "other", "suggested", "region", "outline", "suggests"),
        )
        state.put(dataset=dataset)
        at = data.snapshot(dataset)
        found = data.runs(at)
        scored = found[found["kind"].isin(data.SCORED)]
        run_id = ""
        if len(scored):
            titles = run_titles(scored)
            best = data.best_run(at)
            if len(titles) > 1 and best in titles and data.verdict(at, best):
                titles[best] += " · best"
            if given := next((r for r in scored["run_id"] if named and r.startswith(named)), None):
                state.put(run=given)  # which may be named by its first digits
            run_id = choose(
                "Run",
                "run",
                list(titles),
                best if best in titles else str(scored["run_id"].iloc[0]),
                lambda r: titles[r],
                help="The best is the run whose held-out predictions agree with most labels; it opens where none is chosen.",
                resets=("region", "outline"),
            )
            state.put(run=run_id)
        author_field()
    st.session_state["winnow_view"] = View(at, run_id, short_names(data.class_names(at)))


def _no_such(dataset: str) -> None:
    """Say that a dataset is not there, and lead to one that is: without it every page would say the same."""
    try:
        data.snapshot(dataset)  # its error names the nearest dataset
    except data.WinnowError as error:
        latest = data.latest_dataset()
        st.error(plain(error), icon=":material/error:")
        st.page_link(
            "app_pages/overview_page.py",
            label=f"Open {plain(latest)}",
            icon=":material/dataset:",
            query_params={"dataset": latest},
        )
        st.stop()


def author_field() -> None:
    """Who decides in this session, and the field that changes it. It is in no address: a link carries no name."""
    now, key = data.decisions.author(), "pick_author"

    def changed() -> None:
        data.decisions.choose_author(st.session_state[key][: data.decisions.MOST_AUTHOR])

    st.session_state[key] = now
    with st.popover(f"Deciding as {plain(now) or 'nobody named'}", icon=":material/person:", type="tertiary"):
        st.text_input(
            "Your name",
            key=key,
            on_change=changed,
            max_chars=data.decisions.MOST_AUTHOR,
            help="It stands beside what you decide, until this page is loaded anew. `winnow dashboard --as NAME` sets it for good.",
        )


def run_titles(runs: pd.DataFrame) -> dict[str, str]:
    """What a person reads for each run: its title, and its time where two share one."""
    titles = {str(r.run_id): str(r.title) or str(r.run_id) for r in charts.rows(runs)}
    seen = list(titles.values())
    when = dict(zip(runs["run_id"], runs["created_at"], strict=True))
    return {
        run_id: f"{title} · {when[run_id]:%d %b %H:%M}" if seen.count(title) > 1 else title
        for run_id, title in titles.items()
    }


def need_run(view: View) -> None:
    """End the page with the command to run when no scores are published."""
    if not view.run_id:
        empty(
            f"{view.at.dataset} has no scores yet. This command trains, scores and maps it:",
            "run",
            view.at.dataset,
        )


def choose_order(view: View, resets: Sequence[str]) -> tuple[str, str]:
    """The pickers of a list's order: by which score, the shortlist's own order first, and "hard" or "easy" ones first."""
    score = choose_score(view, suspicion=True)
    first = {"hard": "hardest", "easy": "easiest"}
    if score == data.SUSPICION:
        first = {"hard": "most suspicious", "easy": "least"}
    return score, choose("First", "order", list(first), "hard", lambda o: first[o], segments=True, resets=resets)


def choose_score(
    view: View, label: str = "Sort by", name: str = "sort", default: str = "aum", suspicion: bool = False
) -> str:
    """A picker of the run's scores; with suspicion also, and first, of the order of its shortlist where it has one."""
    scores = data.catalog(view.at, view.run_id)
    if scores.empty:
        empty("This run has no scores.", "run", view.at.dataset, "--scores", "all")
    meanings = {
        str(r.score): f"{r.title} · higher = {r.higher_means}" if isinstance(r.title, str) else ""
        for r in charts.rows(scores)
    }
    verdict = data.verdict(view.at, view.run_id) if suspicion else None
    if verdict and verdict.tells:
        default = data.SUSPICION
        meanings = {
            default: "Estimated from predictions of networks that did not see the sample · the order of the shortlist"
        } | meanings
    options = list(meanings)
    titles = {data.SUSPICION: "probability of a wrong label"}
    chosen = default if default in options else options[0]
    score = choose(label, name, options, chosen, lambda s: titles.get(s, s), resets=("page",))
    st.caption(plain(meanings[score]))
    return score


def open_in_gallery(sample_id: int | None) -> None:
    """For a grid on another page: a click opens the sample in the gallery (see go_to_gallery)."""
    state.put(sample=sample_id)
    st.session_state["winnow_open"] = sample_id is not None


def go_to_gallery() -> None:
    """Leave for the gallery if a sample was opened; pages cannot be switched within a callback."""
    if st.session_state.pop("winnow_open", False):
        st.switch_page("app_pages/gallery_page.py", query_params=state.link())


def pages(number: int, count: int) -> None:
    """Page numbers under a list, bound to the address."""
    if count < 2:
        return
    key = f"pages_{count}_{number}"

    def turned() -> None:
        if st.session_state[key] != number:  # a new list of pages reports the one that it shows as a change
            state.put(page=st.session_state[key])

    with st.container(horizontal_alignment="center"):
        st.pagination(count, default=number, key=key, on_change=turned)


def duration(seconds: float | None) -> str:
    """A time a person can read: 3 s, 2 min, 1.5 h."""
    if seconds is None or seconds != seconds:
        return ""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def legend(truth_known: bool, judged: bool) -> None:
    """What the chips and the mark on the thumbnails mean. judged: the run gives a probability of a wrong label."""
    other = ("background:#1a9a74", "true") if truth_known else ("box-shadow:inset 0 0 0 1.5px #1a9a74", "suggested")
    items = "".join(
        f'<span><i style="{style}"></i>{text}</span>' for style, text in (("background:#3b82b855", "given"), other)
    )
    if judged:
        items += '<span><b class="on">87 %</b>flagged</span><span><b>12 %</b>label wrong</span>'
    st.html(f'<div class="legend">{items}</div>', width="content")
