"""Writing every sample with all scores as CSV: `winnow export` beside DuckDB and pandas by hand, from the same files.

Ours writes a manifest of hashes as well, applies decisions and versions, and guards cells against spreadsheets; a query by
hand does none of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from bench_scale import CLASSES, SCORES, WIDTH, write_images
from measuring import Row, Size, race

import engine
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace

TABLE = "SELECT sample_id, split, label, class_name, source FROM d.samples JOIN d.classes USING (label)"
WIDE = f"FROM ({TABLE}) JOIN (PIVOT (SELECT score, sample_id, value FROM r.scores) ON score USING first(value)) USING (sample_id)"


def rows(size: Size) -> Iterator[Row]:
    n = 300 if size.small else 50_000
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = rng.integers(CLASSES, size=n)
        write_images(folder / "images.parquet", labels, rng)
        np.save(folder / "features.npy", rng.normal(size=(n, WIDTH)).astype(np.float32))
        workspace = Workspace.open(folder / "workspace", create=True)
        ingest(workspace, IngestSpec(name="exported", source=str(folder / "images.parquet"), test_fraction=0))
        options = {"features": str(folder / "features.npy"), "neighbors": 15, "embedding": "none"}
        run, _ = compute(workspace, plan_run(workspace, "exported", list(SCORES), TrainingSpec(), **options), "cpu")
        dataset = engine.open(folder / "workspace")["exported"]
        files = workspace.dataset_path("exported"), workspace.run_dir(run) / "published" / "results.duckdb"

        def ours() -> None:
            dataset.export(folder / "ours.csv", run=run, scores="all")

        def by_duckdb() -> None:
            with duckdb.connect() as connection:
                for file, as_ in zip(files, "dr", strict=True):
                    connection.execute(f"ATTACH '{file}' AS {as_} (READ_ONLY)")
                connection.execute(f"COPY ({WIDE} ORDER BY sample_id) TO '{folder / 'duckdb.csv'}'")

        def by_pandas() -> None:
            with duckdb.connect(str(files[0]), read_only=True) as connection:
                samples = connection.sql("SELECT sample_id, split, label, source FROM samples").df()
                classes = connection.sql("FROM classes").df()
            with duckdb.connect(str(files[1]), read_only=True) as connection:
                scores = connection.sql("SELECT score, sample_id, value FROM scores").df()
            wide = scores.pivot(index="sample_id", columns="score", values="value")
            samples.merge(classes, on="label").merge(wide, on="sample_id").to_csv(folder / "pandas.csv", index=False)

        for peer, theirs in (("DuckDB by hand", by_duckdb), ("pandas by hand", by_pandas)):
            row = Row("export as CSV", f"{n:,} samples, {len(SCORES)} scores", peer)
            yield race(row, ours, theirs, size.repeats)
        written = [
            pd.read_csv(folder / f"{who}.csv").set_index("sample_id").sort_index()
            for who in ("ours", "duckdb", "pandas")
        ]
        if not all(np.allclose(table[list(SCORES)], written[0][list(SCORES)]) and len(table) == n for table in written):
            raise SystemExit("the three files differ")
