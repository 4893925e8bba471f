"""The dataset, what to believe of its best run, the most suspicious samples, its runs (live while they are computed)."""

from __future__ import annotations

import time
from functools import partial

import pandas as pd
import streamlit as st

from dashboard import charts, curves, data, grid, state, widgets
from dashboard.markup import command_line, plain
from dashboard.verdict import draw_verdict

PAGE = {"title": "Overview", "icon": ":material/dashboard:", "place": 10}

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
    verdict, scores = data.verdict(view.at, view.run_id), set(data.catalog(view.at, view.run_id)["score"])
    listed = bool(verdict and verdict.listed)
    score = data.SUSPICION if listed else "aum" if "aum" in scores else next(iter(sorted(scores)), "")
    if not score:
        return
    link = {"list": "short" if listed else "all", "sort": None if listed else score, "sample": None, "page": None}
    wanted = data.Filter(flagged=True, split="all") if listed else data.Filter()
    ids = data.ids(view.at, view.run_id, wanted, score)
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        title = "Most suspicious" if listed else "Hardest to learn"
        what = f"{len(ids):,} on the shortlist" if listed else f"by {plain(score)}"
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

    grid.draw_cards(
        data.cards(view.at, view.run_id, ids[:24], score), view.names, "suspects", opened, size=84, clipped=True
    )
    widgets.go_to_gallery()


def runs_table() -> None:
    """Every published run of this dataset, and what is wrong with those that cannot be read."""
    runs = data.runs(view.at)
    st.markdown("#### Runs")
    if runs.empty:
        st.caption("None published yet. This command trains, scores and maps the dataset:")
        st.code(command_line(["run", view.at.dataset]), language="bash")
    else:
        published(runs)
    disk()
    for run_id, problem in data.unreadable(view.at).items():
        st.warning(f"Run `{run_id}` cannot be read. {plain(problem)}", icon=":material/warning:")


def published(runs: pd.DataFrame) -> None:
    """The published runs as a table."""
    found = runs.merge(data.verdicts_of(view.at), on="run_id", how="left")
    best, taken = data.best_run(view.at), data.disk_use(view.at).runs
    shown = found.assign(
        size=[data.size(taken.get(run_id, 0)) for run_id in found["run_id"]],
        took=[widgets.duration(s) for s in found["seconds"]],
        title=[
            data.shown(r.title, 120)
            + (" · best" if r.run_id == best and r.accuracy == r.accuracy and len(found) > 1 else "")
            for r in charts.rows(found)
        ],
        accuracy=["" if pd.isna(x) else data.percent(x) for x in found["accuracy"]],
        noise=["" if pd.isna(x) else data.percent(x) for x in found["noise"]],
        listed=["" if pd.isna(x) else f"{int(x):,}" for x in found["listed"]],
    )[["title", "accuracy", "noise", "listed", "took", "size", "created_at", "kind", "run_id"]]
    if found["accuracy"].isna().all():
        shown = shown.drop(columns=["accuracy", "noise", "listed"])
    st.dataframe(
        shown,
        hide_index=True,
        height="content",
        column_config={
            "title": st.column_config.TextColumn("Run", width="large"),
            "accuracy": st.column_config.TextColumn("Accuracy", help="held-out predictions that agree with the labels"),
            "noise": st.column_config.TextColumn("Wrong", help="estimated share of wrong labels"),
            "listed": "Shortlist",
            "kind": "Kind",
            "took": "Took",
            "size": st.column_config.TextColumn("Size", help="on the disk"),
            "created_at": st.column_config.DatetimeColumn("Published (UTC)", format="D MMM, HH:mm"),
            "run_id": "Id",
        },
    )


def disk() -> None:
    """What the whole workspace takes on the disk."""
    used = data.disk_use(view.at)
    st.caption(f"The workspace takes {data.size(used.total)}. `winnow clean --dry-run` lists what of it nothing reads.")
    texts = [data.size(count) for count in used.kinds.values()]
    st.plotly_chart(charts.disk_chart(used.kinds, texts), config=charts.NO_BAR, key="disk")


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
left, right = st.columns([3, 2], gap="large")
with left:
    epochs = data.epochs(view.at, view.run_id) if view.run_id else None
    if epochs is not None and len(epochs):
        st.markdown("#### Accuracy while training")
        st.plotly_chart(curves.accuracy_chart(epochs), config=charts.NO_BAR, key="accuracy")
    runs_table()
    if facts["known"] and facts["wrong"]:
        st.markdown("#### Label noise")
        st.caption("percent of each true class")
        st.plotly_chart(
            charts.noise_chart(data.transition_matrix(view.at), view.names), config=charts.NO_BAR, key="noise"
        )
with right:
    catalog = data.catalog(view.at, view.run_id) if view.run_id else None
    if catalog is not None and catalog["roc_auc"].notna().any():
        st.markdown("#### How well each score finds the mislabeled")
        st.plotly_chart(charts.detection_chart(catalog), config=charts.NO_BAR, key="detection")
    rules = data.rules(view.at, view.run_id) if view.run_id else pd.DataFrame()
    if len(rules):
        st.markdown("#### Rules, one by one")
    for rule in charts.rows(rules):
        known = rule.recall == rule.recall  # NaN where no truth is known
        quality = f" · precision {100 * rule.precision:.1f} % · recall {100 * rule.recall:.1f} %" if known else ""
        st.markdown(f"**{plain(rule.rule)}** flags {rule.flagged:,} of {rule.judged:,}{quality}")
        if rule.why_unused:
            st.caption(f"left out of the vote: {plain(rule.why_unused)}")
