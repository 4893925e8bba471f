"""What a run does: its stages, what scores read, curves, cross-validation, detectors, and where tasks are computed."""
