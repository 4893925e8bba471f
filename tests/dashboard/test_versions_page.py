"""The page of versions: one is saved, shown with what it changed, compared with another, and removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from engine.queries.versions import create_version, fetch_version_set
from engine.store.decisions import decide
from engine.store.versions import remove_version, stored_versions
from engine.store.workspace import Workspace

Open = Callable[..., AppTest]
DATASET = "digits-noisy"


@pytest.fixture(scope="module")
def root(judged_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(judged_workspace, tmp_path_factory.mktemp("page") / "workspace"))


def numbers(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def test_a_version_is_saved_with_the_numbers_that_were_shown_before(open_page: Open, root: Path) -> None:
    workspace = Workspace.open(root)
    decide(workspace, DATASET, [3], "drop")
    app = open_page(root, "versions", dataset=DATASET, label="7")
    app.checkbox(key="v_filter").check().run()
    app.checkbox(key="v_relabel").check().run()
    before = numbers(app)
    assert not app.exception and not app.error and not stored_versions(workspace, DATASET)
    app.text_input(key="v_name").set_value("mine").run()
    app.text_input(key="v_note").set_value("without sevens")
    app.button(key="v_save").click().run()
    assert not app.exception and not app.error
    (made,) = stored_versions(workspace, DATASET)
    assert (made.name, made.note) == ("mine", "without sevens")
    assert made.recipe.drop == ("label IN (7)",) and made.recipe.drop_shortlist and made.recipe.relabel_above == 0.9
    ids, labels = fetch_version_set(workspace, DATASET, "mine")
    assert 3 not in ids and made.facts["dropped_by_condition"][0] > 100 and len(labels) == len(ids)
    assert before == numbers(app) and before["Stay"] == f"{len(ids):,}"
    assert any("byte for byte" in found.value for found in app.success)
    app.button(key="v_save").click().run()  # the next one has a name of its own
    assert [version.name for version in stored_versions(workspace, DATASET)] == ["mine", "v1"]


def test_a_wrong_condition_or_a_name_that_is_taken_is_a_message(open_page: Open, root: Path) -> None:
    workspace = Workspace.open(root)
    if "mine" not in [version.name for version in stored_versions(workspace, DATASET)]:
        create_version(workspace, DATASET, "mine")
    app = open_page(root, "versions", dataset=DATASET)
    app.text_input(key="v_name").set_value("mine").run()
    app.button(key="v_save").click().run()
    assert not app.exception and "has a version 'mine' already" in app.error[0].value
    app.text_input(key="v_where").set_value("nothing > 1").run()
    assert not app.exception and "nothing" in app.error[0].value


def test_two_versions_are_compared_and_one_is_removed(open_page: Open, root: Path) -> None:
    workspace = Workspace.open(root)
    for version in stored_versions(workspace, DATASET):
        remove_version(workspace, DATASET, version.name)
    create_version(workspace, DATASET, "a", drop=["label = 1"])
    b = create_version(workspace, DATASET, "b", drop=["label = 2"], relabel_above=0.5)
    app = open_page(root, "versions", dataset=DATASET, version="b", against="a")
    (part,) = [group for group in app.get("button_group") if group.key == "pick_part"]
    n = b.facts
    assert not app.exception and not app.error
    assert [option.content.split(" · ")[0] for option in part.proto.options] == [
        "only in a",
        "under another label",
        "only in b",
    ]
    assert f"{n['kept']:,}" == numbers(app)["Stay"]
    app = open_page(root, "versions", dataset=DATASET, version="nothing", against="b", part="what")
    assert not app.exception and "There is no version 'nothing'" in app.warning[0].value
    app = open_page(root, "versions", dataset=DATASET, version="b")
    app.button(key="v_remove").click().run()
    assert not app.exception and [v.name for v in stored_versions(workspace, DATASET)] == ["a"]
    assert "version" not in app.query_params
