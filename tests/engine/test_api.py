"""The Python API: the command line's options and results in a notebook, as pandas frames."""

import doctest
import json
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

import engine
from engine.cli.commands import app

HEAVY = ("torch", "duckdb", "pandas", "pyarrow", "numpy", "streamlit", "rich", "typer", "lightning", "transformers")


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, engine\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "assert 'Recorder' in engine.__all__ and issubclass(engine.SpecError, engine.WinnowError)\n"
        "engine.Recorder\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
    with pytest.raises(AttributeError, match="no attribute 'Recoder'"):
        engine.Recoder  # noqa: B018
    assert all(hasattr(engine, name) for name in engine.__all__) and dir(engine) == sorted(engine.__all__)


def test_the_example_of_its_docstring(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(engine) == doctest.TestResults(failed=0, attempted=9)
    assert len(pd.read_csv("curated.csv")) > 100


@pytest.fixture(scope="module")
def demo(judged_workspace):
    return engine.open(judged_workspace)


def test_a_workspace_gives_its_datasets_and_runs(demo, judged_workspace):
    assert list(demo.datasets) == list(demo) == ["digits", "digits-noisy"] and len(demo) == 2
    assert "digits" in demo and "mnist" not in demo and demo._ipython_key_completions_() == list(demo)
    assert demo.path == engine.open(str(judged_workspace)).path == judged_workspace.resolve()
    runs = demo.runs()
    assert list(runs["kind"].value_counts()[["run", "psi"]]) == [2, 1] and set(runs["state"]) == {"done"}
    noisy = demo["digits-noisy"]
    assert list(noisy.runs()["kind"]) == ["psi", "run"]
    run_id = noisy.runs()["run_id"].iloc[1]
    run = demo.find_run(run_id[:6])
    assert run.id == run_id and run.dataset == "digits-noisy"
    assert run.spec["kind"] == "run" and run.spec["training"]["epochs"] == 6
    assert any("AUM threshold" in note for note in run.notes)
    with pytest.raises(engine.NotFoundError, match="unknown dataset 'digit'; did you mean 'digits'?"):
        demo["digit"]
    with pytest.raises(engine.NotFoundError, match="unknown run 'zz'"):
        demo.find_run("zz")
    with pytest.raises(engine.NotFoundError, match="no workspace at"):
        engine.open(judged_workspace / "nothing")


def test_what_a_notebook_shows_of_it(demo):
    assert repr(demo) == f"<winnow workspace {demo.path}: digits, digits-noisy>"
    assert repr(demo["digits"]) == "<Dataset digits: 1,438 training and 359 test samples of 10 classes, 1 run>"
    assert demo["digits"]._repr_html_() == repr(demo["digits"])[1:-1]
    assert demo._repr_html_().count("<li>Dataset digits") == 2
    run = demo.find_run(demo["digits"].runs()["run_id"].iloc[0])
    assert repr(run).startswith(f"<Run {run.id} of digits: mlp, 6 epochs, 2 seeds") and run.title in run._repr_html_()
    gone = engine.Dataset(demo._workspace, "gone")
    assert repr(gone).startswith("<Dataset gone: unknown dataset 'gone'")


def test_frames_are_wide_plain_and_join_on_sample_id(demo):
    noisy = demo["digits-noisy"]
    samples, scores, flags = noisy.samples(), noisy.scores(), noisy.flags()
    assert list(samples) == ["sample_id", "split", "label", "true_label", "class_name", "source"]
    assert len(samples) == 1797 and samples["true_label"].dtype == "Int64"
    assert scores.shape[0] == 1438 and scores["aum"].dtype == np.float32
    assert list(scores["sample_id"]) == list(range(1438))
    assert list(flags["sample_id"]) == list(range(1797))  # the test part is judged as well
    assert list(flags)[:3] == ["sample_id", "flagged", "flagged_aum_threshold"]
    assert set(flags.dtypes.iloc[1:]) == {np.dtype(bool)}
    frame = samples.merge(flags).merge(scores)
    assert len(frame) == 1438
    wrong = frame["label"] != frame["true_label"]
    assert frame.loc[frame["flagged"], "aum"].mean() < frame["aum"].mean() and wrong[frame["flagged"]].mean() > 0.5

    long = noisy.scores(long=True)
    assert list(long) == ["score", "sample_id", "value", "rank"]
    aum = long[long["score"] == "aum"]
    assert np.array_equal(aum["value"], scores["aum"]) and sorted(aum["rank"]) == list(range(1438))
    rules = noisy.flags(long=True)
    assert list(rules) == ["rule", "score", "sample_id", "flagged", "threshold", "value"]
    one = rules[rules["rule"] == "bmm"]
    assert np.array_equal(one["flagged"], flags["flagged_bmm"][:1438])
    # The shortlist, whatever the rules say.
    shortlist = demo.find_run(noisy.runs()["run_id"].iloc[1]).shortlist()
    assert set(shortlist.loc[shortlist["listed"], "sample_id"]) == set(flags.loc[flags["flagged"], "sample_id"])


def test_the_latest_run_is_read_or_the_one_given(demo):
    noisy = demo["digits-noisy"]
    run = demo.find_run(noisy.runs()["run_id"].iloc[1])
    for given in (run, run.id, run.id[:8]):
        pd.testing.assert_frame_equal(noisy.scores(given), noisy.scores())
    pd.testing.assert_frame_equal(run.flags(), noisy.flags(run))
    epochs = run.epochs()
    assert list(epochs)[:3] == ["seed", "epoch", "train_loss"] and len(epochs) == 12
    assert set(run.evaluate()["run_id"]) == {run.id} and run.evaluate()["roc_auc"].max() > 0.8
    psi = demo.find_run(noisy.runs()["run_id"].iloc[0]).psi()
    assert len(psi) == 4 * 4 * 2 and psi["accuracy"].between(0, 1).all()
    assert list(noisy.query("SELECT count(*) AS n FROM scores WHERE score = 'aum'")["n"]) == [1438]
    with pytest.raises(engine.SpecError, match=f"run {run.id} is of dataset 'digits-noisy', not of 'digits'"):
        demo["digits"].scores(run)
    with pytest.raises(engine.WinnowError, match="score_"):
        noisy.query("SELECT score_ FROM scores")


@pytest.fixture
def small(small_workspace):
    return engine.open(small_workspace.root)["small"]


def by_command(root, *words):
    done = CliRunner().invoke(app, [*words, "--workspace", str(root), "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (
            [
                "--epochs",
                "2",
                "--seeds",
                "1",
                "--optimizer",
                "sgd",
                "--scores",
                "aum,el2n@1",
                "--threshold-rounds",
                "0",
            ],
            {"epochs": np.int64(2), "seeds": 1, "optimizer": "sgd", "scores": ["el2n@1", "aum"], "threshold_rounds": 0},
        ),
        (
            ["--preset", "aum-cifar10-fast", "--epochs", "1", "--model", "mlp", "--scores", "el2n"],
            {"preset": "aum-cifar10-fast", "epochs": 1, "model": "mlp", "scores": "el2n", "lr": None},
        ),
        (["--scores", "random"], {"scores": "random"}),
    ],
)
def test_the_same_options_are_the_run_of_the_command_line(small, words, options):
    run = small.run(**options, progress=False)
    found = by_command(run._workspace.root, "run", "small", *words)
    assert (found["run_id"], found["existed"]) == (run.id, True)


