"""Fields of a spec that people can set: each declared once, with its help, its range and what it was at first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, get_args

from engine.errors import SpecError, unknown_name


@dataclass(frozen=True)
class Option:
    """What is declared of one option in addition to its name, type and default.

    introduced: its value in the version that introduced it, which never changes; help: one sentence, in which {models}
    and the like stand for what is declared elsewhere; low, high: the allowed range; choices: a Literal type; hint: why
    the range is what it is; metavar: how the value is written; unset: what an option that is not given means
    """

    introduced: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: Any = None
    hint: str = ""
    metavar: str = ""
    unset: str = ""


def option(
    default: Any, *, introduced: Any, help: str, identity: Callable[[Any], Any] | None = None, **more: Any
) -> Any:
    """A field that people can set. identity: the part of its value that decides the result, where that is not all."""
    declared = Option(introduced, help, **more)
    return field(default=default, metadata={"option": declared, "introduced": introduced, "identity": identity})


def derived(introduced: Any) -> Any:
    """A field that is computed from the others when a run is planned, such as the hash of a file."""
    return field(default=introduced, metadata={"introduced": introduced})


def options_of(spec: type[Any]) -> dict[str, tuple[Field[Any], Option]]:
    """The options of a spec class by field name, in the order in which they are declared."""
    return {f.name: (f, f.metadata["option"]) for f in fields(spec) if "option" in f.metadata}


@dataclass(frozen=True)
class Setting:
    """An option as a form shows it. flag: on the command line; low, high: None = no limit."""

    name: str
    flag: str
    help: str
    default: Any
    low: Any = None
    high: Any = None
    choices: tuple[str, ...] = ()


def settings_of(spec: type[Any]) -> dict[str, Setting]:
    """The options of a spec class as a form shows them, by name, in the order in which they are declared."""
    found = {}
    for name, (one, declared) in options_of(spec).items():
        flag, choices = f"--{name.replace('_', '-')}", get_args(declared.choices)
        found[name] = Setting(name, flag, declared.help, one.default, declared.low, declared.high, choices)
    return found


def check_options(spec: Any) -> None:
    """Raise SpecError for the first option outside its range or choices."""
    for name, (_, declared) in options_of(type(spec)).items():
        value, flag = getattr(spec, name), "--" + name.replace("_", "-")
        if declared.choices is not None:
            check_choice(flag if "_" in name else name, value, declared.choices)
        elif declared.low is not None and declared.high is not None and value is not None:
            check_range(flag, value, declared.low, declared.high, declared.hint)


def check_range(name: str, value: float, low: float, high: float, hint: str = "") -> None:
    """Raise SpecError unless low <= value <= high (a NaN is never inside)."""
    if not low <= value <= high:
        raise SpecError(f"{name} is {value:g}; allowed: {low:g} to {high:g}" + (f" ({hint})" if hint else ""))


def check_choice(name: str, value: str, allowed: object) -> None:
    """Raise SpecError unless value is one of a Literal's values."""
    if value not in get_args(allowed):
        raise SpecError(unknown_name(name, value, get_args(allowed)))
