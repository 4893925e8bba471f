"""Every page in Streamlit's own test harness: with a real workspace, an empty one, and links that make no sense."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from engine.queries import connected
from engine.workspace import Workspace, append_journal

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
PAGES = ("overview", "gallery", "trajectories", "scores", "compare", "embedding", "psi", "export")
Open = Callable[..., AppTest]


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Open:
    """open_page(root, page, **query): the page as a person would see it at that address."""

    def opened(root: Path, page: str, /, **query: str) -> AppTest:
        monkeypatch.setenv("WINNOW_WORKSPACE", str(root))
        app = AppTest.from_file(str(APP), default_timeout=60).run()
        app.switch_page(f"app_pages/{page}.py")
        for name, value in query.items():
            app.query_params[name] = value
        return app.run()

    return opened


def text(app: AppTest) -> str:
    """Everything a page says."""
    parts = [
        e.value
        for kind in ("title", "header", "markdown", "caption", "code", "error", "warning", "info")
        for e in app.get(kind)
    ]
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


@pytest.mark.parametrize("page", ["gallery", "embedding", "export", "trajectories", "compare", "scores", "psi"])
def test_nonsense_in_a_link_counts_as_not_chosen(open_page: Open, demo_workspace: Path, page: str) -> None:
    app = open_page(
        demo_workspace, page, dataset="digits-noisy", sort="no", label="99,x", other="-1", rule="none", truth="?", agrees="!",
        low="900", high="-3", region="1,2 3", page="x", n="7", size="XXL", seed="77", samples="a,b", psi="zz", compare="what",
    )  # fmt: skip
    assert not app.exception
    assert not app.error


def test_the_overview_tells_the_set_and_its_noise(open_page: Open, demo_workspace: Path) -> None:
    said = text(open_page(demo_workspace, "overview", dataset="digits-noisy"))
    n = counts(demo_workspace, "SELECT count(*) FROM samples WHERE split = 'train'")
    flagged = counts(demo_workspace, "SELECT count(*) FROM flags WHERE flagged AND rule = 'aum_threshold'")
    assert f"Training samples {n:,}" in said
    assert "Mislabelled 20.0 %" in said
    assert "Input 1 × 8 × 8" in said
    assert "derived from **digits**, label noise **symmetric:0.2**" in said
    assert f"{flagged:,} of {n:,} flagged by aum_threshold" in said
    assert "precision" in said and "recall" in said


def test_the_clean_set_claims_no_detection(open_page: Open, demo_workspace: Path) -> None:
    said = text(open_page(demo_workspace, "overview", dataset="digits"))
    assert "Mislabelled" in said
    assert "What finds the mislabelled" not in said
    assert "Label noise" not in said


def test_the_gallery_counts_what_passes_the_filters_of_its_address(open_page: Open, demo_workspace: Path) -> None:
    total = counts(demo_workspace, "SELECT count(*) FROM samples WHERE split = 'train'")
    n = counts(demo_workspace, "SELECT count(*) FROM samples WHERE split = 'train' AND label = 3 AND true_label <> 3")
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", label="3", truth="wrong")
    assert f"**{n:,}** of {total:,}" in text(app)
    assert [b.label for b in app.button if str(b.key).startswith("chip_")] == ["given 3", "mislabelled", "clear all"]


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
    app.switch_page("app_pages/export.py").run()
    assert app.query_params["label"] == "3"
    kept = next(line for line in said.splitlines() if line.startswith("**") and " of " in line).split("**")[1]
    assert f"### {kept} of" in text(app)


def test_the_detail_says_why_a_sample_is_flagged(open_page: Open, demo_workspace: Path) -> None:
    worst = counts(demo_workspace, "SELECT sample_id FROM scores WHERE score = 'aum' ORDER BY rank DESC LIMIT 1")
    said = text(open_page(demo_workspace, "gallery", dataset="digits-noisy", sample=str(worst)))
    assert f"Sample {worst}" in said
    assert "the networks preferred" in said and "over the given" in said
    assert "is below the threshold" in said and "**flagged**" in said
    assert "Nearest in the network's eyes" in said


@pytest.mark.parametrize("sample", ["999999", "1500"])  # none such; one of the test split
def test_a_sample_that_cannot_be_shown_is_said(open_page: Open, demo_workspace: Path, sample: str) -> None:
    app = open_page(demo_workspace, "gallery", dataset="digits-noisy", sample=sample)
    assert f"no training sample {sample}" in app.warning[0].value
    assert not app.exception


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


def test_comparisons_open_one_by_one(open_page: Open, demo_workspace: Path) -> None:
    assert "Spearman" in text(open_page(demo_workspace, "compare", dataset="digits-noisy", x="aum", y="el2n"))
    said = text(open_page(demo_workspace, "compare", dataset="digits-noisy", compare="noise"))
    assert "the mislabelled moved from rank" in said
    assert "Spearman correlation" in text(open_page(demo_workspace, "compare", dataset="digits-noisy", compare="all"))


def test_a_set_that_was_not_derived_says_how_to_derive_one(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "compare", dataset="digits", compare="noise")
    assert app.code[0].value == "winnow ingest digits-noisy --from dataset:digits --noise symmetric:0.2"


def test_an_outline_in_the_address_filters_the_map_and_the_export(open_page: Open, demo_workspace: Path) -> None:
    query = {"dataset": "digits-noisy", "region": "-1000,-1000 1000,-1000 1000,1000"}  # half of the plane: x >= y
    n = counts(demo_workspace, "SELECT count(*) FROM embedding WHERE x > y")
    assert f"**{n:,}** of" in text(open_page(demo_workspace, "embedding", **query))
    assert f"### {n:,} of" in text(open_page(demo_workspace, "export", **query))


def test_psi_tells_how_much_can_be_pruned(open_page: Open, demo_workspace: Path) -> None:
    app = open_page(demo_workspace, "psi", dataset="digits-noisy")
    assert "With every sample" in text(app) and "oracle" in text(app)
    assert len(app.get("plotly_chart")) == 1
    app.multiselect(key="pick_psi").set_value([]).run()
    assert not app.exception


def test_dropping_keeps_the_rest_and_the_command_says_the_same(open_page: Open, demo_workspace: Path) -> None:
    total = counts(demo_workspace, "SELECT count(*) FROM samples WHERE split = 'train'")
    flagged = counts(demo_workspace, "SELECT count(*) FROM flags WHERE flagged AND rule = 'aum_threshold'")
    app = open_page(demo_workspace, "export", dataset="digits-noisy", rule="aum_threshold", mode="drop")
    assert f"{total - flagged:,} of {total:,} kept" in text(app)
    command = app.code[0].value
    assert command.startswith('winnow export digits-noisy --where "NOT (')
    where = command.split('"')[1]
    assert counts(demo_workspace, f"SELECT count(*) FROM samples WHERE split = 'train' AND {where}") == total - flagged


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