def test_a_curve_has_the_options_of_the_command_line(small):
    run = small.psi(orders=["random"], points=2, seeds=1, epochs=1, class_balanced=True, progress=False)
    words = ["--orders", "random", "--points", "2", "--seeds", "1", "--epochs", "1", "--class-balanced"]
    assert by_command(run._workspace.root, "psi", "small", *words)["run_id"] == run.id
    assert list(run.psi()["pruned"]) == [0, 100]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("run", {"epoch": 3}, r"unknown option of run 'epoch'; did you mean 'epochs'\? \(winnow run --help"),
        ("run", {"devise": "cpu"}, "did you mean 'device'"),
        ("run", {"epochs": "ten"}, "epochs is 'ten'; allowed: a whole number"),
        ("run", {"lr": "fast"}, "lr is 'fast'; allowed: a number"),
        ("run", {"scores": 3}, "scores is 3; allowed: names separated by commas, or a list of names"),
        ("run", {"model": 3}, "model is 3; allowed: a text"),
        ("run", {"scores": "el2m"}, "did you mean 'el2n'"),
        ("psi", {"point": 3}, "unknown option of psi 'point'; did you mean 'points'"),
        ("psi", {"window": "yes"}, "window is 'yes'; allowed: True or False"),
        ("psi", {"preset": "nothing"}, "unknown preset 'nothing'"),
    ],
)
def test_a_wrong_option_is_one_line(small, method, options, message):
    with pytest.raises(engine.SpecError, match=message) as error:
        getattr(small, method)(**options, progress=False)
    assert "\n" not in str(error.value)


