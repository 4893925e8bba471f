"""Correcting labels: learners that stand wrong labels, and methods that turn what they say into suggestions.

Nothing here reads a true label.
"""
