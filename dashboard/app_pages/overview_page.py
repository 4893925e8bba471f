"""The dataset, what to believe of its best run, the most suspicious samples, its runs (live while they are computed)."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from dashboard import charts, data, grid, overview_charts, state, widgets
from dashboard.markup import command_line, plain
from dashboard.verdict import draw_verdict

PAGE = {"title": "Overview", "icon": ":material/dashboard:", "place": 10}

st.html(Path(__file__).parents[1] / "static" / "overview.css")
view = widgets.current_view()
facts = data.dataset_facts(view.at)


def tiles() -> None:
    """The dataset in five numbers."""
    shape = " × ".join(str(n) for n in facts["input_shape"])
    rate = facts["noise_rate"]
    with st.container(horizontal=True, gap="medium", key="tiles"):
        st.metric("Training samples", f"{facts['train']:,}")
        st.metric("Test samples", f"{facts['test']:,}")
        st.metric("Classes", len(view.names))
        st.metric("Input", shape, help="channels × height × width" if len(facts["input_shape"]) == 3 else "dimensions")
        st.metric(
            "Mislabeled",
            "unknown" if rate is None else f"{100 * rate:.1f} %",
            help="share of wrong training labels, where the truth is known",
        )
    origin = f"derived from **{plain(facts['parent'])}**" if facts["parent"] else f"from **{plain(facts['source'])}**"
    noise = f", label noise **{plain(facts['noise'])}**" if facts["noise"] else ""
    skipped = f", {facts['skipped']:,} unreadable samples passed over" if facts["skipped"] else ""
    st.caption(f"{origin}{noise}{skipped}")


@st.fragment(run_every=1.5)
@widgets.guarded
def live() -> None:
    """Runs that are being computed, or that stopped before their end."""
    open_jobs = [job for job in data.jobs(view.at.dataset) if job.state not in ("done", "unreadable")]
    for job in open_jobs[:6]:
        title = f"**{plain(job.title or job.run_id)}**"
        if job.state == "running":
            left = f" · {widgets.duration(job.seconds_left)} left" if job.seconds_left is not None else ""
            st.progress(min(1.0, job.fraction), text=f"{title} · {plain(job.stage)} · {100 * job.fraction:.0f} %{left}")
        else:
            reason = f": {plain(job.message)}" if job.message else ""
            ago = widgets.duration(max(0.0, time.time() - job.updated_at))
            st.warning(
                f"{title} · {job.state} {ago} ago{reason}. Go on with `winnow resume {job.run_id}`",
                icon=":material/pause:",
            )


def suspects() -> None:
    """The most suspicious samples, as pictures: of the shortlist, or the hardest where the run has none."""
    verdict, score = data.verdict(view.at, view.run_id), data.looking.first_score(view)
    if not score:
        return
    listed = score == data.SUSPICION
    link = {"list": "short" if listed else "all", "sort": None if listed else score, "sample": None, "page": None}
    ids = data.worst(view.at, view.run_id, score, data.looking.MOST_PICTURES)
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        title = "Most suspicious" if listed else "Hardest to learn"
        what = f"{verdict.listed:,} on the shortlist" if verdict and listed else f"by {plain(score)}"
        st.markdown(f"#### {title}&ensp;:gray[:small[{what}]]", width="content")
        with st.container(horizontal=True, width="content"):
            if listed:
                st.page_link(
                    "app_pages/review_page.py",
                    label="Review it",
                    icon=":material/rate_review:",
                    query_params=state.link(**link),
                )
            st.page_link(
                "app_pages/gallery_page.py",
                label="Open the shortlist" if listed else "Open the gallery",
                icon=":material/grid_view:",
                query_params=state.link(**link),
            )

    def opened(sample_id: int | None) -> None:
        state.put(**{name: link[name] for name in ("list", "sort")})
        widgets.open_in_gallery(sample_id)

    grid.draw_cards(data.cards(view.at, view.run_id, ids, score), view.names, "suspects", opened, size=84, clipped=True)
    widgets.go_to_gallery()


def runs_table() -> None:
    """Every published run of this dataset, and what is wrong with those that cannot be read."""
    runs = data.runs(view.at)
    st.markdown("#### Runs")
    if runs.empty:
        st.caption("None published yet. This command trains, scores and maps the dataset:")
        st.code(command_line(["run", view.at.dataset]), language="bash")
    else:
        st.html(overview_charts.page(overview_charts.table(*published(runs), "runs")))
    for run_id, problem in data.unreadable(view.at).items():
        st.warning(f"Run `{run_id}` cannot be read. {plain(problem)}", icon=":material/warning:")


def published(runs: pd.DataFrame) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """The published runs as columns, with what they mean, and rows of texts."""
    found = runs.merge(data.verdicts_of(view.at), on="run_id", how="left")
    best, taken = data.best_run(view.at), data.disk_use(view.at).runs
    lines = []
    for r in charts.rows(found):
        is_best = r.run_id == best and r.accuracy == r.accuracy and len(found) > 1
        judged = [
            "" if pd.isna(r.accuracy) else data.percent(r.accuracy),
            "" if pd.isna(r.noise) else data.percent(r.noise),
            "" if pd.isna(r.listed) else f"{int(r.listed):,}",
        ]
        when = "" if pd.isna(r.created_at) else f"{r.created_at.day} {r.created_at:%b, %H:%M}"
        size = data.size(taken.get(r.run_id, 0))
        title = data.shown(r.title, 120) + (" · best" if is_best else "")
        lines.append([title, *judged, widgets.duration(r.seconds), size, when, str(r.kind), str(r.run_id)])
    columns = [
        ("Run", ""),
        ("Accuracy", "held-out predictions that agree with the labels"),
        ("Wrong", "estimated share of wrong labels"),
        ("Shortlist", "samples on the shortlist"),
        ("Took", "seconds that it was computed"),
        ("Size", "on the disk"),
        ("Published (UTC)", ""),
        ("Kind", ""),
        ("Id", ""),
    ]
    shown = [i for i in range(len(columns)) if not found["accuracy"].isna().all() or i not in (1, 2, 3)]
    return [columns[i] for i in shown], [[line[i] for i in shown] for line in lines]


def below() -> None:
    """What the chosen run and the workspace are, in pictures."""
    run_id, used = view.run_id, data.disk_use(view.at)
    epochs = data.epochs(view.at, run_id) if run_id else pd.DataFrame()
    catalog = data.catalog(view.at, run_id) if run_id else pd.DataFrame()
    rules = data.rules(view.at, run_id) if run_id else pd.DataFrame()
    detects = len(catalog) and catalog["roc_auc"].notna().any()
    noisy = facts["known"] and facts["wrong"]
    share = (
        "percent of each true class" if len(view.names) <= overview_charts.MOST_CLASSES else "the most frequent pairs"
    )
    taken = f"The workspace takes {data.size(used.total)}. winnow clean --dry-run lists what of it nothing reads."
    drawn = overview_charts.panels(
        [
            (
                "How well each score finds the mislabeled",
                "ROC AUC, from 0.5 for chance to 1",
                overview_charts.detection_bars(catalog) if detects else "",
            ),
            (
                "Label noise",
                share,
                overview_charts.noise_table(data.transition_matrix(view.at), view.names) if noisy else "",
            ),
            ("Accuracy while training", "", overview_charts.accuracy_lines(epochs) if len(epochs) else ""),
            ("On the disk", taken, overview_charts.disk_bar(used.kinds, [data.size(n) for n in used.kinds.values()])),
            ("Rules, one by one", "", overview_charts.rules_list(rules) if len(rules) else ""),
        ]
    )
    st.html(overview_charts.page(drawn))


with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
    st.header(plain(view.at.dataset), anchor=False, width="content")
    if view.run_id:
        st.download_button(
            "Report",
            partial(data.report, view.at, view.run_id),
            f"{view.at.dataset}-report.html",
            "text/html",
            icon=":material/summarize:",
            help=f"One HTML file with all that matters, as `winnow report {plain(view.at.dataset)}` writes it.",
            on_click="ignore",
            key="report",
        )
tiles()
live()
if view.run_id:
    draw_verdict(view, facts)
    suspects()
runs_table()
below()
