"""How one or several samples were learned: logits, margin and probability over the epochs."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, curves, data, learning, state, widgets
from dashboard.detail import chips, picture, why_text
from dashboard.markup import plain

PAGE = {"title": "Trajectories", "icon": ":material/show_chart:", "place": 30, "section": "Analyze"}

view = widgets.current_view()
widgets.need_run(view)
MOST = 12

with st.sidebar:
    score = widgets.choose_score(view, "Suggest the hardest by")

given = state.get_ints("samples")[:100]
ids = given or tuple(int(i) for i in data.ids(view.at, view.run_id, data.Filter(), score)[:4])
st.session_state["pick_samples"] = ", ".join(map(str, given))


def chose() -> None:
    typed = st.session_state["pick_samples"].replace(",", " ").split()
    state.put(samples=",".join(part for part in typed if state.whole_number(part) is not None))


with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
    st.text_input(
        "Samples",
        key="pick_samples",
        on_change=chose,
        width=360,
        placeholder=f"ids, like {', '.join(map(str, ids[:3]))}",
    )
    epochs = data.epochs(view.at, view.run_id)
    seeds = sorted({int(s) for s in epochs["seed"]})
    seed = int(widgets.choose("Seed", "seed", [str(s) for s in seeds], segments=len(seeds) <= 10)) if seeds else 0
if not given:
    st.caption(f"The hardest by {plain(score)}. Type ids to see others, or come here from a sample in the gallery.")

shown = [i for i in ids if (s := data.sample(view.at, i)) and s["split"] == "train"][:MOST]
lost = [i for i in ids if i not in shown]
if lost:
    st.warning(
        f"Not shown: {', '.join(map(str, lost))}. Up to {MOST} training samples at a time.", icon=":material/info:"
    )
if shown and seeds:
    st.html(learning.legend(data.explanation(view.at, view.run_id, shown[0], seed) is not None))
columns = st.columns(2 if len(shown) > 1 else 1, gap="large")
for place, i in enumerate(shown):
    with columns[place % len(columns)], st.container(border=True):
        dynamics = data.trajectory(view.at, view.run_id, i)
        if dynamics.empty:
            widgets.empty("No dynamics were recorded for this run.", "run", view.at.dataset)
        sample = data.sample(view.at, i)
        label = int(sample["label"]) if sample else 0
        card = data.cards(view.at, view.run_id, [i])
        with st.container(horizontal=True, gap="medium"):
            with st.container(width=92):
                picture(card, 92)
            with st.container(gap="small", key=f"words_{i}"):
                with st.container(horizontal=True, vertical_alignment="center"):
                    st.page_link(
                        "app_pages/gallery_page.py",
                        label=f"**{i}**",
                        query_params=state.link(sample=i),
                        width="content",
                    )
                    chips(card, view.names)
                st.caption(why_text(view, i))
                flags, scores = data.sample_flags(view.at, view.run_id, i), data.sample_scores(view.at, view.run_id, i)
                st.caption(learning.aums(dynamics, scores, flags))
        own = seed if seed in set(dynamics["seed"]) else int(dynamics["seed"].min())
        logits = data.sample_logits(view.at, view.run_id, i)
        adds = data.explanation(view.at, view.run_id, i, own)
        st.plotly_chart(
            curves.trajectory_chart(dynamics, logits, own, label, view.names, adds=adds),
            config=charts.NO_BAR,
            key=f"trajectory_{i}",
        )
        if logits.empty or own not in set(logits["seed"]):
            st.caption("The full logits of this seed were not kept: the given label and the largest other are shown.")
