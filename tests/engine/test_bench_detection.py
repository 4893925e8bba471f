"""The benchmark of finding wrong labels: its textures, its figures and tables, and what it computes of its peers."""

import csv
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import logistic
from sklearn.metrics import pairwise

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def module(name: str):
    @pytest.fixture(scope="module")
    def loaded():
        """A script as a module, with the folder it stands in on the path as when it is run."""
        sys.path.insert(0, str(BENCHMARKS))
        yield importlib.import_module(name)
        sys.path.remove(str(BENCHMARKS))

    return loaded


bench, peers, tables, textures = map(module, ("bench_detection", "detection_peers", "detection_tables", "textures"))


# Textures --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(textures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("textures") / "some.textures"
    assert textures.write_textures(out, 50, 0.2, 3, 24, "png") == 10
    return out


def test_the_truth_is_that_of_the_folders(folder, textures, bench):
    truth = bench.read_truth(Path(f"{folder}.csv"))
    assert {Path(path).parts[-2:] for path in folder.glob("*/*.png")} == set(truth)
    assert all(key[0] == label for key, (label, _) in truth.items())
    assert sum(label != true for label, true in truth.values()) == 10
    assert len(textures.CLASSES) >= 10
    per_class = [sum(true == name for _, true in truth.values()) for name in textures.CLASSES]
    assert max(per_class) - min(per_class) <= 1
    with open(f"{folder}.csv", newline="") as file:
        assert next(csv.reader(file)) == ["path", "label", "true_label"]


def test_the_same_arguments_give_the_same_pictures(folder, textures, tmp_path):
    textures.write_textures(tmp_path / "again", 50, 0.2, 3, 24, "png")
    textures.write_textures(tmp_path / "other", 50, 0.2, 4, 24, "png")
    files = sorted(path.relative_to(folder) for path in folder.glob("*/*.png"))
    assert files == sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").glob("*/*.png"))
    assert all((folder / path).read_bytes() == (tmp_path / "again" / path).read_bytes() for path in files)
    assert files != sorted(path.relative_to(tmp_path / "other") for path in (tmp_path / "other").glob("*/*.png"))


def test_a_class_varies_in_color_and_size_and_none_is_smaller_than_asked(textures):
    for name in textures.CLASSES:
        drawn = [textures.draw_texture(name, np.random.default_rng(seed), 96) for seed in range(4)]
        assert all(min(image.size) >= 96 and image.mode == "RGB" for image in drawn)
        assert len({image.size for image in drawn}) == 4
        means = np.array([np.asarray(image).mean((0, 1)) for image in drawn])
        assert np.ptp(means, 0).max() > 30
        assert min(np.asarray(image.convert("L")).std() for image in drawn) > 1


def test_a_folder_that_is_there_is_not_written_into(textures, folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["textures.py", str(folder)])
    with pytest.raises(SystemExit):
        textures.main()
    assert "is there already" in capsys.readouterr().err


# Figures ---------------------------------------------------------------------------------------------------------


