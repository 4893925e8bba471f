"""The distribution of every score, the thresholds of the rules on it, and what each score means."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, data, state, widgets
from dashboard.markup import plain

PAGE = {"title": "Scores", "icon": ":material/bar_chart:", "place": 40, "section": "Analyze"}

view = widgets.current_view()
widgets.need_run(view)
with st.sidebar:
    score = widgets.choose_score(view, "Score")
catalog = data.catalog(view.at, view.run_id)
row = next(r for r in charts.rows(catalog) if r.score == score)

with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"):
    words = [row.title] if isinstance(row.title, str) else []
    words += [f"formula version {row.version}"] if row.version != 1 else []
    st.markdown(f"### {plain(score)}&ensp;:gray[:small[{plain(' · '.join(words))}]]", width="content")
    if row.roc_auc == row.roc_auc:
        with st.container(horizontal=True, width="content", gap="large"):
            st.metric(
                "ROC AUC",
                f"{row.roc_auc:.4f}",
                help="of ranking the mislabeled as hardest; 0.5 = chance",
                width="content",
            )
            st.metric("Average precision", f"{row.average_precision:.4f}", width="content")

thresholds = [
    (str(rule.rule), float(value))
    for rule in charts.rows(data.rules(view.at, view.run_id))
    if rule.score == score
    for value in rule.thresholds
    if value is not None
][:6]
bins = data.histogram(view.at, view.run_id, score)
st.plotly_chart(
    charts.histogram_chart(bins, score, row.higher_means, thresholds), config=charts.NO_BAR, key="histogram"
)
curve = data.detection_curve(view.at, view.run_id, score)
if len(curve):
    noise = data.dataset_facts(view.at)["noise_rate"]
    st.plotly_chart(charts.detection_curve_chart(curve, score, noise), config=charts.NO_BAR, key="detection_curve")
st.page_link(
    "app_pages/gallery_page.py",
    label=f"See the samples by {plain(score)}",
    icon=":material/grid_view:",
    query_params=state.link(sort=score, sample=None, page=None),
)

st.markdown("#### All scores")
# Where the truth is known the best first, else those that can tell a wrong label.
ordered = catalog.assign(label=catalog["evidence"] == "label").merge(data.ranges(view.at, view.run_id), on="score")
table = ordered.sort_values(["roc_auc", "label", "score"], ascending=[False, False, True], na_position="last")[
    ["score", "title", "higher_means", "evidence", "low", "high", "roc_auc", "average_precision", "source", "version"]
]
unknown = [column for column in ("roc_auc", "average_precision") if table[column].isna().all()]
unknown += ["version"] if (table["version"] == 1).all() else []
event = st.dataframe(
    table.drop(columns=unknown).map(lambda cell: data.shown(cell) if isinstance(cell, str) else cell),
    hide_index=True,
    height="content",
    key="table",
    on_select="rerun",
    selection_mode="single-row",
    column_config={
        "score": "Score",
        "title": st.column_config.TextColumn("Meaning", width="medium"),
        "higher_means": "Higher means",
        "evidence": st.column_config.TextColumn(
            "Evidence of", help="what the hard end speaks for; only scores with evidence of the label rank suspects"
        ),
        "low": st.column_config.NumberColumn("Smallest", format="%.3g"),
        "high": st.column_config.NumberColumn("Largest", format="%.3g"),
        "roc_auc": st.column_config.ProgressColumn("ROC AUC", min_value=0, max_value=1, format="%.3f"),
        "average_precision": st.column_config.ProgressColumn(
            "Average precision", min_value=0, max_value=1, format="%.3f"
        ),
        "source": "Source",
        "version": st.column_config.NumberColumn("Version", help="of the formula that gave the values"),
    },
)
picked = event["selection"]["rows"]
if picked and picked[0] < len(table) and state.get("sort") != str(table["score"].iloc[picked[0]]):
    state.put(sort=str(table["score"].iloc[picked[0]]), page=None)
    st.rerun()
