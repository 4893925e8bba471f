"""One self-contained HTML file that says what is known of a dataset: for people who have no dashboard."""
