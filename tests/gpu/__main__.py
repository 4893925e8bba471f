"""The tests that need a GPU, and what a GPU is good for: `python tests/gpu`, on a machine that has one.

It runs from a checkout, without an installation, where there are torch, torchvision, numpy, pandas, scikit-learn and pytest. It
runs the tests marked `gpu`, times the same work on the processor and on the GPU, and writes the table as gpu.md and
gpu.json. `--device cpu` runs the tests of the processor and times it alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from absent import stand_in  # noqa: E402

stand_in()

import torch  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: without a GPU")
    parser.add_argument("--tiny", action="store_true", help="time a few samples, to see that it runs")
    parser.add_argument("--only", choices=("tests", "benchmark"), help="one of the two")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.md and gpu.json (default: this one)")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: torch finds no CUDA device, so nothing was run; --device cpu runs the same on the processor")
        return 2
    failed = 0
    if given.only != "benchmark":
        failed = run_tests(given.device)
    if given.only != "tests":
        devices = [torch.device("cpu"), *([torch.device("cuda")] if given.device == "cuda" else [])]
        write_table(devices, given.tiny, given.out)
    return 1 if failed else 0


def run_tests(device: str) -> int:
    """The tests of this folder on a device; the exit status of pytest."""
    import pytest

    # without the settings and plugins of the whole suite, which need not be here
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["--confcutdir", str(HERE), "-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider"]
    return int(pytest.main([str(HERE), *options, "-q", "-m", "gpu" if device == "cuda" else "not gpu"]))


def write_table(devices: list[torch.device], tiny: bool, folder: Path) -> None:
    """Measure, print the table, and write it."""
    from measure import measure, table

    rows = measure(devices, tiny, lambda text: print(text, file=sys.stderr, flush=True))
    gpu = torch.cuda.get_device_name() if len(devices) > 1 else "no GPU"
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "gpu": gpu,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    text = f"{', '.join(f'{name} {value}' for name, value in about.items())}\n\n{table(rows, devices)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.md").write_text(text)
    (folder / "gpu.json").write_text(
        json.dumps({**about, "tiny": tiny, "rows": [asdict(row) for row in rows]}, indent=1)
    )
    print(text)


if __name__ == "__main__":
    sys.exit(main())
