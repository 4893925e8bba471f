"""Deciding about one sample after the other: what the component shows of each, and what it says of the whole list."""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import charts, data
from dashboard.data import View
from dashboard.data.reviews import Progress
from dashboard.why import Doubt, doubt_of, why

KEY = "review"
MOST_ITEMS = 24
"""Samples in one answer. The browser asks for more as soon as it has drawn them."""
MOST_BYTES, MOST_SECONDS = 3_000_000, 0.3
"""What the originals in one answer take at most, but for the first."""
SIDE, WHOLE = 1_600, 8_000
"""Pixels a side of an original, and of one that is looked at in full size, at most."""
IN_SENTENCE = 80
"""Characters of a name of a class within a sentence."""
SHOWN = 5
"""Neighbors of each class that are shown."""

WRONG_AT_MOST, SURE = 0.10, 0.95
"""When to suggest to stop: fewer than so many of what comes are wrong, with this probability."""

_STATIC = Path(__file__).with_name("static")


def _text(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


_REVIEW = st.components.v2.component(
    "winnow_review",
    html=_text("review.html"),
    css=_text("review.css"),
    js="\n".join(map(_text, ("outbox.js", "review_view.js", "review.js"))),
)


def draw_review(view: View, ids: data.Ids, start: int, falling: bool, suggesting: str = "") -> int:
    """Draw the component, write what it sends, and answer it. Called within a fragment.

    Args:    start: the place in the list to open at; falling: whether the list goes from the most to the least suspicious;
             suggesting: a relabeling whose labels are suggested in place of the run's own
    Returns: how many of the list nobody has decided
    """
    sent = st.session_state.get(KEY, {}).get("sent")
    sent = sent if isinstance(sent, Mapping) else {}
    facts = data.dataset_facts(view.at)
    about = _digest(view.at.dataset, facts["fingerprint"], data.decisions.author())
    listed = _digest(about, view.run_id, suggesting, ids.tobytes())
    done: list[str] = []
    refused: dict[str, str] = {}
    problem = ""
    if sent.get("about") == about:
        requests = [one for one in map(data.reviews.parse, _listed(sent, "operations")) if one]
        done, refused, problem = data.reviews.write(view.at, requests)
    same = sent.get("list") == listed
    wanted = _places(sent, "items", len(ids)) if same else list(range(start, min(len(ids), start + 3)))
    pictures = _places(sent, "originals", len(ids)) if same else wanted[:1]
    whole = _places({"whole": [sent.get("whole")]}, "whole", len(ids)) if same else []
    progress = data.reviews.progress(view.at, ids)
    both = sorted({*wanted, *pictures, *whole})
    rows = _rows(view, [int(ids[i]) for i in both], suggesting)
    about_it = dict(zip(both, rows, strict=True))
    _REVIEW(
        key=KEY,
        data={
            "about": about,
            "list": listed,
            "n": len(ids),
            "start": start,
            "tick": sent.get("tick", 0) if same else 0,
            "author": data.shown(data.decisions.author(), 40),
            "names": None if same and sent.get("named") else [data.shown(n, 200) for n in data.class_names(view.at)],
            "done": done,
            "refused": refused,
            "problem": problem,
            "items": _items(view, {i: about_it[i] for i in wanted}),
            "originals": [
                *(_original(view, i, about_it[i], WHOLE) | {"full": True} for i in whole),
                *_originals(view, {i: about_it[i] for i in pictures}),
            ],
            "standing": _standing(view, ids, sent, both),
            "tally": {
                "decided": progress.decided,
                "wrong": progress.dropped + progress.relabeled,
                "kept": progress.kept,
                "unsure": progress.unsure,
                "stop": stop_advice(progress, falling),
            },
        },
        on_sent_change=lambda: None,
    )
    return progress.n - progress.decided


def stop_advice(progress: Progress, falling: bool) -> str:
    """What the last decisions say of the rest: "" until so many were kept in a row that hardly any of it can be wrong.

    If a share w of what comes were wrong, k in a row would be right with (1 - w)^k. Where that is under 5 %, w is smaller:
    of 29 that were all kept, w < 1 - 0.05^(1/29) = 9.8 %.
    """
    kept = next((k for k, action in enumerate(progress.recent) if action != "keep"), len(progress.recent))
    share = 1 - (1 - SURE) ** (1 / kept) if kept else 1.0
    if share > WRONG_AT_MOST or not progress.n - progress.decided:
        return ""
    why = "as the list becomes less suspicious" if falling else "if they are like these"
    return (
        f"The last {kept} were all kept: with 95 % confidence, fewer than {math.ceil(100 * share)} % of the rest have a "
        f"wrong label, {why}. You may stop here."
    )


def _rows(view: View, ids: Sequence[int], suggesting: str) -> list[Any]:
    return list(charts.rows(data.reviews.doubts(view.at, view.run_id, ids, suggesting))) if ids else []


def _items(view: View, rows: Mapping[int, Any]) -> list[dict[str, Any]]:
    """What the component shows of some samples, by their places in the list; the originals come after."""
    if not rows:
        return []
    verdict = data.verdict(view.at, view.run_id)
    ids = [int(row.sample_id) for row in rows.values()]
    near = data.reviews.neighbor_labels(view.at, view.run_id, ids)
    # In full they stand above the sentence.
    names = [data.shown(name, IN_SENTENCE) for name in data.class_names(view.at)]
    found, pictures = [], set()
    for place, row in rows.items():
        mine = near[near["sample_id"] == row.sample_id]
        doubt = doubt_of(row, mine["label"].tolist(), names, bool(verdict and verdict.accuracy is not None))
        labels = [int(row.label)] + ([] if pd.isna(row.suggested_label) else [int(row.suggested_label)])
        groups = [_group(view, label, mine, int(row.sample_id)) for label in labels]
        pictures |= {i for group in groups for i in group["ids"]}
        found.append((place, row, doubt, groups))
    thumbnails = data.reviews.thumbnails(view.at, sorted(pictures)) if pictures else {}
    return [_item(place, row, doubt, groups, thumbnails) for place, row, doubt, groups in found]


def _group(view: View, label: int, near: pd.DataFrame, sample_id: int) -> dict[str, Any]:
    """The nearest of a class; where none is near, samples of it whose label is beyond doubt."""
    like = near["neighbor_id"][near["label"] == label].tolist()
    if like:
        many = f"{len(like)} of its {len(near)} nearest neighbors"
        return {"label": label, "text": many, "ids": like[:SHOWN]}
    sure = [i for i in data.reviews.typical(view.at, view.run_id).get(label, []) if i != sample_id]
    none = f"none of its {len(near)} nearest neighbors" if len(near) else ""
    return {"label": label, "text": "; ".join(filter(None, [none, "typical ones" if sure else ""])), "ids": sure}


def _item(
    place: int, row: Any, doubt: Doubt, groups: Sequence[Mapping[str, Any]], thumbnails: Mapping[int, bytes]
) -> dict[str, Any]:
    return {
        "index": place,
        "id": int(row.sample_id),
        "given": int(row.label),
        "p_given": "" if doubt.p_given is None else data.likely(doubt.p_given),
        "suggested": None if pd.isna(row.suggested_label) else int(row.suggested_label),
        "confidence": "" if doubt.confidence is None else data.likely(doubt.confidence),
        "p_wrong": "" if pd.isna(row.p_wrong) else data.likely(float(row.p_wrong)),
        "listed": bool(row.listed),
        "why": why(doubt),
        "source": data.shown(row.source, 300) if isinstance(row.source, str) else "",
        "thumbnail": _picture(_bytes(row.thumbnail)),
        "near": [
            {
                "label": group["label"],
                "text": group["text"],
                "thumbnails": [_picture(thumbnails[i]) for i in group["ids"] if i in thumbnails],
            }
            for group in groups
        ],
    }


def _originals(view: View, rows: Mapping[int, Any]) -> list[dict[str, Any]]:
    """The originals of some samples, as many as fit into one answer; the browser asks for the others again."""
    found: list[dict[str, Any]] = []
    size, since = 0, time.monotonic()
    for place, row in rows.items():
        if found and (size > MOST_BYTES or time.monotonic() - since > MOST_SECONDS):
            break
        found.append(_original(view, place, row, SIDE))
        size += len(found[-1]["image"])
    return found


def _original(view: View, place: int, row: Any, most: int) -> dict[str, Any]:
    seen = data.reviews.original(view.at, int(row.sample_id), str(row.source or ""), _bytes(row.thumbnail), most)
    return {
        "index": place,
        "image": _picture(seen.content) if seen.content else "",
        "width": seen.width,
        "height": seen.height,
        "path": data.shown(seen.path, 4_000),
        "missing": MISSING[seen.missing] + (f": {data.shown(seen.problem, 120)}" if seen.problem else ""),
    }


MISSING = {
    "": "",
    "moved": "thumbnail: the original is not there any more",
    "changed": "thumbnail: another image is in the place of the original",
    "outside": "thumbnail: the original lies outside of the folders you named (--originals FOLDER reads it)",
    "unreadable": "thumbnail: the original cannot be read",
}


def _standing(view: View, ids: data.Ids, sent: Mapping[str, Any], new: Sequence[int]) -> dict[str, Any]:
    """What is decided about the samples that are sent now, and about those that were just decided."""
    meant = {int(ids[i]) for i in new}
    meant |= {one.sample_id for one in map(data.reviews.parse, _listed(sent, "operations")) if one}
    facts = data.dataset_facts(view.at)
    n = int(facts["train"] + facts["test"])
    known = [i for i in meant if 0 <= i < n]
    now = data.reviews.decided(view.at, known) if known else {}
    return {str(i): now.get(i) for i in known}


def _listed(sent: Mapping[str, Any], name: str) -> list[Any]:
    found = sent.get(name)
    return found[:200] if isinstance(found, list) else []


def _places(sent: Mapping[str, Any], name: str, n: int) -> list[int]:
    found = [i for i in _listed(sent, name) if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < n]
    return found[:MOST_ITEMS]


def _digest(*parts: str | bytes) -> str:
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        found.update(len(content).to_bytes(8, "little") + content)
    return found.hexdigest()


def _bytes(content: object) -> bytes:
    return bytes(content) if isinstance(content, bytes | bytearray) else b""


def _picture(content: bytes) -> str:
    kind = "jpeg" if content[:2] == b"\xff\xd8" else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
