"""What several commands take: shared arguments, and the options that are declared on specs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from engine.cli.console import print_json, say
from engine.fields import options_of

Root = Annotated[
    Path | None,
    typer.Option(
        "--workspace", envvar="WINNOW_WORKSPACE", help="Folder of datasets and runs. (default: winnow-workspace)"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="ray[:HOST:PORT]", help="Compute on a Ray cluster: the one this machine belongs to, or by its head."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Start what takes over an hour without asking.")]
TrustModel = Annotated[
    bool,
    typer.Option(
        "--trust-model", help="Remember the source of the model PACKAGE.MODULE:FACTORY as trusted in this workspace."
    ),
]
OriginalsIn = Annotated[
    str | None,
    typer.Option(
        "--originals", metavar="FOLDER", help="Where the images lie that the dataset was made from; read them there."
    ),
]
Dataset = Annotated[str, typer.Argument(help="Name of a dataset (winnow ingest makes one).")]
RunId = Annotated[str, typer.Argument(help="A run's id, or its first digits (winnow runs lists them).")]
Run = Annotated[
    str | None, typer.Option(help="A run's id, or its first digits. (default: the latest that has what is needed)")
]

F = TypeVar("F", bound=Callable[..., Any])


def with_options(*specs: type[Any]) -> Callable[[F], F]:
    """Give a command the options that are declared on some specs.

    The command takes them as **words: option name -> value, None where the option was not given.
    """

    def decorate(command: F) -> F:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        first = next((i for i, p in enumerate(own) if p.name in ("trust_model", "device", "workspace")), len(own))
        declared = [parameter for spec in specs for parameter in option_parameters(spec)]
        parameters = [*own[:first], *declared, *own[first:]]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def option_parameters(spec: type[Any]) -> list[inspect.Parameter]:
    """The options of a spec as parameters of a command, each None where it is not given."""
    hints, parameters = get_type_hints(spec), []
    for name, (field, declared) in options_of(spec).items():
        silent = field.default is None or field.default is False
        default = declared.unset or ("" if silent else str(field.default))
        text = declared.help + (f" (default: {default})" if default else "")
        flag = f"--{name.replace('_', '-')}"
        kinds = [k for k in (bool, int, float) if k in (hints[name], *get_args(hints[name]))]
        found = typer.Option(flag, help=text, metavar=declared.metavar or None)
        kind: Any = kinds[0] if kinds else str
        annotation: Any = Annotated[Optional[kind], found]  # noqa: UP045
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)
        )
    return parameters


def _features() -> str:
    from engine.features.stored import features_help

    return features_help()


def _formats() -> str:
    from engine.queries.writers import formats_help

    return formats_help()


def _formats_back() -> str:
    from engine.queries.writers import WRITERS

    return ", ".join(name for name, found in WRITERS.items() if "import" in found.back)


def _methods() -> str:
    from engine.relabel.registry import all_methods

    return ", ".join(all_methods())


def _papers() -> str:
    from engine.reproduce.declared import all_papers

    return ", ".join(all_papers())


def _learners() -> str:
    from engine.relabel.registry import all_learners

    return ", ".join(all_learners())


def _learner_presets() -> str:
    from engine.relabel.learner_settings import LEARNER_PRESETS

    return ", ".join(LEARNER_PRESETS)


def _learner_settings() -> str:
    from engine.relabel.learner_settings import settings_help

    return settings_help()


def _models() -> str:
    from engine.training.models import MODELS

    return ", ".join(MODELS)


def _noise() -> str:
    from engine.data.noise import noise_help

    return noise_help()


def _samplers() -> str:
    from engine.selection.names import sampler_help

    orders = ("ascending", "descending")  # written as a score, and as a score with *
    return ", ".join(row["form"] for row in sampler_help() if row["name"] not in orders)


def _sources() -> str:
    from engine.data.sources import source_help

    return source_help()


DECLARED = {
    "features": _features,
    "formats": _formats,
    "formats_back": _formats_back,
    "learners": _learners,
    "learner_presets": _learner_presets,
    "learner_settings": _learner_settings,
    "methods": _methods,
    "papers": _papers,
    "models": _models,
    "noise": _noise,
    "samplers": _samplers,
    "sources": _sources,
}
"""What the texts of help name and do not repeat: it is declared where it is written."""


def fill_help(text: str) -> str:
    """A text of help with what is declared elsewhere filled in for {models} and the other names of DECLARED."""
    for name, declared in DECLARED.items():
        if f"{{{name}}}" in text:
            text = text.replace(f"{{{name}}}", declared())
    return text


class DeclaredHelp(TyperCommand):
    """A command whose help names what is declared elsewhere. It is read when the help is shown: torch is slow."""

    def format_help(self, context: Any, formatter: Any) -> None:
        for parameter in self.params:
            if getattr(parameter, "help", None):
                parameter.help = fill_help(parameter.help)  # type: ignore[attr-defined]
        super().format_help(context, formatter)


def report(json: bool, value: dict[str, Any], text: str) -> None:
    """One JSON object, or one line for a person."""
    if json:
        print_json(value)
    else:
        say(text)
