"""The map of the training samples, colored by anything; an outline drawn on it filters every page."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, clouds, data, filters, grid, state, widgets
from dashboard.markup import short_names

PAGE = {"title": "Embedding", "icon": ":material/bubble_chart:", "place": 60}

view = widgets.current_view()
widgets.need_run(view)
points = data.sample_map(view.at, view.run_id)
if points.empty:
    widgets.empty("This run has no map.", "run", view.at.dataset)
facts = data.dataset_facts(view.at)
names = list(view.names)
fixed = {"given": "given class", "true": "true class", "wrong": "mislabeled", "flagged": "flagged"}
if not facts["known"]:
    fixed = {name: title for name, title in fixed.items() if name not in ("true", "wrong")}
if data.verdict(view.at, view.run_id) is None:
    del fixed["flagged"]
titles = {
    **fixed,
    **{f"about:{name}": str(name) for name in data.metadata(view.at, "names")["name"]},
    **{f"score:{s}": str(s) for s in data.catalog(view.at, view.run_id)["score"]},
}
DRAWN = 100_000  # more points than this are drawn as a seeded sample; an outline still chooses among all

with st.sidebar:
    color = widgets.choose("Color by", "color", list(titles), "given", lambda c: titles[c])
score = color.removeprefix("score:") if color.startswith("score:") else "aum" if "score:aum" in titles else ""
wanted = filters.filter_bar(view, score, suspicion=False)
ids = data.ids(view.at, view.run_id, wanted, score)
key = f"map_{state.get('mapkey')}"


def selected() -> None:
    chosen = st.session_state[key]["selection"]
    for outline in [*chosen.get("lasso", []), *chosen.get("box", [])]:
        x, y = list(outline["x"]), list(outline["y"])
        st.session_state["outlined"] = key
        state.put_region(*((x, y) if len(x) > 2 else ([x[0], x[1], x[1], x[0]], [y[0], y[0], y[1], y[1]])))
        return
    if chosen.get("points"):
        given = chosen["points"][0].get("customdata")
        widgets.open_in_gallery(given[0] if isinstance(given, list) else given)
    elif st.session_state.get("outlined") == key:
        # An outline drawn here was taken back. One that came with the address stays when the chart, new to this
        # session, reports that nothing is selected in it.
        state.put(region=None)


if color == "given":
    painted, kind = points.assign(color=points["label"]), "class"
elif color == "true":
    painted, kind = points.assign(color=points["true_label"]), "class"
elif color == "wrong":
    painted, kind = points.assign(color=(points["true_label"] >= 0) & (points["true_label"] != points["label"])), "yes"
elif color == "flagged":
    painted, kind = points.assign(color=points["flagged"]), "yes"
elif color.startswith("about:"):
    name = color.removeprefix("about:")
    known = data.metadata(view.at, "samples", name).set_index("sample_id")
    if filters.number_range(view, name):
        painted, kind = points.assign(color=points["sample_id"].map(known["number"])).dropna(subset="color"), name
    else:  # the rarer values are gray, as what is unknown
        values = data.metadata(view.at, "values", name)["value"].astype(str).tolist()[: len(charts.CLASSES)]
        codes = points["sample_id"].map(known["value"]).map({value: i for i, value in enumerate(values)})
        names = list(short_names(values))
        painted, kind = points.assign(color=codes.fillna(-1).astype(int)), "class"
else:
    scored = data.score(view.at, view.run_id, score).set_index("sample_id")["value"]
    painted, kind = points.assign(color=points["sample_id"].map(scored)), score
others = data.ids(view.at, view.run_id, filters.without_region(wanted))
if len(others) < len(points):
    painted = painted[painted["sample_id"].isin(others)]
if len(painted) > DRAWN:
    painted = painted.sample(DRAWN, random_state=0)

widgets.go_to_gallery()
filters.filter_chips(view, wanted, len(ids), facts["train"])
left, right = st.columns([3, 2], gap="large")
with left:
    if painted.empty:
        st.info("No sample meets all of these conditions.", icon=":material/filter_alt_off:")
        st.stop()
    st.plotly_chart(
        clouds.map_chart(painted, kind, names, wanted.region),
        config=charts.SELECT_BAR,
        on_select=selected,
        key=key,
    )
    if len(painted) == DRAWN:
        st.caption(f"{DRAWN:,} of {len(others):,} points are drawn; an outline chooses among all.")
with right:
    if not wanted.region:
        st.caption(
            "Click a point, or draw around some with the lasso tool: the outline filters the gallery and the export too."
        )
    if len(ids):
        number = max(1, min(state.get_int("page", 1) or 1, -(-len(ids) // 60)))
        shown = ids[(number - 1) * 60 : number * 60]
        grid.draw_cards(
            data.cards(view.at, view.run_id, shown, score), view.names, "inside", widgets.open_in_gallery, size=84
        )
        widgets.pages(number, -(-len(ids) // 60))
