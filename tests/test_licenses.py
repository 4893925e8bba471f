"""The guide's table of licenses is that of what is installed, and every license is one that the project accepts.

python tests/test_licenses.py    writes the table, from the environment that it runs in
"""

from __future__ import annotations

import importlib.metadata as metadata
import re
import tomllib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CHAPTER = ROOT / "dashboard/guide/96-licenses.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = {
    "": PROJECT["dependencies"],
    **{extra: PROJECT["optional-dependencies"][extra] for extra in ("cluster", "oidc")},
}
BEGIN, END = "<!-- licenses (python tests/test_licenses.py) -->\n", "<!-- /licenses -->"

NVIDIA = "NVIDIA, proprietary"
ACCEPTED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib", NVIDIA,
}  # fmt: skip
"""What a dependency may be under. None asks anything of who uses it unchanged; NVIDIA's has conditions of its own."""

SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "LicenseRef-NVIDIA-Proprietary": NVIDIA,
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": NVIDIA,
    "Python Software Foundation License": "PSF-2.0",
}
"""What packages write -> what it is called."""

UNDECLARED = {"cuda-toolkit": NVIDIA}
"""Packages whose metadata name none: this one holds no files, and requires those of NVIDIA."""


def closure(requirements: Iterable[str]) -> set[str]:
    """The names of all packages that requirements install here, those of this platform."""
    todo, seen = [Requirement(text) for text in requirements], set[tuple[str, frozenset[str]]]()
    while todo:
        wanted = todo.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen:
            continue
        seen.add(key)
        for text in metadata.requires(wanted.name) or []:
            needed = Requirement(text)
            extras = {"", *wanted.extras}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return {name for name, _ in seen}


def license_of(name: str) -> str:
    """What an installed package says of its license: an expression, else a classifier, a short field, or its file."""
    found = metadata.metadata(name)
    classifiers = [
        text.split(" :: ")[-1] for text in found.get_all("Classifier") or [] if text.startswith("License ::")
    ]
    field = str(found.get("License") or "")
    said = [str(found.get("License-Expression") or ""), *classifiers, "" if "\n" in field or len(field) > 60 else field]
    said = [text for text in said if text not in ("", "UNKNOWN", "OSI Approved", "Dual License")]
    if not said:
        files = [file for file in metadata.files(name) or [] if file.name.upper().startswith("LICENSE")]
        said = [file.read_text().strip().splitlines()[0] for file in files] or [UNDECLARED.get(name, "none named")]
    return SPELLINGS.get(said[0], said[0])


def parts_of(text: str) -> set[str]:
    """The licenses in an expression."""
    return {SPELLINGS.get(part, part) for part in re.split(r" (?:AND|OR) |[()]", text) if part.strip()}


def written() -> dict[str, tuple[str, str]]:
    """The rows of the guide's table: name -> (license, what installs it)."""
    table = CHAPTER.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name.strip("`"): (license, why) for name, license, why in rows}


def table() -> str:
    brought = {extra: closure(texts) for extra, texts in DIRECT.items()}
    named = names(chain(*DIRECT.values()))
    rows = []
    for name in sorted(set().union(*brought.values())):
        extras = [] if name in brought[""] else [f"`{extra}`" for extra, found in brought.items() if name in found]
        with_extra = f"with {' or '.join(extras)}" if extras else ""
        why = ", ".join(filter(None, ["named by Winnow" if name in named else "", with_extra]))
        rows.append(f"| `{name}` | {license_of(name)} | {why} |")
    return "\n".join(["| package | license | |", "| --- | --- | --- |", *rows]) + "\n"


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@pytest.mark.parametrize("name", sorted(names(chain(*DIRECT.values()))))
def test_every_dependency_of_the_project_is_listed_with_the_license_that_it_declares(name):
    listed, why = written()[name]
    # By family: the next version of a package may write BSD-3-Clause for BSD, or list what it bundles.
    families = {part.partition("-")[0] for part in parts_of(listed)}
    assert license_of(name).partition(" ")[0].partition("-")[0] in families, "run: python tests/test_licenses.py"
    extras = [extra for extra, texts in DIRECT.items() if extra and name in names(texts)]
    assert why == "named by Winnow" + (f", with `{extras[0]}`" if extras else "")


def test_every_license_of_what_is_installed_is_accepted():
    every = closure(chain(*DIRECT.values()))
    found = {name: license_of(name) for name in every}
    assert len(found) > 40
    assert {name: text for name, text in found.items() if not parts_of(text) <= ACCEPTED} == {}
    proprietary = {name for name, text in found.items() if NVIDIA in parts_of(text)}
    assert all(name.startswith(("nvidia-", "cuda-")) for name in proprietary)


def test_every_license_of_the_table_is_accepted_and_none_is_missing():
    rows = written()
    assert {name: text for name, (text, _) in rows.items() if not parts_of(text) <= ACCEPTED} == {}
    assert list(rows) == sorted(rows) and len(rows) > 40


@pytest.mark.parametrize("text", ["GPL-3.0-or-later", "MIT AND AGPL-3.0-only", "none named", "Apache-2.0 OR SSPL-1.0"])
def test_another_license_would_be_noticed(text):
    assert not parts_of(text) <= ACCEPTED


def test_an_expression_is_taken_apart():
    assert parts_of("MIT AND (Apache-2.0 WITH LLVM-exception OR Zlib)") == {
        "MIT", "Apache-2.0 WITH LLVM-exception", "Zlib",
    }  # fmt: skip


if __name__ == "__main__":
    before, _, rest = CHAPTER.read_text().partition(BEGIN)
    CHAPTER.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
