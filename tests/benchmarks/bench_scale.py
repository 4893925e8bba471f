"""How time and memory grow with the samples: ingest, features from a file, neighbors, map, scores, export.

Every size is a real run of its own; a stage's growth is the exponent e of time ~ n^e fitted through the sizes. Seconds are of
the processor, memory the most that the whole process held while the stage ran, which Linux counts.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import Row, Size
from PIL import Image

import engine
from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace

WIDTH, CLASSES, BATCH = 64, 10, 10_000
SCORES = ("knn_disagreement", "knn_vote", "prototype_distance", "class_median_distance", "near_duplicate")
STAGES = ("ingest", "features", "neighbors", "map", "duplicates", "scores", "export")


def rows(size: Size) -> Iterator[Row]:
    found: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _stages(min(size.samples), Path(folder))  # a warm-up: imports, and what numba compiles
    for n in size.samples:
        with tempfile.TemporaryDirectory() as folder:
            watched = _stages(n, Path(folder))
        for stage, (seconds, megabytes) in watched.items():
            found.setdefault(stage, {})[n] = seconds
            note = f"{megabytes:,.0f} MB at most" if megabytes else ""
            yield Row(stage, f"{n:,} x {WIDTH} features", "", None, (seconds,), note=note, more={"samples": n})
    for stage, seconds in found.items():
        exponent = growth(list(seconds), list(seconds.values()))
        if exponent is not None:
            yield Row(f"growth of {stage}", "", f"time ~ n^{exponent:.2f}", more={"exponent": exponent})


def growth(samples: list[int], seconds: list[float]) -> float | None:
    """The exponent e of time ~ n^e, by least squares of the logarithms; None of a single size."""
    if len(samples) < 2:
        return None
    return float(np.polyfit(np.log(samples), np.log(np.maximum(seconds, 1e-4)), 1)[0])


def _stages(n: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Processor seconds and megabytes of each stage."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=n)
    groups = rng.normal(size=(CLASSES * 5, WIDTH))[labels * 5 + rng.integers(5, size=n)]
    np.save(folder / "features.npy", (groups + rng.normal(size=(n, WIDTH))).astype(np.float32))
    write_images(folder / "images.parquet", labels, rng)
    workspace = Workspace.open(folder / "workspace", create=True)
    watch = _Watch()
    watch.enter("ingest")
    ingest(workspace, IngestSpec(name="grown", source=str(folder / "images.parquet"), test_fraction=0))
    spec = plan_run(
        workspace,
        "grown",
        list(SCORES),
        TrainingSpec(),
        features=str(folder / "features.npy"),
        neighbors=15,
        embedding="umap",
    )
    watch.enter("features")
    compute(workspace, spec, "cpu", lambda stage, *_: watch.enter(stage.split(" ")[0]))
    watch.enter("export")
    engine.open(folder / "workspace")["grown"].export(folder / "out.csv")
    watch.enter("")
    return {stage: watch.found[stage] for stage in STAGES if stage in watch.found}


class _Watch:
    """What each stage took, from the moments at which the next one begins."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float]] = {}
        self._stage, self._since = "", 0.0

    def enter(self, stage: str) -> None:
        if stage == self._stage:
            return
        if self._stage:
            seconds, most = self.found.get(self._stage, (0.0, 0.0))
            self.found[self._stage] = (seconds + time.process_time() - self._since, max(most, _most()))
        self._stage, self._since = stage, time.process_time()
        clear = Path("/proc/self/clear_refs")
        if clear.exists():
            clear.write_text("5")  # the most memory is counted anew from here


def _most() -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def write_images(path: Path, labels: np.ndarray, rng: np.random.Generator) -> None:
    """Images of 8 x 8 as Hugging Face has images and labels, all different."""
    schema = pa.schema([("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(labels), BATCH):
            some = []
            for pixels in rng.integers(256, size=(len(labels[start : start + BATCH]), 8, 8), dtype=np.uint8):
                Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
                some.append({"bytes": file.getvalue(), "path": None})
            writer.write_table(pa.table({"img": some, "label": labels[start : start + BATCH]}, schema))
