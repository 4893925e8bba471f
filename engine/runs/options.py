"""From the options of a command, by name and only those that were given, to the spec that they describe.

The command line, the pages and the Python API all plan through here, so that the same options give the same run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from engine.data.request import IngestSpec
from engine.errors import SpecError, unknown_name
from engine.features.stored import forget_stand_ins
from engine.fields import check_range, options_of
from engine.presets import curve_settings, find_preset
from engine.queries.connection import best_run, connected, fetch_fingerprint, runs_of
from engine.queries.curated import CuratedSet, curate
from engine.relabel.learner_settings import LEARNER_PRESETS, find_learner_preset, read_settings
from engine.relabel.registry import Relabeling, find_learner, find_method
from engine.runs.named_files import check_files, files_of, trust_files
from engine.runs.planning import model_hash, plan_run, run_needs_training
from engine.runs.prove import plan_prove
from engine.runs.psi import plan_psi
from engine.runs.relabel_sources import find_source
from engine.runs.trial import ON_FEATURES, choose_network
from engine.selection.names import split_orders
from engine.spec import LEARNING_RATE, ProveSpec, PsiSpec, RelabelSpec, RunSpec, TrainingSpec
from engine.store.progress import Listener
from engine.store.trust import named_folders, trust_roots
from engine.store.workspace import Workspace
from engine.training.models import HEADS, draws_while_training
from engine.training.own_models import allow_named, allow_trusted, only_trusted

Options = Mapping[str, Any]


def plan_ingest_from(name: str, source: str | PathLike[str], options: Options) -> IngestSpec:
    """The spec of `winnow ingest NAME --from SOURCE` with the options that were given.

    Raises: SpecError for an unknown option, or a value that an option cannot take
    """
    return IngestSpec(name=name, source=_read("from", source, str), **_given("ingest", options, _types(IngestSpec)))


def plan_run_from(
    workspace: Workspace,
    dataset: str,
    options: Options,
    device: torch.device | str = "cpu",
    listener: Listener | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> RunSpec:
    """The spec of `winnow run DATASET` with the options that were given.

    Where neither a preset, a model, features nor probabilities are, and a network is needed, a short trial chooses it,
    once for a dataset.

    Args:   options: preset, scores (names separated by commas, or a sequence of them), trust_model, originals, and those
            of TrainingSpec and RunSpec; what is None was not given; device, listener: of the trial; say: is given its figures
            and its choice, a sentence
    Raises: SpecError for an unknown option or name, or a value that an option cannot take
    """
    of_training = _types(TrainingSpec)
    allowed = {
        "preset": str,
        "scores": Sequence[str],
        **of_training,
        **_types(RunSpec),
        "trust_model": bool,
        "originals": str,
    }
    given = _given("run", options, allowed, ("device", "cluster"))
    workspace.require_dataset(dataset)
    allow_named(workspace, given.get("model", ""), given.pop("trust_model", False))
    files = {name: str(given.get(name, "")) for name in ("features", "probs", "cscores")}
    if only_trusted():
        check_files(workspace, files_of(**files))
    originals = named_folders(given.pop("originals", None))
    if problem := trust_roots(workspace, originals):
        say(problem)
    preset = find_preset(given.pop("preset")) if given.get("preset") else None
    scores = given.pop("scores", preset.scores if preset else "standard")
    typed = {name: given.pop(name) for name in of_training if name in given}
    names, open_network = _names(scores), not preset and "model" not in typed and not given.get("probs")
    on_features = open_network and given.get("features", "none") != "none"
    settings = asdict(preset.training) if preset else ON_FEATURES if on_features else {}
    spec = plan_run(workspace, dataset, names, _training(settings, typed), **given)
    trust_files(workspace, spec)
    if originals:
        forget_stand_ins(workspace, dataset, spec.features_hash)
    if not open_network or "features" in given or not run_needs_training(spec):
        return spec
    choice = choose_network(workspace, dataset, torch.device(device), listener)
    say(choice.sentence)
    given["features"] = choice.features or "none"
    spec = plan_run(workspace, dataset, names, _training(choice.training, typed), **given)
    if originals:
        forget_stand_ins(workspace, dataset, spec.features_hash)
    return spec


def _training(settings: Options, typed: Options) -> TrainingSpec:
    """Settings of a preset or of a trial, and the options that were typed, which take precedence."""
    training = {**settings, **typed}
    if "optimizer" in typed and "lr" not in typed:
        training["lr"] = LEARNING_RATE.get(typed["optimizer"], 0.1)
    if "seeds" in training:
        logit_seeds = training.get("logit_seeds", TrainingSpec.logit_seeds)
        training["logit_seeds"] = min(logit_seeds, max(0, training["seeds"]))
    if "threads" not in typed and draws_while_training(training.get("model", TrainingSpec.model)):
        training["threads"] = torch.get_num_threads()  # it is trained alone, so the other threads would be idle
    return TrainingSpec(**training)


def plan_psi_from(workspace: Workspace, dataset: str, options: Options) -> PsiSpec:
    """The spec of `winnow psi DATASET` with the options that were given.

    Args:   options: those of PsiSpec, and preset, orders (one text or a sequence of names), seeds, epochs, around and
            trust_model
    Raises: SpecError for an unknown option, preset or order, or a value that an option cannot take
    """
    others = {"preset": str, "orders": Sequence[str], "seeds": int, "epochs": int, "around": str, "trust_model": bool}
    given = _given("psi", options, {**_types(PsiSpec), **others}, ("device", "cluster"))
    workspace.require_dataset(dataset)
    if "orders" in given:
        given["orders"] = split_orders(",".join(_names(given["orders"])))
    curve = {name: given.pop(name) for name in ("orders", "points", "seeds", "steps") if name in given}
    settings = curve_settings(given.pop("preset", None) or None, given.get("window", False), **curve)
    trust = given.pop("trust_model", False)
    spec = plan_psi(workspace, dataset, **given, **settings)
    allow_trusted(workspace, spec.training.model, trust)  # the model is that of the scores' run
    return spec


def plan_prove_from(workspace: Workspace, dataset: str, options: Options) -> tuple[ProveSpec, CuratedSet]:
    """The spec of `winnow prove DATASET` with the options that were given, and the curated set that it names by its hash.

    The networks are trained as those of the run to trust most; options that are given take precedence.

    Args:   options: those of ProveSpec and TrainingSpec, and version, where, drop_shortlist, trust_model and run (whose
            shortlist, scores and training are read)
    Raises: SpecError for an unknown option or a value that it cannot take, or where there is nothing to prove
    """
    of_training = _types(TrainingSpec)
    others = {"version": str, "where": str, "drop_shortlist": bool, "run": str, "trust_model": bool}
    given = _given("prove", options, {**of_training, **_types(ProveSpec), **others}, ("device", "cluster"))
    workspace.require_dataset(dataset)
    run = workspace.require_run(given.pop("run")) if given.get("run") else None
    trust = given.pop("trust_model", False)
    typed = {name: given.pop(name) for name in of_training if name in given}
    steps = given.pop("steps", ProveSpec.steps)
    curated, source = curate(workspace, dataset, run=run, **given)
    training = _trained_as(workspace, dataset, run, typed)
    allow_trusted(workspace, training.model, trust)
    return plan_prove(workspace, dataset, curated, source, training, steps), curated


RELABEL_SEEDS = 1
"""Networks of a relabeling where no number is given: a robust learner takes several times as long as plain training."""

KEEP = (0.2, 0.4, 0.6, 0.8)
"""Shares that rop keeps where none is given: those of its paper."""


def plan_relabel_from(workspace: Workspace, dataset: str, method: str, options: Options) -> RelabelSpec:
    """The spec of `winnow relabel DATASET --method METHOD` with the options that were given.

    The networks are trained as those of the run to trust most, for as many epochs as the learner needs at least; options
    that are given take precedence.

    Args:   options: those of RelabelSpec and TrainingSpec, and keep (a text or numbers), set (NAME=VALUE of the learner's
            settings), run (whose predictions, features, scores and training are read) and trust_model
    Raises: SpecError for an unknown method, learner, score or option, or one that does not go with the method
    """
    of_training, of_relabeling = _types(TrainingSpec), _types(RelabelSpec)
    others = {"keep": Sequence[str], "run": str, "trust_model": bool, "set": Sequence[str]}
    options = {**options, "keep": _shares(options.get("keep"))}
    given = _given("relabel", options, {**of_training, **of_relabeling, **others}, ("device", "cluster", "method"))
    workspace.require_dataset(dataset)
    found = find_method(method)
    _check_goes_with(found, given, of_training, of_relabeling)
    run = workspace.require_run(given.pop("run")) if given.get("run") else None
    trust = given.pop("trust_model", False)
    typed = {name: given.pop(name) for name in of_training if name in given}
    if method == "rop":
        given["learner"] = find_learner(given.get("learner", "sop+")).name
        if given.get("beta") and given.get("select", RelabelSpec.select) != "ccs":
            raise SpecError("--beta does nothing without --select ccs")
        given["keep"] = tuple(sorted({float(share) for share in given.get("keep", map(str, KEEP))}))
    learner = given.get("learner") or found.learner
    given["settings"] = read_settings(learner, _names(given.pop("set", ())))
    training = None
    if found.trains:
        trained = find_learner(learner)
        suited = f"{learner}-features"
        if "preset" not in given and suited in LEARNER_PRESETS and _reads_features(workspace, dataset, run, typed):
            given["preset"] = suited  # as a run trains on features, the network soon repeats wrong labels
        if given.get("preset"):
            settings = asdict(find_learner_preset(given["preset"], learner).training)
            settings = {name: settings[name] for name in of_training if name not in ("observe", "logit_seeds")}
            training = _trained_as(workspace, dataset, run, {**settings, **typed})
        else:
            training = _trained_as(workspace, dataset, run, {"seeds": RELABEL_SEEDS, **typed})
            training = training if "epochs" in typed else replace(training, epochs=max(training.epochs, trained.epochs))
            check_range("--epochs", training.epochs, trained.least, 10_000, f"with {learner}")
        training = replace(training, observe="train", logit_seeds=0)
        allow_trusted(workspace, training.model, trust)
    source, score = find_source(workspace, dataset, method, run, given.pop("score", ""))
    fingerprint = fetch_fingerprint(workspace, dataset)
    return RelabelSpec(dataset, fingerprint, method, training, source=source, score=score, **given)


def _shares(given: Any) -> list[str] | None:
    """What --keep has, as texts of numbers; SpecError for what is no number."""
    if given is None:
        return None
    texts = (
        _names(given)
        if isinstance(given, str)
        else [str(share) for share in (given if isinstance(given, Iterable) else [given])]
    )
    if not texts:
        raise SpecError("--keep is empty; allowed: shares above 0 to 1, separated by commas")
    for text in texts:
        try:
            float(text)
        except ValueError:
            raise SpecError(f"--keep has '{text[:40]}'; allowed: shares above 0 to 1, separated by commas") from None
    return texts


def _check_goes_with(
    method: Relabeling, given: Options, of_training: Iterable[str], of_relabeling: Iterable[str]
) -> None:
    """Raise SpecError for an option that was given and does nothing with this method."""
    free = {"run", "trust_model", "seed", *method.options, *(of_training if method.trains else ())}
    free |= {"preset", "set"} if method.trains and method.learner != "cross-entropy" else set()
    for name in given:
        if name not in free and name in {*of_training, *of_relabeling, "keep", "set"}:
            takes = ", ".join(f"--{one.replace('_', '-')}" for one in method.options)
            more = "those of the training" if method.trains else ""
            allowed = " and ".join(filter(None, [takes, more])) or "--run"
            raise SpecError(f"--{name.replace('_', '-')} does nothing with --method {method.name}; it takes {allowed}")


def _reads_features(workspace: Workspace, dataset: str, run: str | None, typed: Options) -> bool:
    """Whether a relabeling trains a head on features, as the run that it follows does."""
    training = _trained_as(workspace, dataset, run, typed)
    return training.model == "head" and bool(training.trained_on)


def _trained_as(workspace: Workspace, dataset: str, run: str | None, typed: Options) -> TrainingSpec:
    """The training of a run, else of the one to trust most, else of the newest, with the options that were typed.

    Another model has settings of its own, and reads the same features where it is one that takes them.
    """
    trained = {r.run_id: s.training for r, s in workspace.known_runs() if isinstance(s, RunSpec) and s.training}
    with connected(workspace, dataset) as connection:
        candidates = [run] if run else [best_run(connection), *reversed(runs_of(workspace, dataset))]
    found = next((trained[one] for one in candidates if one in trained), TrainingSpec())
    model = typed.get("model", found.model)
    if model == found.model:
        settings = {**asdict(found), "seeds": TrainingSpec.seeds}
        return _training(settings, {"threads": found.threads, **typed})
    on = found.trained_on if model in HEADS else ""
    return replace(_training({}, typed), model_hash=model_hash(model), trained_on=on)


def _types(spec: type[Any]) -> dict[str, Any]:
    """The types of a spec's options by name."""
    hints = get_type_hints(spec)
    return {name: hints[name] for name in options_of(spec)}


