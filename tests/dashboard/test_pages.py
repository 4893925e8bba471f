"""Every page in Streamlit's own test harness: with a real workspace, an empty one, and links that make no sense."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import streamlit as st
import typer
from given_verdicts import JUDGED, QUICK, TOO_WEAK, give_verdict, list_again, scored_run
from streamlit.testing.v1 import AppTest

from dashboard import chapters
from dashboard.figures.declare import all_figures
from dashboard.navigation import all_pages
from engine.cli.commands import app as command_line
from engine.fields import options_of
from engine.queries.connection import connected, fetch_fingerprint
from engine.queries.samples import fetch_cards
from engine.queries.writers import WRITERS, export
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import PsiSpec
from engine.store.decisions import decide
from engine.store.jobs import fetch_jobs
from engine.store.journal import append_journal
from engine.store.usage import measure, size
from engine.store.workspace import Workspace

PAGES = [page.address for page in all_pages() if page.pickers]
Open = Callable[..., AppTest]
COMMANDS = typer.main.get_command(command_line).commands  # type: ignore[attr-defined]


def text(app: AppTest) -> str:
    """Everything a page says."""
    parts = [
        e.value
        for kind in ("title", "header", "markdown", "caption", "code", "error", "warning", "info")
        for e in app.get(kind)
    ]
    parts += [unescape(re.sub(r"<[^>]*>", " ", e.proto.body)) for e in app.get("html")]
    return "\n".join([*map(str, parts), *(f"{m.label} {m.value}" for m in app.metric)])


def counts(root: Path, sql: str) -> int:
    with connected(Workspace.open(root), "digits-noisy") as connection:
        row = connection.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_a_real_workspace(open_page: Open, demo_workspace: Path, page: str) -> None:
    app = open_page(demo_workspace, page, dataset="digits-noisy")
    assert not app.exception
    assert not app.error
    assert app.query_params["run"]  # the address names what is shown


@pytest.mark.parametrize("page", PAGES)
def test_every_page_draws_the_workspace_of_an_older_version(open_page: Open, old_workspace: Path, page: str) -> None:
    for dataset in ("digits", "noisy"):
        app = open_page(old_workspace, page, dataset=dataset)
        assert not app.exception
        assert not app.error
        assert app.query_params["dataset"] == dataset


@pytest.fixture
def broken_workspace(demo_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the demo with three runs that cannot be read: no spec, a spec of a newer version, damaged results."""
    root = tmp_path / "broken"
    shutil.copytree(demo_workspace, root)
    workspace = Workspace.open(root)
    psi, whole = (
        next(j for j in fetch_jobs(workspace, "digits-noisy") if (j.kind == "psi") == wanted)
        for wanted in (True, False)
    )
    (workspace.published_dir(psi.run_id) / "results.duckdb").write_bytes(b"not a database")
    for run_id, text in (("feedfeedfeed", "{"), ("beefbeefbeef", '{"spec": {"format": 99}}')):
        shutil.copytree(workspace.run_dir(whole.run_id), workspace.run_dir(run_id))
        (workspace.run_dir(run_id) / "spec.json").write_text(text)
    return root


@pytest.mark.parametrize("page", PAGES)
def test_runs_that_cannot_be_read_break_no_page(open_page: Open, broken_workspace: Path, page: str) -> None:
    app = open_page(broken_workspace, page, dataset="digits-noisy")
    assert not app.exception
    assert not app.error
    assert app.query_params["run"]


def test_the_overview_lists_the_runs_that_cannot_be_read(open_page: Open, broken_workspace: Path) -> None:
    app = open_page(broken_workspace, "overview", dataset="digits-noisy")
    workspace = Workspace.open(broken_workspace)
    (psi,) = (run_id for run_id in workspace.published_runs() if workspace.read_record(run_id).kind == "psi")
    shown = {warning.value.split("`")[1]: warning.value for warning in app.warning}
    assert set(shown) == {"feedfeedfeed", "beefbeefbeef", psi}
    assert all("cannot be read" in words and "winnow remove" in words for words in shown.values())
    assert "results.duckdb" in shown[psi]


