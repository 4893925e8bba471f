"""What the figures of the papers show: read-only SQL -> DataFrame. No torch."""