def test_wrong_options_of_ingest(small_workspace):
    workspace = engine.open(small_workspace.root)
    with pytest.raises(engine.SpecError, match="unknown option of ingest 'nose'; did you mean 'noise'"):
        workspace.ingest("more", "digits", nose="symmetric:0.2")
    with pytest.raises(engine.SpecError, match="limit is 2.5; allowed: a whole number"):
        workspace.ingest("more", "digits", limit=2.5)
    with pytest.raises(engine.SpecError, match="from is 3; allowed: a text"):
        workspace.ingest("more", 3)
    assert list(workspace) == ["small"]


def test_a_recorder_takes_an_open_workspace(small, small_workspace):
    recorder = engine.Recorder(engine.open(small_workspace.root), "small")
    assert recorder.labels.tolist() == small.samples().query("split == 'train'")["label"].tolist()
    recorder.discard()


def test_where_no_run_has_it(small):
    with pytest.raises(engine.NotFoundError, match=r"no run of 'small' has scores; .run\(\) makes one"):
        small.scores()
    assert small.runs().empty and small.evaluate().empty


def test_decisions_and_export(small, tmp_path):
    wrong = small.samples().query("split == 'train' and label != true_label")["sample_id"]
    small.decide(wrong, "drop", note="seen")
    assert list(small.decisions()["sample_id"]) == list(wrong)
    kept = small.export(tmp_path / "kept.csv", "action IS NULL")
    assert kept == (200 - len(wrong), 200) and len(pd.read_csv(tmp_path / "kept.csv")) == kept[0]
    small.undo()
    assert small.decisions().empty
    with pytest.raises(engine.SpecError, match="unknown format 'xls'"):
        small.export(tmp_path / "kept.xls")


CELLS = (
    """
import numpy as np
from pathlib import Path
from PIL import Image

colors = np.random.default_rng(0)
for name, level in {"dark": 40, "light": 200}.items():
    folder = Path("photos", name)
    folder.mkdir(parents=True)
    for i in range(30):
        pixels = colors.integers(level - 30, level + 30, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
# Two dark photos lie among the light ones.
for i in range(2):
    Path("photos/dark", f"{i:02}.png").rename(f"photos/light/wrong{i}.png")
""",
    """
import engine

workspace = engine.open("winnow-workspace", create=True)
photos = workspace.ingest("photos", from_="photos", test_fraction=0)
photos
""",
    """
run = photos.run(model="mlp", epochs=8, seeds=2, batch_size=16, scores="aum,el2n@3", device="cpu")
run
""",
    """
frame = photos.samples().merge(run.flags()).merge(run.scores())
worst = frame.sort_values("aum").head(2)
flagged = frame[frame["flagged"]]
kept, total = photos.export("kept.csv", where="aum > 0")
print(sorted(Path(source).name for source in worst["source"]), kept, total)
""",
)


def test_a_notebook_goes_from_a_folder_to_a_flagged_frame(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    outputs = [cell.outputs for cell in notebook.cells]
    shown = [output.data["text/html"] for cell in outputs for output in cell if output.output_type == "execute_result"]
    assert shown[0].startswith("Dataset photos: 60 training and 0 test samples of 2 classes, 0 runs")
    assert shown[1].startswith("Run ") and "mlp, 8 epochs, 2 seeds" in shown[1]
    progress = "".join(output.text for output in outputs[2] if output.output_type == "stream")
    assert "\rphotos: training" in progress and "Warning" not in progress
    assert outputs[3][0].text == "['wrong0.png', 'wrong1.png'] 58 60\n"
    assert len(pd.read_csv(tmp_path / "kept.csv")) == 58