def _given(command: str, options: Options, allowed: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, Any]:
    """The options that are not None, each of the type it needs.

    others: what the caller takes itself, so that a misspelled one is recognized too
    """
    for name in options:
        if name not in allowed:
            hint = f"winnow {command} --help lists them"
            raise SpecError(unknown_name(f"option of {command}", name, [*allowed, *others, "progress"], hint))
    return {name: _read(name, value, allowed[name]) for name, value in options.items() if value is not None}


def _read(name: str, value: Any, hint: Any) -> Any:
    """A value as the type of its option; numbers of numpy become Python's own, which a spec's hash can hold."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(one for one in get_args(hint) if one is not NoneType)
    if get_origin(hint) is Sequence:
        if isinstance(value, str) or (isinstance(value, Iterable) and all(isinstance(one, str) for one in value)):
            return value if isinstance(value, str) else tuple(value)
        raise SpecError(f"{name} is {value!r}; allowed: names separated by commas, or a list of names")
    if get_origin(hint) is Literal or hint is str:
        if isinstance(value, (str, PathLike)):
            return fspath(value)
        raise SpecError(f"{name} is {value!r}; allowed: a text")
    try:
        if hint is bool and value in (False, True):
            return bool(value)
        if hint is int and not isinstance(value, bool):
            return operator.index(value)
        if hint is float and not isinstance(value, (bool, str)):
            return float(value)
    except (TypeError, ValueError):
        pass
    kind = {bool: "True or False", int: "a whole number", float: "a number"}[hint]
    raise SpecError(f"{name} is {value!r}; allowed: {kind}")


def _names(given: str | Sequence[str]) -> list[str]:
    """Names separated by commas, or a sequence of such texts, as a list."""
    texts = [given] if isinstance(given, str) else given
    return [name for text in texts for part in text.split(",") if (name := part.strip())]
