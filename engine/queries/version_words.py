"""A version in words: its recipe in sentences and as the command that gives the same, its numbers on a line. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.queries.verdicts import percent
from engine.store.versions import Recipe, Version


def recipe_sentences(recipe: Recipe, facts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The steps of a recipe in the order in which they decide, each with the samples that it decided about."""
    run = f" of run {recipe.run}" if recipe.run else ""
    lines = [(f"all training samples of {recipe.dataset}", int(facts["samples"]))]
    if recipe.decisions is None:
        lines.append(("people's decisions are passed over", 0))
    else:
        people = [
            ("dropped by a person", facts["dropped_by_person"]),
            ("relabeled by a person", facts["relabeled_by_person"]),
            ("kept by a person, whatever a rule says", facts["kept_by_person"]),
        ]
        lines += [(text, int(count)) for text, count in people if count]
        if recipe.unsure:
            what = "kept" if recipe.unsure == "keep" else "dropped"
            lines.append((f"{what} where a person was unsure", int(facts["unsure"])))
    for condition, count in zip(recipe.drop, facts["dropped_by_condition"], strict=False):
        lines.append((f"dropped where {condition}", int(count)))
    if recipe.relabel_above is not None:
        of = f" of run {recipe.suggests}" if recipe.suggests else run
        text = f"relabeled to the suggestion{of} where its confidence is at least {recipe.relabel_above:g}"
        lines.append((text, int(facts["relabeled_by_suggestion"])))
    if recipe.drop_shortlist:
        rest = "the rest of the shortlist" if recipe.relabel_above is not None or recipe.drop else "the shortlist"
        lines.append((f"dropped: {rest}{run}", int(facts["dropped_by_shortlist"])))
    return lines


def command_words(recipe: Recipe, name: str, note: str = "") -> list[str]:
    """The words of the command that makes the same recipe, with the decisions that stand when it is given."""
    words = ["version", "create", recipe.dataset, name]
    for condition in recipe.drop:
        words += ["--drop", condition]
    if recipe.relabel_above is not None:
        words += ["--relabel-above", f"{recipe.relabel_above:g}"]
    words += ["--drop-shortlist"] if recipe.drop_shortlist else []
    words += ["--no-decisions"] if recipe.decisions is None else []
    words += ["--unsure", recipe.unsure] if recipe.unsure else []
    run = recipe.suggests or recipe.run
    words += ["--run", run] if run else []
    return words + (["--note", note] if note else [])


def version_line(version: Version) -> str:
    """A version in one line: its size, what was dropped and relabeled, and what noise is left."""
    facts = version.facts
    parts = [f"{facts['kept']:,} of {facts['samples']:,} training samples, {facts['relabeled']:,} relabeled"]
    if facts.get("noise_left") is not None:
        parts.append(f"estimated wrong labels {percent(facts['noise_left'])}, {percent(facts['noise_before'])} before")
    if facts.get("known"):
        before, left = facts["wrong_before"] / facts["known"], facts["wrong_left"] / max(1, facts["known_kept"])
        parts.append(f"by the known truth {percent(left)}, {percent(before)} before")
    return "; ".join(parts)
