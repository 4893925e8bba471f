"""Models of one's own: imported where the user of the process named them, or trusts their source, and never else."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import SpecError
from engine.spec import run_id, spec_from_json
from engine.store.jobs import start_job
from engine.store.trust import fetch_trust
from engine.store.workspace import Workspace
from engine.training.own_models import ONLY_TRUSTED, find_source

NETS = """
from pathlib import Path
from torch import nn
Path({log!r}).open("a").write("x")

def make(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear({width}, classes))
"""

SEVERAL = """
import json, sys
from engine.cli.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["winnow", *words]
    try:
        main()
    except SystemExit as end:
        print(end.code, flush=True)
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A folder with a module of a network, which leaves a mark in ran.txt whenever it is run."""
    folder = tmp_path / "nets"
    folder.mkdir()
    (folder / "evilmod.py").write_text(NETS.format(log=str(folder / "ran.txt"), width=64))
    (folder / "torch.py").write_text("raise RuntimeError('a file of the current folder stands in for torch')\n")
    return folder


def ran(folder: Path) -> int:
    """How often the module was run since this was last called."""
    mark = folder / "ran.txt"
    found = len(mark.read_text()) if mark.exists() else 0
    mark.unlink(missing_ok=True)
    return found


def winnow(folder: Path, workspace: Workspace, *commands: str, searched: str = "") -> list[tuple[int, str]]:
    """Commands in a folder, one after another in a process of their own: their exit codes and all they wrote.

    searched: a folder that Python itself searches
    """
    own = ["--workspace", str(workspace.root)]
    words = [[*command.split(), *([] if own[0] in command else own)] for command in commands]
    done = subprocess.run(
        [sys.executable, "-P", "-c", SEVERAL, json.dumps(words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": searched},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    out, text = [], ""
    for line in done.stdout.splitlines():
        if not line:  # a bar that was cleared
            continue
        if line in ("0", "1", "2", "130"):
            out.append((int(line), text))
            text = ""
        else:
            text += line + "\n"
    assert len(out) == len(commands), done.stdout
    return out


def name_in_spec(workspace: Workspace, run: str, model: str) -> None:
    """Write a model into the spec of a run, as somebody else may."""
    path = workspace.run_dir(run) / "spec.json"
    content = json.loads(path.read_text())
    content["spec"]["training"] |= {"model": model, "model_hash": "0" * 12}
    path.write_text(json.dumps(content))


def unfinished(workspace: Workspace, model: str) -> str:
    """A run that is to be resumed, and one whose scores a curve reads, whose specs name a model."""
    (published,) = workspace.run_ids()
    name_in_spec(workspace, published, model)
    folder = workspace.run_dir("0123456789ab")
    folder.mkdir()
    content = json.loads((workspace.run_dir(published) / "spec.json").read_text())
    content["spec"]["scores"] = ["el2n"]
    (folder / "spec.json").write_text(json.dumps(content))
    return folder.name


def test_a_spec_imports_nothing_from_where_one_stands(scored_workspace, nets):
    run = unfinished(scored_workspace, "evilmod:make")
    (nets / "torch.py").unlink()
    commands = (
        f"resume {run} --yes --device cpu",
        "psi small --orders random --points 2 --seeds 1 --yes",
        "velocity small --score aum",
        "detector apply digits+textures small",
        f"select small craig --keep 0.5 --to {nets / 'kept.csv'}",
    )
    found = winnow(nets, scored_workspace, *commands, searched=str(nets))
    for (code, text), command in zip(found, commands, strict=True):
        assert code == 2 and text.startswith("winnow: a run names the model evilmod:make, from "), (command, text)
        assert str(nets / "evilmod.py") in text and "--trust-model" in text and text.count("\n") == 1
    assert not ran(nets)


def test_the_dashboards_buttons_import_nothing_that_is_not_trusted(scored_workspace, nets, monkeypatch):
    monkeypatch.chdir(nets)
    run = unfinished(scored_workspace, "evilmod:make")
    named = ["run", "small", "--scores", "el2n@3", "--model", "evilmod:make", "--trust-model", "--yes"]
    commands = (["resume", run], ["psi", "small", "--orders", "random", "--points", "2", "--trust-model"], named)
    for started in [start_job(scored_workspace, words) for words in commands]:
        assert started.process.wait() == 2
        assert started.message().startswith("a run names the model evilmod:make"), started.message()
    assert not ran(nets) and not fetch_trust(scored_workspace).models


def test_naming_it_imports_it_and_trust_is_of_one_source_in_one_workspace(scored_workspace, nets, tmp_path):
    quick = "--scores el2n --epochs 1 --seeds 1 --yes --device cpu"
    ((code, text),) = winnow(nets, scored_workspace, f"run small --model evilmod:make {quick}")
    assert code == 0, text
    assert ran(nets) == 1  # the current folder counts, and its torch.py shadows nothing
    run = unfinished_copy(scored_workspace)
    refused, resumed = winnow(nets, scored_workspace, f"resume {run} --yes", f"resume {run} --yes --trust-model")
    assert refused[0] == 2 and "you have not trusted it" in refused[1]  # naming it once trusts nothing
    assert resumed[0] == 0 and ran(nets) == 1, resumed
    (trusted,) = fetch_trust(scored_workspace).models.items()
    assert trusted[0] == "evilmod:make" and trusted[1].folder == str(nets)

    run = unfinished_copy(scored_workspace)
    started = start_job(scored_workspace, ["resume", run, "--yes"])  # from another folder, as the dashboard does
    assert started.process.wait() == 0 and ran(nets) == 1, started.message()

    run = unfinished_copy(scored_workspace)
    shutil.copytree(scored_workspace.root, tmp_path / "copy")
    with (nets / "evilmod.py").open("a") as file:
        file.write("\n# changed\n")
    commands = (f"resume {run} --yes --workspace {tmp_path / 'copy'}", f"resume {run} --yes")
    copied, changed = winnow(nets, scored_workspace, *commands)
    assert copied[0] == 2 and "you have not trusted it in this workspace" in copied[1]
    assert changed[0] == 2 and "has changed since you trusted evilmod:make" in changed[1]
    assert ran(nets) == 0


def unfinished_copy(workspace: Workspace) -> str:
    """The run of the own model as if it had not been finished."""
    for run in workspace.run_ids():
        spec = spec_from_json(workspace.read_spec(run)["spec"])
        if spec.training.model == "evilmod:make":
            shutil.rmtree(workspace.published_dir(run), ignore_errors=True)
            assert run == run_id(spec)
            return run
    raise AssertionError("there is no such run")


# What trust covers ---------------------------------------------------------------------------------------------------

TRUSTED = """
import sys
from engine.store.workspace import Workspace
from engine.training.own_models import allow_trusted, import_factory
workspace = Workspace.open(__import__("pathlib").Path(sys.argv[1]))
allow_trusted(workspace, sys.argv[2], len(sys.argv) > 3)
print(import_factory(sys.argv[2])())
"""


def build(folder: Path, workspace: Workspace, model: str, *trust: str) -> subprocess.CompletedProcess[str]:
    """Call a trusted factory in a process of its own, which stands in a folder."""
    command = [sys.executable, "-P", "-c", TRUSTED, str(workspace.root), model, *trust]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_trust_covers_what_the_module_imports_from_its_folder_and_not_what_python_keeps_compiled(
    small_workspace, tmp_path
):
    nets = tmp_path / "nets"
    (nets / "mine" / "parts").mkdir(parents=True)
    (nets / "mine" / "__init__.py").write_text("from . import small\n")
    (nets / "mine" / "small.py").write_text(
        "import json\nfrom mine.parts import widths\nimport helper\nimport os.path\ndef make():\n    return widths.WIDTH\n"
    )
    (nets / "mine" / "parts" / "widths.py").write_text("WIDTH = 64\n")  # of a package without __init__
    (nets / "helper.py").write_text("HELP = 1\n")
    (nets / "stranger.py").write_text("raise RuntimeError\n")
    source = find_source("mine.small:make", [str(nets)])
    assert source is not None and source.folder == str(nets) and not source.installed
    assert set(source.files) == {"mine", "mine.small", "mine.parts.widths", "helper"}
    assert source.namespaces == {"mine.parts"}
    assert "mine.small" not in sys.modules and "mine" not in sys.modules

    assert build(nets, small_workspace, "mine.small:make", "trust").stdout == "64\n"
    # Python would take a compiled file whose header has the source's time and size for the source.
    hidden = nets / "mine" / "parts" / "widths.py"
    about = hidden.stat()
    hidden.write_text("WIDTH = 32\n")
    os.utime(hidden, ns=(about.st_atime_ns, about.st_mtime_ns))
    py_compile.compile(str(hidden), doraise=True)
    hidden.write_text("WIDTH = 64\n")
    os.utime(hidden, ns=(about.st_atime_ns, about.st_mtime_ns))
    ordinary = [sys.executable, "-c", "import widths; print(widths.WIDTH)"]
    assert subprocess.run(ordinary, cwd=hidden.parent, capture_output=True, text=True).stdout == "32\n"
    done = build(tmp_path, small_workspace, "mine.small:make")
    assert done.stdout == "64\n", done.stderr

    (nets / "helper.py").write_text("HELP = 2\n")
    done = build(tmp_path, small_workspace, "mine.small:make")
    assert done.returncode and "has changed since you trusted mine.small:make" in done.stderr


def test_what_an_installed_package_or_no_source_is(nets, monkeypatch):
    installed = find_source("sklearn.svm:SVC", [str(nets)])
    assert installed is not None and installed.installed and set(installed.files) == {"sklearn", "sklearn.svm"}
    torch = find_source("torch:nn", [str(nets)])
    assert torch is not None and torch.folder != str(nets)  # the library comes first
    for nothing in ("sys:exit", "no_such_module:make", "math:sqrt", "no such module:make", "..:make"):
        assert find_source(nothing, [str(nets)]) is None


def test_a_name_of_the_libraries_is_no_reason_to_call_it(scored_workspace, nets, monkeypatch):
    from engine.training.models import build_model

    monkeypatch.setenv(ONLY_TRUSTED, "1")
    for model in ("shutil:rmtree", "os:system", "evilmod:make"):
        with pytest.raises(SpecError, match=f"a run names the model {model}.*nothing was imported"):
            build_model(model, (64,), 10, 0)
    assert not ran(nets)