def test_the_quality_of_a_ranking_and_a_list(tables):
    suspicion = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    wrong = np.array([True, False, True, False, False])
    listed = np.array([True, True, False, False, False])
    found = tables.quality(suspicion, wrong, listed)
    assert found["auc"] == pytest.approx(5 / 6)  # of six pairs only (1, 2) is the wrong way round
    assert found["ap"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert (found["listed"], found["precision"], found["recall"], found["f1"]) == (2, 0.5, 0.5, 0.5)
    assert tables.at_number(suspicion, wrong, 3) == pytest.approx({"precision_at_ours": 2 / 3, "recall_at_ours": 1})


def test_what_is_not_judged_is_not_found(tables):
    found = tables.quality(np.array([2.0, 1.0, -np.inf]), np.array([True, False, True]), np.array([True, False, False]))
    assert (found["recall"], found["auc"]) == (0.5, 0.5)


def test_without_a_list_or_wrong_labels_there_are_no_figures(tables):
    none = np.zeros(3, bool)
    assert tables.quality(np.arange(3.0), none, none)["auc"] is None
    assert tables.quality(np.arange(3.0), np.array([True, False, False]), none)["precision"] is None
    assert tables.at_number(np.arange(3.0), none, 2) == {"precision_at_ours": None, "recall_at_ours": None}


def test_the_calibration_error_is_weighed_by_bins(tables):
    p_wrong = np.array([0.05, 0.05, 0.95, 1.0])
    wrong = np.array([False, True, True, True])
    assert tables.calibration_error(p_wrong, wrong) == pytest.approx(0.5 * (0.5 - 0.05) + 0.5 * (1 - 0.975))


# Tables ----------------------------------------------------------------------------------------------------------


def case(**changes):
    row = {"title": "sets", "name": "p0", "n": 3000, "real": 0.08, "auc": 0.97, "ap": 0.8, "listed": 200, "precision": 0.75,
           "recall": 0.7, "f1": 0.72, "ece": 0.01, "accuracy": 0.7, "noise": 0.08, "noise_low": 0.07, "noise_high": 0.09,
           "ingest_seconds": 10.2, "run_seconds": 60.0, "memory_gb": 1.25}  # fmt: skip
    return {**row, **changes}


def test_the_sets_of_a_title_are_averaged_unless_each_is_wanted(tables):
    cases = [case(), case(name="p1", auc=0.95, listed=220), case(title="one more", noise=None, precision=None)]
    head, rule, mean, other = tables.tables(cases).splitlines()
    assert head.count("|") == rule.count("|") == mean.count("|") == other.count("|") == 1 + len(tables.OWN)
    assert mean.startswith("| sets (mean of 2) | 3,000 | 8.0 % | 0.960 | 0.800 | 210 | 0.75 |")
    assert "| 8.0 % (7.0 to 9.0) | 70.0 % | 10 + 60 | 1." in mean
    assert other.startswith("| one more |") and "| cannot tell |" in other and "| 200 | - |" in other
    assert [line.split(" | ")[0] for line in tables.tables(cases, each=True).splitlines()[2:]] == [
        "| sets, p0", "| sets, p1", "| one more, p0"
    ]  # fmt: skip


def test_a_mean_over_what_one_set_lacks_is_not_made_up(tables):
    (row,) = tables.tables([case(precision=0.7), case(precision=None)]).splitlines()[2:]
    assert "| 200 | - | 0.70 |" in row


def test_the_peers_have_a_table_of_their_own(tables, tmp_path, monkeypatch, capsys):
    one = {"what": "Winnow", "auc": 0.9, "ap": 0.5, "listed": 3, "precision": 1.0, "recall": 0.25, "f1": 0.4,
           "precision_at_ours": 1.0, "recall_at_ours": 0.25}  # fmt: skip
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"cases": [case(peers=[one, {**one, "what": "other"}]), case(peers=[one])]}))
    monkeypatch.setattr(sys, "argv", ["detection_tables.py", str(file), str(file)])
    tables.main()
    own, peers = capsys.readouterr().out.split("\n\n")
    assert "(mean of 4)" in own
    assert [line.split(" | ")[:2] for line in peers.splitlines()[2:]] == [
        ["| sets (mean of 4)", "Winnow"], ["| sets (mean of 2)", "other"]
    ]  # fmt: skip


# Peers -----------------------------------------------------------------------------------------------------------


def test_selfclean_scores_by_hand(peers):
    """On a circle at 0, 60, 90 and 180 degrees: the distances are (1 - cos) / 2 of the angles between."""
    angles = np.deg2rad([0.0, 60.0, 90.0, 180.0])
    inputs = 3 * np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    found = peers.selfclean_scores(inputs, np.array([0, 0, 1, 1]))
    away = lambda degrees: (1 - np.cos(np.deg2rad(degrees))) / 2  # noqa: E731
    same, other = [away(60), away(60), away(90), away(90)], [away(90), away(30), away(30), away(120)]
    assert found == pytest.approx([o**2 / (s**2 + o**2) for s, o in zip(same, other, strict=True)], abs=1e-6)


