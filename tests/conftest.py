"""Fixtures that several rooms share: a real workspace, made once by the real pipeline."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `winnow` itself does; read when torch is imported
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # there are more processes than processors, and threads that wait cost time

import shutil
import signal
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from given_verdicts import JUDGED, QUICK, give_verdict, scored_run

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.queries.connection import connected
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.runs.psi import plan_psi
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace

# A shell that starts something in the background has it ignore SIGINT, and all that it starts: tests send it to them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for what Winnow keeps of its user outside every workspace, empty at first; child processes inherit it."""
    home = tmp_path_factory.mktemp("home")
    os.environ |= {"XDG_CONFIG_HOME": str(home / "config"), "XDG_CACHE_HOME": str(home / "cache")}
    return home


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are processors: tests often wait, for a page or for another process."""
    return min(4, len(os.sched_getaffinity(0)) + 2)


FIRST = ("test_accessibility.py", "test_cli.py", "test_kills.py", "test_guide_examples.py")
"""Files to begin with, each in a process of its own: long ones, which at the end would keep one process at work and leave
the others without, and of them one that makes the demo's workspace, for which the others would wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))


MadeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Makes a folder of a name in one of the processes that run the tests, and gives each process a copy of its own."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own

    def made(name: str, make: Callable[[Path], None]) -> Path:
        original = shared / f"original-{name}"
        with FileLock(shared / f"{name}.lock"):
            if not original.exists():
                draft = shared / f"draft-{name}"  # stays when making it fails: the next process fails in the same way
                draft.mkdir()
                make(draft)
                draft.rename(original)
        return shutil.copytree(original, tmp_path_factory.mktemp(name), dirs_exist_ok=True)

    return made


@pytest.fixture(scope="session")
def demo_workspace(made_once: MadeOnce) -> Path:
    """The demo's two datasets with a run each and a psi-curve on the noisy one, of fewer epochs, seeds and points."""
    return made_once("demo", _make_demo) / "workspace"


def _make_demo(folder: Path) -> None:
    workspace = Workspace.open(folder / "workspace", create=True)
    ingest(workspace, IngestSpec(name="digits", source="digits"))
    ingest(workspace, IngestSpec(name="digits-noisy", source="dataset:digits", noise="symmetric:0.2"))
    for name in ("digits", "digits-noisy"):
        compute(workspace, plan_run(workspace, name, ["standard"], QUICK), "cpu")
    plan = plan_psi(workspace, "digits-noisy", ("random", "aum", "aum*", "oracle"), points=4, seeds=2, epochs=2)
    compute(workspace, plan, "cpu")


@pytest.fixture(scope="session")
def old_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that version 0.1 wrote: `digits`, `noisy` derived from it, six runs and some decisions. Read only."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).parent / "workspaces" / "v0.1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "v0.1"


@pytest.fixture(scope="session")
def judged_workspace(made_once: MadeOnce) -> Path:
    """A workspace like `demo_workspace` whose scored run of digits-noisy has a verdict of known numbers. Read only.

    All 1,797 samples are judged: the 359 of the test part come after the first 250 training samples by `aum`. The
    shortlist holds the first 350, so that 100 of the test part are on it.
    """
    return made_once("judged", partial(_make_judged, made_once("demo", _make_demo) / "workspace")) / "workspace"


def _make_judged(demo_workspace: Path, folder: Path) -> None:
    root = folder / "workspace"
    shutil.copytree(demo_workspace, root)
    run_id = scored_run(root, "digits-noisy")
    with connected(Workspace.open(root), "digits-noisy") as connection:
        rows = connection.execute("SELECT sample_id FROM scores WHERE score = 'aum' ORDER BY rank DESC").fetchall()
    hardest = [i for (i,) in rows]
    give_verdict(root, run_id, [*hardest[:250], *range(len(hardest), 1797), *hardest[250:]], 350, JUDGED)


@pytest.fixture(scope="session", params=["now", "v0.1"])
def noisy(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A workspace and its dataset with label noise, a scored run and psi-curves: of this version, and of version 0.1."""
    if request.param == "now":
        return request.getfixturevalue("judged_workspace"), "digits-noisy"
    return request.getfixturevalue("old_workspace"), "noisy"


@pytest.fixture(scope="session")
def small_original(made_once: MadeOnce) -> Path:
    """What `small_workspace` is a copy of. Read only."""
    return made_once("small", _make_small) / "workspace"


def _make_small(folder: Path) -> None:
    workspace = Workspace.open(folder / "workspace", create=True)
    ingest(workspace, IngestSpec(name="small", source="digits", limit=200, noise="symmetric:0.2"))


@pytest.fixture
def small_workspace(small_original: Path, tmp_path: Path) -> Workspace:
    """A workspace of a test's own: `small`, 200 digits with 20 % symmetric noise, and no run."""
    shutil.copytree(small_original, tmp_path / "workspace")
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture(scope="session")
def scored_original(
    small_original: Path, small_training: Callable[..., TrainingSpec], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `scored_workspace` is a copy of. Read only."""
    root = tmp_path_factory.mktemp("scored") / "workspace"
    shutil.copytree(small_original, root)
    workspace = Workspace.open(root)
    compute(workspace, plan_run(workspace, "small", ["aum", "el2n@2"], small_training()), "cpu")
    return root


@pytest.fixture
def scored_workspace(scored_original: Path, tmp_path: Path) -> Workspace:
    """`small_workspace` with a run of the scores aum and el2n@2."""
    shutil.copytree(scored_original, tmp_path / "workspace")
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture(scope="session")
def small_training() -> Callable[..., TrainingSpec]:
    """A training of a second or less."""

    def make(**changes: object) -> TrainingSpec:
        return TrainingSpec(**{"epochs": 3, "seeds": 2, "batch_size": 64, **changes})  # type: ignore[arg-type]

    return make
