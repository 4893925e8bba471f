"""Wrong labels from held-out probabilities: the confident joint, against cleanlab's find_label_issues. Quality and time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measuring import Row, Size, missing, race
from sklearn.metrics import average_precision_score

from engine.scores.heldout import confident_joint, confident_learning


def rows(size: Size) -> Iterator[Row]:
    n, classes = (300, 4) if size.small else (50_000, 10)
    row = Row("issues from probabilities", f"{n:,} x {classes}, 8 % wrong", "cleanlab", 1.0)
    if absent := missing("cleanlab") or missing("termcolor", "cleanlab"):
        yield Row(row.what, row.data, row.peer, row.goal, note=absent)
        return
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    generator = torch.Generator().manual_seed(0)
    true = torch.randint(classes, (n,), generator=generator)
    wrong = torch.rand(n, generator=generator) < 0.08
    labels = torch.where(wrong, (true + 1) % classes, true)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), true] += 3
    probs = logits.softmax(1)
    given, held = labels.numpy(), probs.double().numpy()

    def theirs() -> object:
        find_label_issues(given, held, n_jobs=1)
        return get_label_quality_scores(given, held, method="self_confidence")

    def ours() -> object:
        return confident_joint(probs, labels) > 0, confident_learning(probs, labels)

    found = race(row, ours, theirs, size.repeats)
    quality = [average_precision_score(wrong, s) for s in (confident_learning(probs, labels), 1 - theirs())]
    note = f"average precision {quality[0]:.3f}, cleanlab {quality[1]:.3f}"
    yield Row(row.what, row.data, row.peer, row.goal, found.ours, found.theirs, found.wall, note)