@pytest.mark.parametrize("page", PAGES)
def test_without_a_workspace_every_page_says_which_command_makes_one(
    open_page: Open, tmp_path: Path, page: str
) -> None:
    app = open_page(tmp_path / "nothing", page)
    assert not app.exception
    assert [c.value for c in app.code] == [f"winnow demo --workspace {tmp_path / 'nothing'}"]


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_workspace_says_the_same(open_page: Open, tmp_path: Path, page: str) -> None:
    Workspace.open(tmp_path / "empty", create=True)
    app = open_page(tmp_path / "empty", page)
    assert not app.exception
    assert "winnow demo" in app.code[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_dataset_without_a_run_says_which_command_makes_one(
    open_page: Open, small_workspace: Workspace, page: str
) -> None:
    app = open_page(small_workspace.root, page)
    assert not app.exception
    command = "winnow psi small" if page == "psi" else "winnow run small"
    assert any(c.value.startswith(command) for c in app.code)


@pytest.mark.parametrize("page", PAGES)
def test_a_workspace_of_a_newer_version_is_one_clear_line(open_page: Open, tmp_path: Path, page: str) -> None:
    (tmp_path / "winnow.json").write_text('{"format": 99}')
    app = open_page(tmp_path, page)
    assert not app.exception
    assert "upgrade winnow" in app.error[0].value


def test_an_unknown_dataset_in_a_link_is_said_with_the_nearest_name(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "gallery", dataset="digits-nosy")
    assert app.error[0].value.startswith("unknown dataset 'digits-nosy'; did you mean 'digits-noisy'?")
    assert not app.exception
    (link,) = app.get("page_link")  # without it every page would say the same
    assert link.proto.label == "Open digits-noisy" and "dataset=digits-noisy" in link.proto.query_string


@pytest.mark.parametrize(
    "page", ["gallery", "embedding", "export", "trajectories", "compare", "scores", "psi", "figures"]
)
def test_nonsense_in_a_link_counts_as_not_chosen(open_page: Open, demo_workspace: Path, page: str) -> None:
    app = open_page(
        demo_workspace, page, dataset="digits-noisy", sort="no", label="99,x", other="-1", rule="none", truth="?", agrees="!",
        low="900", high="-3", region="1,2 3", page="x", n="7", size="XXL", seed="77", samples="a,b", psi="zz", compare="what",
        figure="?",
    )  # fmt: skip
    assert not app.exception
    assert not app.error


def test_the_overview_tells_the_set_and_its_noise(open_page: Open, demo_workspace: Path) -> None:
    said = text(open_page(demo_workspace, "overview", dataset="digits-noisy"))
    n = counts(demo_workspace, "SELECT count(*) FROM samples WHERE split = 'train'")
    flagged = counts(demo_workspace, "SELECT count(*) FROM flags WHERE flagged AND rule = 'aum_threshold'")
    assert f"Training samples {n:,}" in said
    assert "Mislabeled 20.0 %" in said
    assert "Input 1 × 8 × 8" in said
    assert "derived from **digits**, label noise **symmetric:0.2**" in said
    assert re.search(rf"aum_threshold\s+flags {flagged:,} of {n:,}", said)
    assert "precision" in said and "recall" in said


def test_the_overview_shows_what_the_runs_and_the_workspace_take(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "overview", dataset="digits-noisy")
    used = measure(Workspace.open(demo_workspace))
    assert f"The workspace takes {size(used.total)}. winnow clean --dry-run" in text(app)
    html = next(e.proto.body for e in app.get("html") if "Published (UTC)" in e.proto.body)
    lines = [re.findall(r"<td>(.*?)</td>", line) for line in re.findall(r"<tr>(.*?)</tr>", html)[1:]]
    heads = re.findall(r"<th[^>]*>(.*?)</th>", html)
    listed = {line[heads.index("Id")]: line[heads.index("Size")] for line in lines}
    runs = counts(demo_workspace, "SELECT count(*) FROM runs")
    assert len(listed) == runs == 2 and listed == {run_id: size(used.runs[run_id]) for run_id in listed}


def test_the_clean_set_claims_no_detection(open_page: Open, demo_workspace: Path) -> None:
    said = text(open_page(demo_workspace, "overview", dataset="digits"))
    assert "Mislabeled" in said
    assert "How well each score finds the mislabeled" not in said
    assert "Label noise" not in said


def test_the_gallery_counts_what_passes_the_filters_of_its_address(open_page: Open, demo_workspace: Path) -> None:
    total = counts(demo_workspace, "SELECT count(*) FROM samples WHERE split = 'train'")
    n = counts(demo_workspace, "SELECT count(*) FROM samples WHERE split = 'train' AND label = 3 AND true_label <> 3")
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", label="3", truth="wrong", split="train")
    assert f"**{n:,}** of {total:,}" in text(app)
    assert [b.label for b in app.button if str(b.key).startswith("chip_")] == ["given 3", "mislabeled", "clear all"]


def test_a_chip_takes_its_filter_out_of_the_address(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", label="3", truth="wrong")
    app.button(key="chip_0").click().run()
    assert "label" not in app.query_params
    assert app.query_params["truth"] == "wrong"
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", label="3", truth="wrong")
    app.button(key="chip_all").click().run()
    assert "truth" not in app.query_params


def test_pickers_write_the_address_and_forget_the_page_of_the_list(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", page="2")
    app.selectbox(key="pick_sort").select("el2n").run()
    assert app.query_params["sort"] == "el2n"
    assert "page" not in app.query_params
    assert not app.exception


def test_changing_the_dataset_changes_the_run_and_forgets_the_sample(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", sample="3")
    before = app.query_params["run"]
    app.selectbox(key="pick_dataset").select("digits").run()
    assert app.query_params["dataset"] == "digits"
    assert app.query_params["run"] != before
    assert "sample" not in app.query_params
    assert not app.exception


def test_what_was_chosen_follows_to_another_page(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", label="3", rule="aum_threshold")
    said = text(app)
    app.query_params.clear()  # as the browser does on the way to another page
    app.switch_page("app_pages/export_page.py").run()
    assert app.query_params["label"] == "3"
    kept = next(line for line in said.splitlines() if line.startswith("**") and " of " in line).split("**")[1]
    assert f"### {kept} of" in text(app)


def test_the_detail_says_why_a_sample_is_flagged(open_page: Open, demo_workspace: Path) -> None:
    worst = counts(demo_workspace, "SELECT sample_id FROM scores WHERE score = 'aum' ORDER BY rank DESC LIMIT 1")
    said = text(open_page(demo_workspace, "gallery", dataset="digits-noisy", sample=str(worst)))
    assert f"Sample {worst}" in said
    assert "Networks that did not see it prefer **" in said and "over the given **" in said
    assert "rules flag it and" in said and "of its 15 nearest neighbors" in said
    assert "Nearest neighbors (cosine of the features)" in said


def test_a_sample_that_is_not_there_is_said(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", sample="999999")
    assert "There is no sample 999999" in app.warning[0].value
    assert not app.exception


def test_a_sample_of_the_test_part_is_shown_without_learning_curves(open_page: Open, judged_workspace: Path) -> None:
    rank = counts(judged_workspace, "SELECT rank FROM shortlist WHERE sample_id = 1500")
    app = open_page(judged_workspace, "gallery", dataset="digits-noisy", sample="1500")
    said = text(app)
    assert "#### Sample 1500" in said and "no network was trained on it" in said
    assert f"number {rank + 1:,} of 1,797, on the shortlist" in said and "rules" not in said
    assert not app.exception and not app.warning and not app.get("plotly_chart")


def test_the_gallery_opens_on_the_shortlist_and_leaves_it_when_told(open_page: Open, judged_workspace: Path) -> None:
    app = open_page(judged_workspace, "gallery", dataset="digits-noisy")
    assert "**350** of 1,797" in text(app) and app.query_params["list"] == "short"
    app.button(key="chip_0").click().run()
    assert "**1,797** of 1,797" in text(app) and app.query_params["list"] == "all"
    app.segmented_control(key="pick_split").set_value("test").run()
    assert "**359** of 359" in text(app)
    # A link with a condition of its own means that one alone.
    app = open_page(judged_workspace, "gallery", dataset="digits-noisy", least="50", split="train")
    n = counts(judged_workspace, "SELECT count(*) FROM shortlist WHERE p_wrong >= 0.5 AND sample_id < 1438")
    assert f"**{n:,}** of 1,438" in text(app) and "list" not in app.query_params
    assert [b.label for b in app.button if str(b.key).startswith("chip_")] == ["wrong with 50 to 100 %"]


def test_the_overview_says_what_to_believe(open_page: Open, judged_workspace: Path) -> None:
    app = open_page(judged_workspace, "overview", dataset="digits-noisy")
    said = text(app)
    assert "### 87.5 %" in said and "A guess would agree with 12.5 %" in said
    assert "### 20 %" in said and "95 % interval 18 to 22 %; about 359 of 1,797 samples" in said
    assert "### 350" in said and "350 on the shortlist" in said
    assert "The networks agree with 87.5 % of the labels. Look at the shortlist." in said.replace("\\", "")
    assert "estimates disagree" not in said


def copy_with(workspace: Path, to: Path, listed: int, verdict: dict[str, object]) -> Path:
    """A copy of a workspace whose scored run of digits-noisy has another verdict, on the training samples alone."""
    shutil.copytree(workspace, to)
    give_verdict(to, scored_run(to, "digits-noisy"), range(1438), listed, verdict)
    return to


def test_the_overview_says_so_when_the_two_estimates_disagree(
    open_page: Open, judged_workspace: Path, tmp_path: Path
) -> None:
    root = copy_with(judged_workspace, tmp_path / "copy", 300, {**JUDGED, "noise_joint": 0.35})
    said = text(open_page(root, "overview", dataset="digits-noisy"))
    assert "35 % of the labels are wrong by the held-out predictions, 19 % by how the suspicion is distributed" in said


def test_networks_that_cannot_tell_flag_nothing_and_say_what_to_do(
    open_page: Open, judged_workspace: Path, tmp_path: Path
) -> None:
    root = copy_with(judged_workspace, tmp_path / "copy", 0, TOO_WEAK)
    said = text(open_page(root, "overview", dataset="digits-noisy"))
    assert "cannot tell which labels are wrong" in said and "Train longer, or on features." in said
    assert "Wrong labels, estimated" not in said and "Hardest to learn" in said
    app = open_page(root, "gallery", dataset="digits-noisy")
    assert "**1,438** of 1,438" in text(app) and "list" not in app.query_params
    assert "probability of a wrong label" not in app.selectbox(key="pick_sort").options
    with connected(Workspace.open(root), "digits-noisy") as connection:
        cards = fetch_cards(connection, scored_run(root, "digits-noisy"), [5, 6])
    assert (
        cards["p_wrong"].isna().all() and not cards["flagged"].any()
    )  # nothing on an image that looks like a judgment
    app = open_page(root, "gallery", dataset="digits-noisy", sample="5")
    assert "cannot tell whether its label is wrong" in text(app)


def test_a_run_without_a_verdict_says_which_command_makes_one(open_page: Open, old_workspace: Path) -> None:
    app = open_page(old_workspace, "overview", dataset="noisy")
    assert not any("best" in option for option in app.selectbox(key="pick_run").options)
    assert "This run has no verdict" in app.info[0].value and "winnow run noisy" in app.info[0].value
    app = open_page(old_workspace, "gallery", dataset="noisy", list="short", split="test", least="50")
    assert "**150** of 150" in text(app)


def test_the_best_run_opens_and_is_marked(open_page: Open, judged_workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(judged_workspace, root)
    best = scored_run(root, "digits-noisy")
    newer = compute(Workspace.open(root), plan_run(Workspace.open(root), "digits-noisy", ["el2n@2"], QUICK), "cpu")[0]
    give_verdict(root, newer, range(1438), 10, {**JUDGED, "accuracy": 0.5})
    app = open_page(root, "overview", dataset="digits-noisy")
    assert app.query_params["run"] == best
    assert [option.endswith(" · best") for option in app.selectbox(key="pick_run").options] == [False, True]


def test_trajectories_show_the_samples_of_the_address(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "trajectories", dataset="digits-noisy", samples="5,6,999999")
    assert "Not shown: 999999" in app.warning[0].value
    assert len(app.get("plotly_chart")) == 2
    app.segmented_control(key="pick_seed").set_value("1").run()
    assert app.query_params["seed"] == "1"
    assert any("full logits of this seed were not kept" in c.value for c in app.caption)


def test_typed_sample_ids_become_the_address(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "trajectories", dataset="digits-noisy")
    app.text_input(key="pick_samples").input("7 8, nine").run()
    assert app.query_params["samples"] == "7,8"


def test_scores_tell_roc_auc_and_meaning(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "scores", dataset="digits-noisy", sort="aum")
    shown = {m.label: float(m.value) for m in app.metric}
    assert 0.9 < shown["ROC AUC"] <= 1
    names = counts(demo_workspace, "SELECT count(DISTINCT score) FROM scores")
    assert len(app.dataframe[0].value) == names


def test_scores_tell_the_version_of_their_formula(open_page: Open, demo_workspace: Path, tmp_path: Path) -> None:
    app = open_page(demo_workspace, "scores", dataset="digits-noisy", sort="aum")
    versions = app.dataframe[0].value.set_index("score")["version"]
    assert versions["aum"] == 1 and versions["gmm"] == 2 and "formula version" not in text(app)
    root = tmp_path / "copy"
    shutil.copytree(demo_workspace, root)
    folder = Workspace.open(root).published_dir(str(app.query_params["run"]))
    with duckdb.connect(str(folder / "results.duckdb")) as results:
        results.execute("UPDATE score_catalog SET version = 2 WHERE score = 'aum'")
    list_again(folder)
    app = open_page(root, "scores", dataset="digits-noisy", sort="aum")
    assert "formula version 2" in text(app)
    changed = app.dataframe[0].value.set_index("score")["version"]
    assert changed["aum"] == 2 and changed.drop("aum").equals(versions.drop("aum"))


def test_comparisons_open_one_by_one(open_page: Open, demo_workspace: Path) -> None:
    assert "Spearman" in text(open_page(demo_workspace, "compare", dataset="digits-noisy", x="aum", y="el2n"))
    said = text(open_page(demo_workspace, "compare", dataset="digits-noisy", compare="noise"))
    assert "the mislabeled moved from rank" in said
    assert "Spearman correlation" in text(open_page(demo_workspace, "compare", dataset="digits-noisy", compare="all"))


def test_a_set_that_was_not_derived_says_how_to_derive_one(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "compare", dataset="digits", compare="noise")
    assert app.code[0].value == "winnow ingest digits-noisy --from dataset:digits --noise symmetric:0.2"


def test_an_outline_in_the_address_filters_the_map_and_the_export(open_page: Open, demo_workspace: Path) -> None:
    query = {"dataset": "digits-noisy", "region": "-1000,-1000 1000,-1000 1000,1000"}  # half of the plane: x >= y
    n = counts(demo_workspace, "SELECT count(*) FROM embedding WHERE x > y")
    assert f"**{n:,}** of" in text(open_page(demo_workspace, "embedding", **query))
    assert f"### {n:,} of" in text(open_page(demo_workspace, "export", **query))


def test_metadata_filter_the_samples_and_color_the_map(open_page: Open, demo_workspace: Path) -> None:
    of_training = "FROM metadata JOIN samples USING (sample_id) WHERE split = 'train' AND name = 'brightness_p99'"
    half = counts(demo_workspace, f"SELECT CAST(1e6 * median(number) AS BIGINT) {of_training}") / 1e6
    n = counts(demo_workspace, f"SELECT count(*) {of_training} AND number >= {half}")
    query = {"dataset": "digits-noisy", "about": "brightness_p99", "from": str(half), "split": "train"}
    app = open_page(demo_workspace, "gallery", **query)
    assert f"**{n:,}** of" in text(app)
    assert [b.label for b in app.button if str(b.key).startswith("chip_")] == [f"brightness\\_p99 from {half:g}"]
    assert f"### {n:,} of" in text(open_page(demo_workspace, "export", **query))
    for name in ("brightness_p99", "resolution"):  # by a range of numbers, and by the one value that there is
        assert not open_page(demo_workspace, "embedding", **query, color=f"about:{name}").exception
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", about="no such", value="x", **{"from": "nan"})
    assert not app.exception and not [b for b in app.button if str(b.key).startswith("chip_")]


def test_psi_tells_how_much_can_be_pruned(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "psi", dataset="digits-noisy")
    assert "With every sample" in text(app) and "oracle" in text(app)
    assert len(app.get("plotly_chart")) == 1
    app.multiselect(key="pick_psi").set_value([]).run()
    assert not app.exception


def test_psi_lists_every_point_with_what_it_keeps(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "psi", dataset="digits-noisy")
    table = app.dataframe[0].value
    assert len(table) == 4 * 4  # points and orders of the fixture
    full = table[table["share"] == 0]
    assert full["mean"].nunique() == 1 and len(full) == 4
    hardest_first = table[table["curve"] == "aum*"].sort_values("share")
    assert (np.diff(hardest_first["noise"]) <= 0).all() and hardest_first["noise"].iloc[0] == pytest.approx(20, abs=0.1)
    assert table[table["curve"] == "random"]["noise"].isna().all()
    before = text(app)
    app.slider(key="tolerance").set_value(10.0).run()
    assert "more than 10.0 points below" in text(app) and text(app) != before


def test_psi_says_how_many_networks_a_curve_is_and_the_command_that_is_the_same(
    open_page: Open, demo_workspace: Path
) -> None:
    app = open_page(demo_workspace, "psi", dataset="digits-noisy")
    app.multiselect(key="new_orders_digits-noisy").set_value(["random", "aum*"]).run()
    app.number_input(key="new_points").set_value(5).run()
    app.number_input(key="new_seeds").set_value(3).run()
    assert f"**{3 + 4 * 2 * 3} networks**" in text(app)
    command = 'winnow psi digits-noisy --orders "random,aum*" --points 5 --seeds 3'
    assert any(c.value.startswith(command) for c in app.code)


def test_every_declared_option_of_a_curve_is_in_its_form(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "psi", dataset="digits-noisy")
    fields = {widget.key for kind in (app.number_input, app.checkbox, app.selectbox) for widget in kind}
    assert {f"new_{name}" for name in options_of(PsiSpec)} <= fields
    app.checkbox(key="new_class_balanced").check().run()
    app.selectbox(key="new_steps").set_value("fixed").run()
    assert any(c.value.endswith("--steps fixed --class-balanced") for c in app.code)


def data_of(root: Path, dataset: str) -> dict[str, str]:
    """What a spec says of its data."""
    return {"dataset": dataset, "fingerprint": fetch_fingerprint(Workspace.open(root), dataset)}


def test_psi_overlays_curves_of_several_datasets(open_page: Open, demo_workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_workspace, root)
    folder = Workspace.open(root).start_run(
        "feedfeedfeed",
        {"spec": {"kind": "psi", "orders": ["random"], **data_of(root, "digits")}, "title": "psi: random"},
    )
    point = {"order": "", "pruned": 0, "seed": 0, "accuracy": 0.9, "kept_fraction": 1.0, "seconds": 1.0}
    append_journal(folder, "psi_points", points=[point])
    other = next(
        r for r in Workspace.open(root).published_runs() if Workspace.open(root).read_spec(r)["spec"]["kind"] == "psi"
    )
    app = open_page(root, "psi", dataset="digits", psi=f"feedfeedfeed,{other}")
    assert not app.exception
    assert "digits: with every sample 90.0 %" in text(app) and "digits-noisy: with every sample" in text(app)
    assert "random · digits " in text(app) and "aum\\* · digits-noisy " in text(app)
    assert any(b.key == "resume_feedfeedfeed" for b in app.button)  # it was interrupted


def test_a_window_experiment_is_drawn_by_its_offsets(open_page: Open, demo_workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_workspace, root)
    folder = Workspace.open(root).start_run(
        "feedfeedfeed", {"spec": {"kind": "psi", "orders": ["aum"], "window": True, **data_of(root, "digits-noisy")}}
    )
    for offset in (0, 0.25, 0.5):
        point = {"order": f"window(aum,offset={offset:g})", "pruned": 719, "seed": 0, "accuracy": 0.9, "seconds": 1.0}
        append_journal(folder, "psi_points", points=[{**point, "kept_fraction": 0.5}])
    app = open_page(root, "psi", dataset="digits-noisy", psi="feedfeedfeed")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1 and not app.dataframe


def test_moving_the_epoch_of_a_score_tells_its_quality_there(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "psi", dataset="digits-noisy")
    app.toggle(key="epoch_open").set_value(True).run()
    assert len(app.get("plotly_chart")) == 2
    slider = next(s for s in app.slider if str(s.key).startswith("epoch_"))
    slider.set_value(2).run()
    assert "**el2n@2** · ROC AUC 0." in text(app) and "Spearman 0." in text(app)
    assert any(b.label == "Compute el2n@2" and not b.disabled for b in app.button)


DRAWN = {  # what the demo's runs are enough for, on digits-noisy
    "prune-1": False, "prune-2": True, "prune-3": True, "cg-2": False, "cg-3": True, "cg-4": True, "cg-6": True,
    "aum-2": True, "aum-3": True, "aum-5": True, "aum-6": True, "rop-3": True,
    "aum-4": True, "aum-7": False, "cg-8": True, "cg-10": False, "cg-11": False, "cg-14": True, "cg-18": False,
    "lstm-1": True, "lstm-5": True, "lstm-8": True, "rop-1": False,
    "rop-4": False, "rop-5": True, "rop-6": False, "cg-1": False, "cg-5": False,
}  # fmt: skip


@pytest.mark.parametrize("name", all_figures())
def test_a_figure_of_a_paper_is_drawn_or_says_which_command_makes_it(
    open_page: Open, demo_workspace: Path, name: str
) -> None:
    app = open_page(demo_workspace, "figures", dataset="digits-noisy", figure=name)
    assert not app.exception and not app.error
    assert len(app.get("plotly_chart")) == DRAWN[name]
    assert DRAWN[name] or app.code
    for line in (line for code in app.code for line in code.value.splitlines()):
        words = shlex.split(line)
        assert words[0] == "winnow"
        with COMMANDS[words[1]].make_context(words[1], words[2:]) as context:
            assert context.info_name == words[1]


def test_the_figures_of_a_clean_set_send_to_its_noised_one(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "figures", dataset="digits", figure="aum-2")
    assert "choose digits-noisy as the dataset" in text(app) and not app.get("plotly_chart")
    app = open_page(demo_workspace, "figures", dataset="digits", figure="prune-2")
    assert len(app.get("plotly_chart")) == 1  # that of digits-noisy


def test_a_figure_says_what_is_missing_of_it(open_page: Open, demo_workspace: Path) -> None:
    said = text(open_page(demo_workspace, "figures", dataset="digits-noisy", figure="prune-2"))
    assert "The curves of forgetting, forgetting\\*, el2n, el2n\\* on digits-noisy are not there" in said
    assert (
        "winnow psi digits-noisy --orders 'random,oracle,forgetting,forgetting*,el2n,el2n*' --points 20 --seeds 3"
        in said
    )
    said = text(open_page(demo_workspace, "figures", dataset="digits-noisy", figure="cg-4"))
    assert "winnow velocity digits-noisy --score cg --run" in said


def test_dropping_keeps_the_rest_and_the_command_says_the_same(open_page: Open, demo_workspace: Path) -> None:
    total = counts(demo_workspace, "SELECT count(*) FROM samples WHERE split = 'train'")
    flagged = counts(demo_workspace, "SELECT count(*) FROM flags WHERE flagged AND rule = 'aum_threshold'")
    app = open_page(demo_workspace, "export", dataset="digits-noisy", rule="aum_threshold", mode="drop")
    assert f"{total - flagged:,} of {total:,} kept" in text(app)
    command = app.code[0].value
    assert command.startswith('winnow export digits-noisy --where "NOT (')
    where = command.split('"')[1]
    assert counts(demo_workspace, f"SELECT count(*) FROM samples WHERE split = 'train' AND {where}") == total - flagged


def test_every_download_is_the_file_that_the_command_writes(
    open_page: Open, demo_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Callable[[], bytes]] = {}
    download_button = st.download_button

    def listening(label: str, content: Any, name: str, *more: Any, **options: Any) -> bool:
        if (format := str(options.get("key")).removeprefix("download_")) in WRITERS:
            made[format] = content
        return download_button(label, content, name, *more, **options)

    monkeypatch.setattr(st, "download_button", listening)
    app = open_page(demo_workspace, "export", dataset="digits-noisy", rule="aum_threshold", mode="drop")
    command = shlex.split(next(c.value for c in app.code if c.value.startswith("winnow export")))
    where = command[command.index("--where") + 1]
    assert set(made) == {name for name, found in WRITERS.items() if found.write_file}
    for format, content in made.items():
        to = tmp_path / f"kept{WRITERS[format].ending}"
        kept, total = export(Workspace.open(demo_workspace), "digits-noisy", where, to, format)
        assert 0 < kept < total
        assert content() == to.read_bytes()


def test_a_set_is_written_on_the_server_with_the_decisions_applied(
    open_page: Open, demo_workspace: Path, tmp_path: Path
) -> None:
    shutil.copytree(demo_workspace, root := tmp_path / "copy")
    decide(Workspace.open(root), "digits-noisy", [0, 1], "drop")
    decide(Workspace.open(root), "digits-noisy", [2], "relabel", new_label=9)
    app = open_page(root, "export", dataset="digits-noisy", mode="keep", list="all")
    assert "1 under another label than the given one · 2 left out because they were dropped" in text(app)
    assert "--decisions" not in app.code[0].value
    app.selectbox(key="export_format").set_value("imagefolder").run()
    app.button(key="write").click().run()
    deadline = time.monotonic() + 120
    while not app.success and time.monotonic() < deadline:
        assert not app.error, app.error[0].value
        time.sleep(0.5)
        app.run()
    written = root / "exports" / "digits-noisy-imagefolder"
    assert "samples written to" in app.success[0].value
    manifest = json.loads((written / "manifest.json").read_text())
    assert (manifest["relabeled"], manifest["left_out_by_decisions"]) == (1, 2)
    assert f"### {manifest['samples']:,} of" in text(app)
    assert (written / "train" / "9" / "2.png").exists()
    app.segmented_control(key="pick_decisions").set_value("ignore").run()
    assert "left out because" not in text(app) and app.code[0].value.count("--decisions ignore") == 1


def test_the_export_opens_with_the_shortlist_dropped(open_page: Open, judged_workspace: Path, tmp_path: Path) -> None:
    app = open_page(judged_workspace, "export", dataset="digits-noisy")
    assert "### 1,188 of 1,438 kept" in text(app)
    assert app.code[0].value == 'winnow export digits-noisy --where "NOT flagged" --to digits-noisy-kept.csv'
    app.segmented_control(key="pick_split").set_value("all").run()
    assert "### 1,447 of 1,797 kept" in text(app)
    assert app.code[0].value.endswith('--where "NOT flagged" --split all --to digits-noisy-kept.csv')
    kept = export(Workspace.open(judged_workspace), "digits-noisy", "NOT flagged", tmp_path / "k.csv", split="all")
    assert kept == (1447, 1797)


def test_a_run_that_failed_or_stopped_is_told_with_what_to_do(
    open_page: Open, demo_workspace: Path, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(demo_workspace, root)
    folder = Workspace.open(root).start_run(
        "feedfeedfeed",
        {"spec": {"kind": "psi", "dataset": "digits-noisy", "orders": ["a*"]}, "title": "psi: a*", "started_at": 1.0},
    )
    point = {"order": "", "pruned": 0, "seed": 0, "accuracy": 0.9, "kept_fraction": 1.0, "seconds": 1.0}
    append_journal(folder, "psi_points", points=[point])
    append_journal(folder, "failed", message="no space left")
    app = open_page(root, "overview", dataset="digits-noisy")
    (warning,) = app.warning
    assert (
        "failed" in warning.value and "no space left" in warning.value and "winnow resume feedfeedfeed" in warning.value
    )
    app = open_page(root, "psi", dataset="digits-noisy", psi="feedfeedfeed")
    assert not app.exception
    assert "With every sample 90.0 %" in text(app)


def test_the_guide_opens_without_a_workspace_at_the_chapter_of_its_address(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chapters, "FOLDER", tmp_path)
    (tmp_path / "01-start.md").write_text("# Start\n\nGo on with [the scores](02-scores.md).\n")
    (tmp_path / "02-scores.md").write_text("# Scores\n\nWhat each means.\n")
    app = open_page(tmp_path / "nothing", "guide")
    assert not app.exception and not app.code
    assert [m.value for m in app.main.markdown] == [
        '# Start\n\nGo on with <a href="guide?chapter=scores" target="_self">the scores</a>.'
    ]
    assert [m.value for m in app.sidebar.markdown] == [
        '<a href="guide?chapter=start" target="_self">**Start**</a>',
        '<a href="guide?chapter=scores" target="_self">Scores</a>',
    ]
    for name in ("scores", "start"):
        app = open_page(tmp_path / "nothing", "guide", chapter=name)
        assert app.main.markdown[0].value.startswith(f"# {name.title()}")
    app = open_page(tmp_path / "nothing", "guide", chapter="none")
    assert app.main.markdown[0].value.startswith("# Start")