def test_selfclean_scores_over_several_blocks_and_a_sample_alone_in_its_class(peers, monkeypatch):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    labels[7], inputs[11], labels[11] = 3, inputs[12], labels[12]
    away = np.clip((1 - pairwise.cosine_similarity(inputs.astype(np.float64))) / 2, 0, 1)
    expected = []
    for i in range(60):
        same, other = labels == labels[i], labels != labels[i]
        same[i] = False
        nearest = away[i][same].min() if same.any() else away[i].max()
        expected.append(away[i][other].min() ** 2 / (nearest**2 + away[i][other].min() ** 2))
    monkeypatch.setattr(peers, "BLOCK", 16)
    assert peers.selfclean_scores(inputs, labels) == pytest.approx(expected, abs=1e-5)


def test_selfclean_cut_lists_what_lies_below_a_logistic_distribution(peers):
    clean = logistic.ppf((np.arange(4000) + 0.5) / 4000, loc=1, scale=0.5)
    scores = 1 / (1 + np.exp(-np.append(clean, [-6.0, -7.0, -8.0])))
    listed = peers.selfclean_cut(scores)
    assert listed[-3:].all()
    # of the distribution itself, the share below its quantile at .05 x .01; two samples of 4,000, if the fit is right
    assert listed[:-3].sum() == pytest.approx(4000 * peers.CUT_LEVEL * peers.CUT_SHARE, abs=1)


def test_regression_probs_are_held_out(peers):
    """Labels that mean nothing are not predicted, although 40 samples in 60 dimensions can be learned by heart."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 60)).astype(np.float32), np.arange(40) % 2
    inputs[:, 0] = 1  # never varies
    probs = peers.regression_probs(inputs, labels)
    assert probs.sum(1) == pytest.approx(1) and (probs.argmax(1) == labels).mean() < 0.8
    inputs[:, 1:20] += 4 * labels[:, None]
    assert (peers.regression_probs(inputs, labels).argmax(1) == labels).mean() > 0.95


def test_cleanlab_is_run_by_the_python_that_was_given(peers):
    assert peers.cleanlab_python("/a/python") == "/a/python"


# The whole -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(bench, tmp_path_factory):
    options = "--model mlp --features none --epochs 3 --seeds 1 --scores aum,confident_learning --neighbors 0 --embedding none"
    case = bench.Case("digits", ["--from", "digits", "--noise", "symmetric:0.1", "--limit", "300"], None)
    return bench.measure(case, "", options.split(), True, "", tmp_path_factory.mktemp("bench") / "digits")


def test_a_run_is_measured_with_its_test_part(measured):
    assert measured["n"] == measured["judged"] > 300
    assert measured["wrong"] == 30 and measured["real"] == 30 / measured["n"]
    assert 0.5 < measured["auc"] <= 1 and 0 <= measured["ece"] <= 1
    assert measured["ingest_seconds"] > 0 and measured["run_seconds"] > 0 and 0.05 < measured["memory_gb"] < 50


def test_the_peers_are_given_the_predictions_of_the_run(measured):
    assert [row["what"] for row in measured["peers"]] == ["Winnow", "SelfClean's distances, its automatic cut"]
    assert measured["peers"][0]["ap"] == measured["ap"] and measured["cleanlab"] == ""
    assert measured["reproduced"]


def test_a_folder_is_held_against_the_file_beside_it(bench, folder, tmp_path):
    bench.winnow(["ingest", "mine", "--from", str(folder), "--workspace", str(tmp_path / "w")], tmp_path / "log")
    at = bench.Workspace.open(tmp_path / "w")
    assert bench.find_wrong(at, Path(f"{folder}.csv")).sum() == 10
    lines = Path(f"{folder}.csv").read_text().splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join([*lines, "a/b.png,a,a"]))
    with pytest.raises(SystemExit, match="has 51 files and the dataset 50"):
        bench.find_wrong(at, tmp_path / "fewer.csv")


def test_a_command_that_fails_ends_the_benchmark_with_its_words(bench, tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)winnow ingest mine .* failed.*none"):
        bench.winnow(["ingest", "mine", "--from", "none", "--workspace", str(tmp_path / "w")], tmp_path / "log")
