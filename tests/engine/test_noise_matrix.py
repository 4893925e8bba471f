"""Noise by the matrix of a file, and by networks: what is read, what is refused, and what a dataset keeps of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import forked_command
import numpy as np
import pytest
from PIL import Image

from engine.data.dataset_file import reading
from engine.data.loader import load_split
from engine.data.noise_matrix import read_matrix
from engine.data.request import IngestSpec
from engine.errors import SourceError, SpecError
from engine.runs.ingesting import ingest
from engine.store.workspace import Workspace
from engine.training.confusions import compute_confusions

NAMES = ("cat", "dog", "<b>owl")
RIGHT = "0.5,0.25,0.25\n0,1,0\n0.1,0.2,0.7\n"


def write(folder: Path, text: str) -> str:
    (folder / "m.csv").write_text(text)
    return str(folder / "m.csv")


def test_a_matrix_is_read_from_csv_and_npy(tmp_path: Path) -> None:
    rows = read_matrix(write(tmp_path, "\ufeff" + RIGHT.replace("\n", "\r\n") + "\n"), NAMES)
    assert rows.tolist() == [[0.5, 0.25, 0.25], [0, 1, 0], [0.1, 0.2, 0.7]] and rows.dtype == np.float64
    np.save(tmp_path / "m.npy", rows.astype(np.float32))
    assert np.allclose(read_matrix(str(tmp_path / "m.npy"), NAMES), rows, atol=1e-7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,0\n0,1\n", "has 2 rows; the dataset has 3 classes: give 3 x 3"),
        ("1,0,0\n0,1\n0,0,1\n", "row 1 has 2 columns; the dataset has 3 classes"),
        ("1,0,0\n0.5,0.6,-0.1\n0,0,1\n", "row 1 ('dog'): column 2 is -0.1; allowed: shares from 0 to 1"),
        ("1,0,0\n0,1,0\n0,nan,1\n", "row 2 ('<b>owl'): column 1 is no number; give shares from 0 to 1"),
        ("1,0,0\n0,1,0\n0,inf,1\n", "row 2 ('<b>owl'): column 1 is no number"),
        ("1,0,0\n0,1,0\n=A1,0,1\n", "row 2 ('<b>owl'): column 0 is no number"),
        ("0.9,0,0\n0,1,0\n0,0,1\n", "row 0 ('cat'): the shares add up to 0.9; allowed: 1"),
        ("9" * 5000, "is too large to be 3 x 3 numbers"),
        ("\x00\x01", "has 1 rows"),
    ],
)
def test_what_is_wrong_with_a_matrix_is_one_line_that_names_the_row(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_matrix(write(tmp_path, text), NAMES)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_only_arrays_of_the_right_shape_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.npy"
    for array, said in (
        (np.eye(2), "has the shape 2 x 2; the dataset has 3 classes: give 3 x 3"),
        (np.array(1.0), "has the shape a single number"),
        (np.array([["a"] * 3] * 3), "holds no array of numbers"),
        (np.eye(3) * np.nan, "row 0 ('cat'): column 0 is no number"),
    ):
        np.save(path, array)
        with pytest.raises(SourceError) as caught:
            read_matrix(str(path), NAMES)
        assert said in str(caught.value)
    np.save(path, np.array([[print] * 3] * 3, object), allow_pickle=True)  # a pickle may run anything when it is read
    with pytest.raises(SourceError, match="is no .npy file of numbers"):
        read_matrix(str(path), NAMES)
    with pytest.raises(SourceError, match="there is no .*gone.csv .--noise matrix.; give a CSV or .npy file of 3 x 3"):
        read_matrix(str(tmp_path / "gone.csv"), NAMES)
    with pytest.raises(SpecError, match="noise 'matrix' names 'm.txt'; write matrix:FILE with a CSV or .npy"):
        IngestSpec(name="a", source="digits", noise="matrix:m.txt")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """400 of the synthetic vectors under their true labels: `clean`."""
    workspace = Workspace.open(tmp_path_factory.mktemp("noise"), create=True)
    ingest(workspace, IngestSpec(name="clean", source="synthetic", limit=400))
    return workspace


def counts(workspace: Workspace, name: str) -> np.ndarray:
    """Training samples by true and given label, (10, 10), as the dataset's file holds them."""
    with reading(workspace.dataset_path(name)) as connection:
        rows = connection.execute("SELECT true_label, label FROM samples WHERE split = 'train'").fetchall()
    out = np.zeros((10, 10), int)
    for true, given in rows:
        out[true, given] += 1
    return out


