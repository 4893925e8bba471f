"""The examples of the README and the guide run: the tutorial's commands and every Python block, on a small folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits
from test_guide import TEXTS, blocks, parsed, shell_lines

SLOW_OR_ELSEWHERE = ("dashboard", "resnet18", "torchvision:resnet18:resnet18.pth")
"""Commands of the tutorial with one of these words serve pages, take minutes, or need a file of weights."""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with photos/: 200 digits as PNG files, a folder per class."""
    data = load_digits()
    for i, (image, label) in enumerate(zip(data.images[:200], data.target[:200], strict=True)):
        folder = tmp_path / "photos" / f"class-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 // 16).astype("uint8")).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WINNOW_WORKSPACE", raising=False)
    return tmp_path


def test_the_tutorial_goes_from_a_folder_to_a_csv(photos: Path) -> None:
    typed = [words[1:] for words in shell_lines(TEXTS["dashboard/guide/10-tutorial.md"]) if words[0] == "winnow"]
    ran = [words for words in typed if not set(words) & set(SLOW_OR_ELSEWHERE)]
    assert [words[0] for words in ran] == ["ingest", "run", "query", "query", "select", "export", "psi"]
    for words in ran:
        with parsed(words) as context:
            context.command.invoke(context)
    kept = (photos / "kept.csv").read_text().splitlines()
    assert kept[0].split(",")[:2] == ["sample_id", "split"] and len(kept) - 1 == round(0.97 * 160)
    assert (photos / "clean.csv").read_text().count("\n") > 1


def test_the_python_of_the_readme_runs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(TEXTS["README.md"], "python")
    exec(compile(code, "README.md", "exec"), {})
    assert "class_name" in capsys.readouterr().out and (photos / "clean.csv").is_file()


def test_the_python_of_the_guide_runs(photos: Path) -> None:
    """Every block in turn, as in one notebook, but for those of other trainers: test_integrations.py runs such loops."""
    given: dict[str, Any] = {}
    for i, code in enumerate(blocks(TEXTS["dashboard/guide/50-python.md"], "python")):
        if "engine.integrations" not in code:
            exec(compile(code, f"50-python.md, block {i}", "exec"), given)
    recorded = given["mine"].query("SELECT title FROM runs WHERE kind = 'recorded'")["title"].tolist()
    assert recorded == ["my network, 10 epochs, 1 seed"] and 0 < given["kept"] <= given["total"] == 160
    assert (photos / "clean.csv").is_file() and (photos / "kept.csv").read_text().count("\n") == 160
