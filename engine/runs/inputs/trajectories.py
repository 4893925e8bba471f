"""The inputs that `engine.runs.results` reads from the recorded dynamics, some samples at a time.

A new one is also a column of `engine.training.recording`.
"""

from __future__ import annotations

from engine.scores.inputs import Input, declare_input

for _name, _what in {
    "p_given": "(T, N) probability of the given label per epoch of one seed",
    "margin": "(T, N) margin per epoch of one seed",
    "loss": "(T, N) cross-entropy per epoch of one seed",
    "correct": "(T, N) bool, predicted = given label, per epoch of one seed",
}.items():
    declare_input(Input(_name, _what, "training", dynamics=True))
