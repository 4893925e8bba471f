"""Winnow's engine: training dynamics, per-sample scores and neighbourhoods into DuckDB."""
