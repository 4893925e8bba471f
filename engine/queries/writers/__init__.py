"""Export of samples: which, under which label, and in which format. A format is one function here.

The command line writes a file or a folder by `export_choice`; a page offers the same bytes by `export_bytes`.
"""

from __future__ import annotations

from engine.queries.writers import tables as tables  # each declares its formats: in the order in which they are offered

from engine.queries.writers import pictures as pictures  # isort: skip
from engine.queries.writers import recipes as recipes  # isort: skip
from engine.queries.writers import labeling as labeling  # isort: skip
from engine.queries.writers.conditions import SUSPICION_COLUMNS, run_for, score_columns
from engine.queries.writers.export import (
    MANIFEST,
    Exported,
    export,
    export_bytes,
    export_choice,
    export_samples,
)
from engine.queries.writers.registry import (
    WRITERS,
    Folder,
    Images,
    Link,
    Picture,
    Writer,
    find_writer,
    folder_writer,
    formats_help,
    writer,
)
from engine.queries.writers.selection import (
    Choice,
    Decisions,
    Selection,
    fetch_export,
    fetch_matching,
    fetch_selected,
    selected,
)
from engine.queries.writers.tables import csv_of

__all__ = [
    "MANIFEST", "SUSPICION_COLUMNS", "WRITERS", "Choice", "Decisions", "Exported", "Folder", "Images", "Link", "Picture",
    "Selection", "Writer", "csv_of", "export", "export_bytes", "export_choice", "export_samples", "fetch_export",
    "fetch_matching", "fetch_selected", "find_writer", "folder_writer", "formats_help", "run_for", "score_columns",
    "selected", "writer",
]  # fmt: skip
