"""The workspace on disk: what is published, running, decided. No torch."""
