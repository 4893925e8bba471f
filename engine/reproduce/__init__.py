"""The tables and figures of the five papers, computed on any dataset and set beside what was published."""
