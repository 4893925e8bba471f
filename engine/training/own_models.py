"""Models of one's own, PACKAGE.MODULE:FACTORY: which may be imported in this process, and from which source.

An import runs code, so none happens because a spec names a model. `allow_named` admits one that the user of this process
named: it is imported as Python imports, and the current folder counts, after all others, so that a file in it shadows no
library. `allow_trusted` admits one that a spec names, where this user trusts exactly its source (`engine.store.trust`).

What trust covers: the module's file, the packages above it, and what it imports from its own folder or package, as far as
`import` statements say, at any depth. Their source is hashed without running any of it, and just these files are run, from
their source: neither a __pycache__ nor another file of the folder is. Installed packages (site-packages) are trusted as
installed: there the hash is of the module and the packages above it, and what they import is imported as always.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from engine.errors import SpecError
from engine.store.atomic import sha256_of
from engine.store.jobs import ONLY_TRUSTED
from engine.store.trust import TrustedModel, fetch_trust, trust_model
from engine.store.workspace import Workspace


@dataclass(frozen=True)
class Source:
    """The Python source of a module. folder: where its top-level package or module lies; files: by module name, all that
    its hash covers; namespaces: packages without a file; installed: whether the folder is one of installed packages."""

    module: str
    folder: str
    files: Mapping[str, Path]
    namespaces: frozenset[str]
    installed: bool

    def sha256(self) -> str:
        """Of its one file, whose first digits a run's id has too, or of all by name."""
        each = {name: sha256_of(file) for name, file in sorted(self.files.items())}
        return each[self.module] if len(each) == 1 else hashlib.sha256(json.dumps(each).encode()).hexdigest()

    @property
    def file(self) -> Path:
        return self.files[self.module]


_allowed: dict[str, Source | None] = {}
"""The models that this process may import; with the source that is meant, or None as Python finds it."""


def is_own(model: str) -> bool:
    """Whether a model is written as one of a user's own."""
    return ":" in model and not model.startswith("torchvision:")


def only_trusted() -> bool:
    """Whether the options of this process were typed by nobody."""
    return bool(os.environ.get(ONLY_TRUSTED))


def allow_named(workspace: Workspace, model: str, trust: bool = False) -> None:
    """Admit a model that the user of this process named; trust: and remember its source for this workspace.

    Raises: SpecError, in a process that imports only what is trusted, as `allow_trusted`; for one without a source to trust
    """
    if not is_own(model):
        return
    if only_trusted():
        return allow_trusted(workspace, model)
    if trust:
        remember(workspace, model)
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # the last one: a torch.py of this folder is not what torch imports
    _allowed.setdefault(model, None)


def remember(workspace: Workspace, model: str) -> None:
    """Trust a model with the source that it has now, in a workspace; SpecError where there is none."""
    source = find_source(model, [os.getcwd()])
    if source is None:
        raise SpecError(f"--trust-model: {model} has no Python source here; go to its folder, or install its package")
    trust_model(workspace, model, TrustedModel(source.sha256(), source.folder))


def allow_trusted(workspace: Workspace, model: str, trust: bool = False) -> None:
    """Admit a model that a spec names, where this user trusts its source. trust: as of now, because the user says so.

    Raises: SpecError, which names its file, where it is not trusted or has changed since
    """
    if not is_own(model):
        return
    if trust and not only_trusted():
        remember(workspace, model)
    if model in _allowed:
        return
    kept = fetch_trust(workspace)
    known = kept.models.get(model)
    if known is None:
        raise SpecError(refusal(model) + (f" ({kept.problem})" if kept.problem else ""))
    source = find_source(model, [known.folder])
    if source is None:
        raise SpecError(f"{model}, which a run names, is not in {known.folder} any more; put its file back")
    if source.sha256() != known.sha256:
        raise SpecError(
            f"{source.file}, or what it imports, has changed since you trusted {model}; read it, and add --trust-model to "
            "trust what it is now"
        )
    _allow_source(model, source)


def refusal(model: str) -> str:
    """Why a model is not imported."""
    source = find_source(model, [os.getcwd()])
    where = f"from {source.file}" if source else "of which there is no source here"
    return (
        f"a run names the model {model}, {where}, and you have not trusted it in this workspace: nothing was imported; if "
        "you know that code, type the command yourself, with --trust-model"
    )


def import_factory(model: str) -> Any:
    """What a model names, imported if it may be.

    Raises: SpecError where it may not; ImportError, AttributeError or ValueError where it cannot
    """
    if model not in _allowed:
        raise SpecError(refusal(model))
    module, _, attribute = model.partition(":")
    return getattr(importlib.import_module(module), attribute)


# Processes of a cluster ----------------------------------------------------------------------------------------------


def allowed_here() -> dict[str, tuple[str, str]]:
    """What this process may import, for one that computes for it: model -> (hash, folder)."""
    found = {model: source or find_source(model, []) for model, source in _allowed.items()}
    return {model: (source.sha256(), source.folder) for model, source in found.items() if source}


def allow_from_head(allowed: Mapping[str, tuple[str, str]], machine: str) -> None:
    """Admit what the process that this one computes for may import; SpecError where the source is another here."""
    for model, (sha256, folder) in allowed.items():
        if model not in _allowed:
            source = find_source(model, [folder])
            if source is None or source.sha256() != sha256:
                what = f"lacks the source of {model}" if source is None else f"has another {source.file}"
                raise SpecError(f"{machine} {what}; put the same file there: {folder} of the machine of the run")
            _allow_source(model, source)