def test_a_dataset_has_the_matrix_that_it_was_given_and_is_found_again(
    vectors: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 0.7 * np.eye(10) + 0.3 * np.eye(10)[:, (np.arange(10) + 9) % 10]
    np.savetxt(tmp_path / "crowd.csv", rows, delimiter=",")
    monkeypatch.chdir(tmp_path)
    spec = IngestSpec(name="crowd", source="dataset:clean", noise="matrix:crowd.csv")
    done = ingest(vectors, spec)
    assert counts(vectors, "crowd").tolist() == (40 * rows).round().astype(int).tolist()
    assert done.noise_rate == pytest.approx(0.3) and spec.to_json()["noise"] == f"matrix:{tmp_path.resolve()}/crowd.csv"
    assert ingest(vectors, spec).added == 0
    elsewhere = IngestSpec(name="crowd", source="dataset:clean", noise="matrix:other.csv")
    with pytest.raises(SpecError, match="dataset 'crowd' exists, made with noise matrix:"):
        ingest(vectors, elsewhere)


def test_networks_decide_on_instance_noise_and_the_rate_is_exact(vectors: Workspace) -> None:
    steps: list[tuple[str, int, int]] = []
    done = ingest(
        vectors,
        IngestSpec(name="hard", source="dataset:clean", noise="instance:0.15"),
        lambda stage, n, total: steps.append((stage, n, total)),
    )
    assert done.noise_rate == 60 / 400 and any(stage == "networks for the noise" for stage, _, _ in steps)
    truth = load_split(vectors, "clean", "train").labels.numpy()
    seen = compute_confusions(vectors, "clean", truth, 0, lambda *given: None)
    again = compute_confusions(vectors, "clean", truth, 0, lambda *given: None)
    other = compute_confusions(vectors, "clean", truth, 1, lambda *given: None)
    np.testing.assert_array_equal(seen, again)
    assert (seen != other).any() and (seen[np.arange(400), truth] == 0).all() and (seen >= 0).all()
    hard = load_split(vectors, "hard", "train").labels.numpy()
    changed = hard != truth
    np.testing.assert_array_equal(hard[changed], seen.argmax(1)[changed])
    assert seen.max(1)[changed].min() >= seen.max(1)[~changed].max()


def test_the_samples_that_look_like_another_class_are_those_that_are_changed(tmp_path: Path) -> None:
    """60 dark images of class a and 60 bright ones of class b; six of each are nearly as bright as the others."""
    drawn, odd = np.random.default_rng(0), {"a": 180, "b": 70}
    for name, level in (("a", 60), ("b", 190)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(60):
            pixels = drawn.normal(odd[name] if i < 6 else level, 8, (8, 8)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i:02}.png")
    workspace = Workspace.open(tmp_path / "workspace", create=True)
    ingest(workspace, IngestSpec(name="clean", source=str(tmp_path / "images"), test_fraction=0))
    ingest(workspace, IngestSpec(name="noisy", source="dataset:clean", noise="instance:0.1"))
    with reading(workspace.dataset_path("noisy")) as connection:
        changed = connection.execute("SELECT source FROM samples WHERE label <> true_label").fetchall()
    assert len(changed) == 12 and sum(int(Path(place).stem) < 6 for (place,) in changed) >= 11


def winnow(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    return forked_command.winnow(*words, workspace=workspace.root)


def test_instance_noise_needs_a_dataset_that_is_there(vectors: Workspace) -> None:
    done = winnow(vectors, "ingest", "x", "--from", "digits", "--noise", "instance:0.1")
    said = done.stderr.strip()
    assert done.returncode == 2 and len(said.splitlines()) == 1
    assert "ingest x-clean without noise, then x --from dataset:x-clean --noise instance:0.1" in said
    ingest(vectors, IngestSpec(name="few", source="synthetic", limit=2))
    with pytest.raises(SpecError, match="dataset 'few' has 2 training samples; instance noise .* at least 10"):
        ingest(vectors, IngestSpec(name="few-noisy", source="dataset:few", noise="instance:0.5"))
    assert "few-noisy" not in vectors.datasets() and "x" not in vectors.datasets()


def test_a_matrix_and_then_networks_on_the_command_line(vectors: Workspace, tmp_path: Path) -> None:
    np.save(tmp_path / "half+half.npy", np.full((10, 10), 0.1))
    noise = f"matrix:{tmp_path}/half+half.npy+instance:0.1"
    done = winnow(vectors, "ingest", "both", "--from", "dataset:clean", "--json", "--noise", noise)
    assert done.returncode == 0, done.stderr
    # of each class 4 of 40 stay; then 40 of all get another label, and none of those becomes right
    wrong = 400 - int(np.trace(counts(vectors, "both")))
    assert json.loads(done.stdout)["noise_rate"] == wrong / 400 and 360 <= wrong <= 400
