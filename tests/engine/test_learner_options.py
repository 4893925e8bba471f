"""Settings of a learner beyond presets: what is read, what is refused, and that runs without them keep their ids."""

from __future__ import annotations

import pytest
from test_cli import refused, winnow

from engine.errors import SpecError
from engine.relabel.learner_settings import (
    DIVIDEMIX_ON_FEATURES,
    LEARNER_PRESETS,
    SOP_ON_FEATURES,
    SopSettings,
    read_settings,
    settings_of_learner,
)
from engine.runs.options import plan_relabel_from
from engine.spec import RelabelSpec, TrainingSpec, deciding, run_id, spec_from_json, spec_to_json
from engine.store.workspace import Workspace


def test_what_is_given_is_held_by_name_and_as_its_type() -> None:
    assert read_settings("sop+", ["lr_u = 1", "balance=.5"]) == ("balance=0.5", "lr_u=1.0")
    assert read_settings("dividemix", ["warm_up=3"]) == ("warm_up=3",)
    assert read_settings("cross-entropy", []) == ()


def test_given_settings_count_before_the_preset_and_the_kind_of_inputs() -> None:
    assert settings_of_learner("sop+", "", (), False) == SopSettings()
    on_features = settings_of_learner("sop+", "", ("lr_u=1.0",), True)
    assert (on_features.lr_u, on_features.start) == (1, SOP_ON_FEATURES.start)
    preset = settings_of_learner("dividemix", "dividemix-cifar100", ("warm_up=5",), False)
    assert (preset.warm_up, preset.lambda_u) == (5, LEARNER_PRESETS["dividemix-cifar100"].settings.lambda_u)
    assert settings_of_learner("dividemix", "", (), True) == DIVIDEMIX_ON_FEATURES


@pytest.mark.parametrize(
    ("learner", "given", "said"),
    [
        ("sop+", ["lr_u"], "--set is 'lr_u'; allowed: NAME=VALUE, such as lr_u=1"),
        ("sop+", ["lr_uu=1"], "unknown setting 'lr_uu'.*lr_u"),
        ("sop+", ["warm_up=3"], "unknown setting 'warm_up'"),
        ("sop+", ["lr_u=1", "lr_u=2"], "--set gives lr_u twice"),
        ("sop+", ["lr_u=fast"], "--set lr_u is 'fast'; allowed: a number"),
        ("sop+", ["lr_u=nan"], "--set lr_u is nan; allowed: 0 to 1e\\+06"),
        ("dividemix", ["warm_up=2.5"], "--set warm_up is '2.5'; allowed: a whole number"),
        ("dividemix", ["threshold=1.5"], "--set threshold is 1.5; allowed: 0 to 1"),
        ("cross-entropy", ["lr_u=1"], "the learner cross-entropy has no settings; --set goes with sop\\+, dividemix"),
    ],
)
def test_what_no_learner_takes_is_refused_in_one_line(learner: str, given: list[str], said: str) -> None:
    for refuse in (
        lambda: read_settings(learner, given),
        lambda: settings_of_learner(learner, "", tuple(given), False),
    ):
        with pytest.raises(SpecError, match=said) as error:
            refuse()
        assert "\n" not in str(error.value)


def test_a_run_without_settings_keeps_its_id_and_one_with_them_has_another() -> None:
    plain = RelabelSpec("mine", "f" * 64, "sop+", TrainingSpec())
    assert run_id(plain) == "4cc7dcef0798"  # as it was before there were settings
    assert "settings" not in deciding(plain)
    given = RelabelSpec("mine", "f" * 64, "sop+", TrainingSpec(), settings=("lr_u=1.0",))
    assert run_id(given) != run_id(plain) and spec_from_json(spec_to_json(given)) == given
    old = {name: value for name, value in spec_to_json(plain).items() if name != "settings"}
    assert spec_from_json(old) == plain


def test_settings_reach_the_run_and_its_title(scored_workspace: Workspace) -> None:
    plan = plan_relabel_from(scored_workspace, "small", "sop+", {"set": ["lr_u=1", "balance=0"]})
    assert plan.settings == ("balance=0.0", "lr_u=1.0")
    root = scored_workspace.root
    words = ("relabel", "small", "--method", "sop+", "--epochs", 2, "--set", "lr_u=0", "--set", "lr_v=0")
    done = winnow(*words, workspace=root)
    assert done.returncode == 0 and "lr_u=0.0, lr_v=0.0" in done.stderr, done.stderr
    done = winnow(*words, "--estimate", workspace=root)
    assert "it is computed already" in done.stdout + done.stderr
    refused(winnow("relabel", "small", "--method", "vote", "--set", "lr_u=1", workspace=root), "--set does nothing")
    refused(winnow("relabel", "small", "--method", "sop+", "--set", "lr_u=-1", workspace=root), "--set lr_u is -1")
