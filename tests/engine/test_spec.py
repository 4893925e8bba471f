"""Specs: ids that outlive their version, and options that are declared once."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import pytest

from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.fields import option, options_of
from engine.spec import (
    SPEC_VERSION,
    ProveSpec,
    PsiSpec,
    RelabelSpec,
    RunSpec,
    TrainingSpec,
    deciding,
    network_key,
    run_id,
    spec_from_json,
    spec_to_json,
)

PROOF = ProveSpec("mine", "feed", "ab12", 90, 3, TrainingSpec(epochs=4), "fixed", "where x > 0")
RUN = RunSpec("mine", "feed", ("aum", "el2n"), TrainingSpec())

INTRODUCED = {
    TrainingSpec: {
        "model": "mlp", "epochs": 20, "seeds": 5, "batch_size": 256, "lr": 0.002, "optimizer": "adam",
        "schedule": "constant", "weight_decay": 0.0, "observe": "train", "augment": "none", "logit_seeds": 1,
        "threads": 1, "model_hash": "", "trained_on": "", "precision": "float32",
    },
    RunSpec: {
        "threshold_rounds": 2, "neighbors": 15, "embedding": "umap", "seed": 0, "complexity": "exact",
        "standardize": False, "features": "", "features_hash": "", "download": False, "detector": "", "detector_hash": "",
        "cscores": "", "cscores_hash": "", "probs": "", "probs_hash": "",
        "versions": (),
    },
    PsiSpec: {"points": 20, "steps": "epochs", "seed": 0, "class_balanced": False, "window": False, "until": 1.0},
    ProveSpec: {"steps": "epochs", "source": ""},
    RelabelSpec: {
        "learner": "", "preset": "", "keep": (), "select": "descending", "beta": 0.0, "nli_epochs": 5, "neighbors": 15,
        "no_feature_propagation": False, "no_label_propagation": False, "no_bias": False, "unbalanced": False,
        "score": "", "share": 0.1, "seed": 0, "source": "", "settings": (),
    },
}  # fmt: skip
"""Frozen: a value here never changes; a new option adds one."""


@pytest.mark.parametrize("spec", INTRODUCED)
def test_the_values_of_introduction_are_frozen(spec):
    found = {f.name: f.metadata["introduced"] for f in dataclasses.fields(spec) if "introduced" in f.metadata}
    assert found == INTRODUCED[spec]


def test_ids_are_frozen():
    assert run_id(RUN) == "a558e35dc949"
    assert run_id(dataclasses.replace(RUN, seed=1, training=TrainingSpec(epochs=3))) == "d19de9a63bf2"
    assert run_id(PsiSpec("mine", "feed", ("random",), 20, TrainingSpec(), None)) == "a8ff68fa18be"
    assert run_id(ProveSpec("mine", "feed", "ab12", 90, 3)) == "c643811c0f0b"
    assert run_id(RelabelSpec("mine", "feed", "vote", None, source="ab12")) == "7e5993eed60e"


def test_at_its_default_no_option_is_hashed():
    assert deciding(TrainingSpec()) == {}
    assert deciding(RUN) == {"dataset": "mine", "fingerprint": "feed", "scores": ("aum", "el2n"), "training": {}}


def _with_field(spec: type, name: str, kind: type, default: object, introduced: object) -> type:
    """The spec class of a later version, which has one more option, or another default."""
    more = option(default, introduced=introduced, help="Of a later version.")
    return dataclasses.make_dataclass(spec.__name__, [(name, kind, more)], bases=(spec,), frozen=True)


def test_a_new_option_changes_no_id_and_a_changed_default_does():
    later = _with_field(TrainingSpec, "label_smoothing", float, 0.0, 0.0)
    assert deciding(later()) == {} and deciding(later(label_smoothing=0.1)) == {"label_smoothing": 0.1}
    assert network_key("feed", later()) == network_key("feed", TrainingSpec())
    changed = _with_field(TrainingSpec, "epochs", int, 30, 20)
    assert deciding(changed()) == {"epochs": 30} and deciding(changed(epochs=20)) == {}
    assert run_id(dataclasses.replace(RUN, training=changed())) != run_id(RUN)
    assert run_id(dataclasses.replace(RUN, training=changed(epochs=20))) == run_id(RUN)


def test_files_count_by_content_and_not_by_path():
    here = dataclasses.replace(RUN, features="torchvision:resnet18:/here/w.pth", features_hash="aa", cscores="/a.npz")
    there = dataclasses.replace(RUN, features="torchvision:resnet18:/there:1/w.pth", features_hash="aa", cscores="/b")
    assert run_id(here) == run_id(there)
    assert run_id(dataclasses.replace(here, features_hash="bb")) != run_id(here)
    assert run_id(dataclasses.replace(here, features="torchvision:resnet34:/here/w.pth")) != run_id(here)
    ours, same = (dataclasses.replace(RUN, detector=name, detector_hash="cc") for name in ("ours", "renamed"))
    assert run_id(ours) == run_id(same) != run_id(RUN)


def test_a_score_of_another_version_and_a_model_of_other_source_are_other_runs():
    assert run_id(dataclasses.replace(RUN, versions=("aum@2",))) != run_id(RUN)
    edited = dataclasses.replace(RUN, training=TrainingSpec(model="own:make", model_hash="aa"))
    assert run_id(edited) != run_id(
        dataclasses.replace(edited, training=TrainingSpec(model="own:make", model_hash="bb"))
    )


def test_seeds_share_their_networks_and_other_trainings_do_not():
    key = network_key("feed", TrainingSpec())
    assert network_key("feed", TrainingSpec(seeds=9, logit_seeds=3)) == key
    assert network_key("feed", TrainingSpec(threads=2)) != key
    assert network_key("beef", TrainingSpec()) != key


@pytest.mark.parametrize("spec", [RUN, PsiSpec("mine", "feed", ("el2n*",), 4, TrainingSpec(), "abc", until=0.5), PROOF])
def test_a_stored_spec_is_read_back(spec):
    stored = json.loads(json.dumps(spec_to_json(spec)))
    assert stored["version"] == SPEC_VERSION and spec_from_json(stored) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": SPEC_VERSION + 1}, "made by a newer winnow .spec version 3, this one reads up to 2"),
        ({"version": "2"}, "version '2'; allowed: 1 to 2"),
        ({"version": True}, "allowed: 1 to 2"),
        ({"kind": "poem"}, "no known kind; allowed: run, psi, recorded, prove"),
        ({"novelty": 1}, "unknown field 'novelty'; it was made by a newer winnow"),
        ({"neighbors": "many"}, "is damaged"),
        ({"neighbors": 10**400}, "neighbors is|is damaged"),
        ({"training": {"epochs": 3, "glow": 1}}, "unknown field 'glow'"),
        ({"training": 5}, "is damaged"),
        ({"scores": [None]}, "is damaged"),
        ({"scores": "aum"}, "is damaged"),
        ({"versions": ["el2n@2", 5]}, "is damaged"),
    ],
)
def test_what_cannot_be_read_says_why(change, message):
    with pytest.raises(SpecError, match=message) as error:
        spec_from_json({**spec_to_json(RUN), **change})
    assert "\n" not in str(error.value)


def test_a_spec_without_a_required_field_says_which():
    stored = spec_to_json(RUN)
    del stored["fingerprint"]
    with pytest.raises(SpecError, match="lacks the field 'fingerprint'"):
        spec_from_json(stored)


def test_a_renamed_field_of_version_0_1_is_read(tmp_path):
    with tarfile.open(Path(__file__).parents[1] / "workspaces" / "v0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    stored = [json.loads(path.read_text())["spec"] for path in sorted((tmp_path / "v0.1/runs").glob("*/spec.json"))]
    assert len(stored) == 6 and not any("version" in content for content in stored)
    trained = next(content for content in stored if content["kind"] == "run" and len(content["scores"]) > 10)
    spec = spec_from_json({**trained, "standardise": True})
    assert spec.standardize and spec.training.threads == 1 and spec.versions == ()


@pytest.mark.parametrize("spec", [TrainingSpec, RunSpec, PsiSpec, ProveSpec, RelabelSpec, IngestSpec])
def test_every_option_has_a_sentence_of_help_and_a_default_within_its_range(spec):
    for name, (field, declared) in options_of(spec).items():
        assert declared.help.endswith(".") and declared.help[0] == declared.help[0].strip(), name
        for value in (field.default, declared.introduced):
            if declared.low is not None and value is not None:
                assert declared.low <= value <= declared.high, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs is 0; allowed: 1 to 10000"),
        ({"batch_size": 1}, "--batch-size is 1; allowed: 2 to 1e\\+06 .batch normalization needs at least 2."),
        ({"optimizer": "adm"}, "unknown optimizer 'adm'; did you mean 'adam'"),
        ({"lr": float("nan")}, "--lr is nan"),
        ({"seeds": 2, "logit_seeds": 3}, "--logit-seeds is 3; allowed: 0 to 2"),
    ],
)
def test_an_option_outside_its_range_is_refused(change, message):
    with pytest.raises(SpecError, match=message):
        TrainingSpec(**change)
