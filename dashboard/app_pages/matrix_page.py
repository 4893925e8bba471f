"""Which label the run would change into which, class by class: where the noise is, with a click on what it is made of."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from dashboard import data, filters, grid, state, widgets
from dashboard.data import confusion
from dashboard.markup import plain
from dashboard.matrix import draw_matrix

PAGE = {"title": "Classes", "icon": ":material/grid_on:", "place": 25}

PAIRS = 200
"""Rows of the list of pairs at most."""

view = widgets.current_view()
widgets.need_run(view)
facts, quality = data.dataset_facts(view.at), confusion.quality(view.at, view.run_id)
options = [*(["suggested"] if confusion.suggests(view.at, view.run_id) else []), *(["true"] if facts["known"] else [])]
long = max(map(len, view.names), default=0) > 20
TITLES = {"suggested": "Given and suggested", "true": "Given and true"}
wanted = filters.filter_bar(view, data.SUSPICION, "all")


def choose_pair(label: int, other: int) -> None:
    """Choose exactly the samples of a cell, on every page."""
    pair = confusion.cell(wanted, against, label, other)
    numbers = {"label": pair.labels, "other": pair.others, "suggested": pair.suggested}
    found = {name: ",".join(map(str, labels)) for name, labels in numbers.items()}
    state.put(**found, truth=pair.truth, list="short" if wanted.flagged else "all", page=None, sample=None)


def pairs_table(pairs: pd.DataFrame) -> None:
    """The pairs that are not alike, the most frequent first; a row chooses its samples."""
    apart = pairs[pairs["label"] != pairs["other"]]
    sizes = pairs.groupby("label")["n"].sum()
    found = apart.sort_values(["n", "label", "other"], ascending=[False, True, True]).head(PAIRS)
    total = int(apart["n"].sum())
    st.markdown(f"#### Most often&ensp;:gray[:small[{total:,} samples in {len(apart):,} pairs]]")
    shown = pd.DataFrame({
        "given": [view.names[c] for c in found["label"]],
        "other": [view.names[c] for c in found["other"]],
        "n": found["n"].to_numpy(),
        "share": 100 * found["n"].to_numpy() / sizes.reindex(found["label"]).to_numpy(),
    })  # fmt: skip
    key, width = f"pairs_{against}", 105 if long else None

    def selected() -> None:
        if rows := st.session_state[key]["selection"]["rows"]:
            choose_pair(int(found["label"].iloc[rows[0]]), int(found["other"].iloc[rows[0]]))

    st.dataframe(
        shown,
        hide_index=True,
        height=min(420, 38 + 35 * max(1, len(shown))),
        key=key,
        on_select=selected,
        selection_mode="single-row",
        column_config={
            "given": st.column_config.TextColumn("Given", width=width),
            "other": st.column_config.TextColumn(against.capitalize(), width=width),
            "n": st.column_config.NumberColumn("Samples", format="localized"),
            "share": st.column_config.NumberColumn(
                "Share", format="%.1f %%", help="of the samples with this given label"
            ),
        },
    )


def class_table() -> None:
    """Every class with what is known of its labels, the one with most wrong ones first; a row filters by it."""
    verdict = data.verdict(view.at, view.run_id)
    st.markdown("#### Classes")
    judged = verdict is not None and verdict.tells
    st.caption(
        "Wrong is estimated: the sum of the probabilities of a wrong label over the samples of the class, which come from "
        "predictions of networks that did not see them. A row chooses its class."
        if judged
        else "This run does not tell how many labels are wrong."
    )
    shown = quality.assign(
        class_name=[view.names[c] for c in quality["label"]], share=100 * quality["share"], noise=100 * quality["noise"],
        precision=100 * quality["precision"],
    )  # fmt: skip
    columns = ["class_name", "n", "share", *(["wrong", "noise", "flagged", "undecided"] if judged else [])]
    columns += ["kept", "dropped", "relabeled"] if quality[["kept", "dropped", "relabeled"]].to_numpy().any() else []
    columns += ["known_wrong", *(["precision"] if judged else [])] if facts["known"] else []
    number, percent = st.column_config.NumberColumn, "%.1f %%"

    def selected() -> None:
        if rows := st.session_state["class_table"]["selection"]["rows"]:
            state.put(label=int(quality["label"].iloc[rows[0]]), other=None, suggested=None, page=None)

    st.dataframe(
        shown[columns],
        hide_index=True,
        height=min(560, 38 + 35 * len(shown)),
        key="class_table",
        on_select=selected,
        selection_mode="single-row",
        column_config={
            "class_name": st.column_config.TextColumn("Class", width="medium" if long else None),
            "n": number("Samples", format="localized"),
            "share": number("Of all", format=percent),
            "wrong": number("Wrong", format="%.1f", help="estimated number of wrong labels"),
            "noise": number("Noise", format=percent, help="wrong / samples"),
            "flagged": number("Flagged", format="localized", help="on the shortlist"),
            "undecided": number("To decide", format="localized", help="flagged, without a decision"),
            "kept": "Kept",
            "dropped": "Dropped",
            "relabeled": "Relabeled",
            "known_wrong": number("Known wrong", format="localized", help="the given label is not the true one"),
            "precision": number("Precision", format=percent, help="of the flagged, those whose label is wrong"),
        },
    )


if options:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        resets = ("other", "suggested", "truth")
        chosen = widgets.choose(
            "Labels", "against", options, options[0], lambda a: TITLES[a], segments=True, collapsed=True, resets=resets
        )
        against: confusion.Against = "true" if chosen == "true" else "suggested"
        ORDERS = {"label": "in the order of the labels", "noise": "most wrong first"}
        first = "label" if len(view.names) <= 30 else "noise"
        order = widgets.choose(
            "Order", "classes", list(ORDERS), first, lambda o: ORDERS[o], segments=True, collapsed=True
        )
    pairs = confusion.confusions(
        view.at, view.run_id, replace(wanted, labels=(), others=(), suggested=(), truth=""), against
    )
    ids = data.ids(view.at, view.run_id, wanted, data.SUSPICION)
    filters.filter_chips(view, wanted, len(ids), filters.count_all(view, wanted))
    picked = wanted.suggested if against == "suggested" else wanted.others
    pair = (wanted.labels[0], picked[0]) if len(wanted.labels) == 1 and len(picked) == 1 else None
    left, right = st.columns([3, 2], gap="large")
    with left:
        labels = range(len(view.names)) if order == "label" else [int(c) for c in quality["label"]]
        draw_matrix(pairs, view.names, labels, against, f"matrix_{against}", choose_pair, pair)
        class_table()
    with right:
        if pair:
            where = "The label is right" if pair[0] == pair[1] and against == "true" else "The run agrees"
            words = where if pair[0] == pair[1] else f"Given {view.names[pair[0]]}, {against} {view.names[pair[1]]}"
            st.markdown(f"#### {plain(words)}&ensp;:gray[:small[{len(ids):,}]]")
            cards = data.cards(view.at, view.run_id, ids[:24], data.SUSPICION)
            grid.draw_cards(cards, view.names, "pair", widgets.open_in_gallery, size=84)
            widgets.go_to_gallery()
            link = state.link(sample=None, page=None)
            st.page_link(
                "app_pages/gallery_page.py", label="Open in the gallery", icon=":material/grid_view:", query_params=link
            )
        pairs_table(pairs)
else:
    st.info("This run suggests no labels, and no true label is known.", icon=":material/info:")
    class_table()