# The source, without running it --------------------------------------------------------------------------------------


def find_source(model: str, folders: Sequence[str]) -> Source | None:
    """The source of a model's module, in what Python searches and then in some folders; None where there is none."""
    module = model.partition(":")[0]
    search = _Search([*map(os.path.abspath, sys.path), *folders])
    return search.source(module) if all(part.isidentifier() for part in module.split(".")) else None


class _Search:
    """Finds modules in folders as Python does, without importing the packages above them."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = list(folders)
        self._found: dict[str, _Module | None] = {}

    def find(self, name: str) -> _Module | None:
        if name not in self._found:
            above, _, last = name.rpartition(".")
            package = self.find(above) if above else None
            if above:
                found = _look(last, package.inside) if package else None
            elif name in sys.builtin_module_names or importlib.machinery.FrozenImporter.find_spec(name):
                found = None
            else:
                found = _look(name, self._folders) or _editable(name)
            self._found[name] = found
        return self._found[name]

    def source(self, module: str) -> Source | None:
        top = self.find(module.partition(".")[0])
        if top is None or self.find(module) is None:
            return None
        installed = os.path.realpath(top.folder) in _library_folders() or top.folder.endswith("-packages")
        files: dict[str, Path] = {}
        namespaces = set[str]()
        left = [module]
        while left:
            name = left.pop()
            found, of = self.find(name), self.find(name.partition(".")[0])
            if found is None or of is None or of.folder != top.folder or name in files or name in namespaces:
                continue  # of a library, or such as a function of a module
            left += [above] if (above := name.rpartition(".")[0]) else []
            if found.file is None:
                namespaces.add(name)
            elif found.file.suffix == ".py":
                files[name] = found.file
                left += [] if installed else _imported(found.file, name, bool(found.inside))
        # compiled, nobody can read what would be trusted
        return Source(module, top.folder, files, frozenset(namespaces), installed) if module in files else None


class _Module(NamedTuple):
    """A module that was found. folder: in which; file: None of a package without one; inside: where a package's modules are"""

    folder: str
    file: Path | None
    inside: tuple[str, ...] = ()


def _look(name: str, folders: Sequence[str]) -> _Module | None:
    """A module by the last part of its name, in the first folder that has it."""
    spaces = []
    for folder in folders:
        base = Path(folder, name)
        for stem, inside in ((base / "__init__", (str(base),)), (base, ())):
            for suffix in importlib.machinery.all_suffixes():
                if (file := stem.with_name(stem.name + suffix)).is_file():
                    return _Module(folder, file, inside)
        spaces += [base] if base.is_dir() else []
    return _Module(str(spaces[0].parent), None, tuple(map(str, spaces))) if spaces else None


def _editable(name: str) -> _Module | None:
    """A package that was installed as editable: its finder knows the file, and runs nothing of it."""
    for finder in sys.meta_path:
        if "editable" in str(getattr(finder, "__module__", "")):
            found = finder.find_spec(name, None)
            if found is not None and found.has_location and found.origin:
                file, inside = Path(found.origin), tuple(found.submodule_search_locations or ())
                return _Module(str(file.parents[1] if inside else file.parent), file, inside)
    return None


def _library_folders() -> set[str]:
    folders = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    return {os.path.realpath(folder) for folder in folders}


def _imported(file: Path, name: str, is_package: bool) -> Iterator[str]:
    """The names of modules, and of what may be one, that a file's import statements name."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # it cannot be imported either
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: len(name.split(".")) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            yield from [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []


# Importing just that source ------------------------------------------------------------------------------------------


def _allow_source(model: str, source: Source) -> None:
    if not source.installed:
        finder = next((found for found in sys.meta_path if isinstance(found, _Pinned)), None)
        if finder is None:
            sys.meta_path.insert(0, finder := _Pinned())
        finder.add(source)
    elif source.folder not in map(os.path.abspath, sys.path):
        raise SpecError(f"{model} lies in {source.folder}, where Python does not search here; install its package")
    _allowed[model] = source


class _Pinned(importlib.abc.MetaPathFinder):
    """Finds the modules of trusted sources, and nothing else."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Path, str]] = {}
        self._namespaces = set[str]()

    def add(self, source: Source) -> None:
        self._files |= {name: (file, sha256_of(file)) for name, file in source.files.items()}
        self._namespaces |= source.namespaces

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name in self._namespaces:
            found = importlib.machinery.ModuleSpec(name, None, is_package=True)
            found.submodule_search_locations = []
            return found
        if name not in self._files:
            return None
        file, sha256 = self._files[name]
        inside: list[str] | None = (
            [] if file.name == "__init__.py" else None
        )  # empty: what is not covered is not found below it
        return importlib.util.spec_from_file_location(
            name, file, loader=_FromSource(name, str(file), sha256), submodule_search_locations=inside
        )


class _FromSource(importlib.machinery.SourceFileLoader):
    """Runs a module from its source alone, if that is what was trusted."""

    def __init__(self, name: str, path: str, sha256: str) -> None:
        super().__init__(name, path)
        self._sha256 = sha256

    def get_code(self, fullname: str) -> CodeType:
        data = self.get_data(self.path)
        if hashlib.sha256(data).hexdigest() != self._sha256:
            raise ImportError(f"{self.path} has changed since it was checked", name=fullname)
        code: CodeType = self.source_to_code(data, self.path)
        return code
