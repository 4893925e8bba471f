"""The workspace on disk: its paths, the records of its runs, and publishing (renames: engine/store/atomic.py).

workspace/
  winnow.json                   the format of the workspace
  datasets/<name>.duckdb        immutable, published by ingest
           <name>.trial.json    the network that suits it, as a trial measured
  runs/<run_id>/spec.json       its options, versions and device
                journal.jsonl   append-only while running
                partial/         checkpoints and growing dynamics, gone when published
                lock            held by the process that computes the run
                published/      appears whole, by one rename, and never changes
                velocity-*.json  what `winnow velocity` found
                gap.json         what `winnow gap` found
  features/<key>-<images>/      features of a dataset's images, published whole: engine/features/stored.py
  jobs/                         output of the commands that the dashboard started
  decisions.duckdb              the only mutable database
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from engine.errors import BusyError, NotFoundError, SpecError, StorageError, unknown_name
from engine.spec import Spec, spec_from_json
from engine.store.atomic import publish_folder, remove_path, replacing, sha256_of, storage_errors, write_text
from engine.store.documents import read_json
from engine.store.links import link_in, refuse_linked_places, refuse_links
from engine.store.records import FORMAT, RunRecord, dataset_facts, load_record
from engine.store.verified import remember

DEFAULT_ROOT = "winnow-workspace"
_RUN_ID = re.compile(r"\w[\w.-]*", re.ASCII)
_PLAIN_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""To open no link, and wait for no pipe; Windows has neither."""


def default_root(given: Path | None = None) -> Path:
    """The given workspace, else WINNOW_WORKSPACE, else ./winnow-workspace."""
    return given or Path(os.environ.get("WINNOW_WORKSPACE") or DEFAULT_ROOT)


@dataclass(frozen=True)
class Workspace:
    """The paths of one workspace. `open` checks the format first."""

    root: Path

    @classmethod
    def open(cls, root: Path | None = None, *, create: bool = False) -> Workspace:
        """The workspace at root.

        Raises: NotFoundError when it is not there and create is False; StorageError when it is of a newer
        format, damaged or cannot be created.
        """
        path = default_root(root)
        marker = path / "winnow.json"
        refuse_linked_places(path)
        if marker.is_file():
            try:
                found = read_json(marker)["format"]
            except (StorageError, KeyError, TypeError) as error:
                raise StorageError(f'{marker} is damaged; it should read {{"format": {FORMAT}}}') from error
            if not isinstance(found, int) or found > FORMAT:
                raise StorageError(
                    f"workspace {path} has format {str(found)[:20]}, this winnow reads up to {FORMAT}; "
                    "upgrade winnow-images (pip install -U winnow-images) or choose another --workspace"
                )
            return cls(path)
        if not create:
            raise NotFoundError(f"no workspace at {path}; `winnow demo` or `winnow ingest` makes one (see --workspace)")
        if path.is_file() or (path.is_dir() and not _only_begun(path)):
            raise StorageError(f"{path} is not a winnow workspace and not empty; choose another --workspace")
        with storage_errors("the workspace", path):
            for left in path.glob(".winnow.json.*.tmp"):
                left.unlink()
            (path / "datasets").mkdir(parents=True, exist_ok=True)
            (path / "runs").mkdir(exist_ok=True)
            write_text(marker, json.dumps({"format": FORMAT}) + "\n")
        return cls(path)

    # Datasets ---------------------------------------------------------------------------------------------

    def dataset_path(self, name: str) -> Path:
        return self.root / "datasets" / f"{name}.duckdb"

    def trial_path(self, name: str) -> Path:
        """Where the network that suits a dataset is kept: beside it, and removed with it."""
        return self.root / "datasets" / f"{name}.trial.json"

    def datasets(self) -> list[str]:
        """All datasets. A file whose name no dataset can have, such as one that a shell or a page would read, is none."""
        found = (p.stem for p in (self.root / "datasets").glob("*.duckdb"))
        return sorted(name for name in found if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name))

    def require_dataset(self, name: str) -> Path:
        """The path of a dataset; NotFoundError, with the nearest name, when there is none."""
        path = self.dataset_path(name)
        if name not in self.datasets():
            raise NotFoundError(unknown_name("dataset", name, self.datasets(), "winnow ingest makes one"))
        return path

    @contextlib.contextmanager
    def building_dataset(self, name: str) -> Iterator[Path]:
        """A temporary path to write a dataset to; published under its name when the block ends well."""
        final = self.dataset_path(name)
        lock = final.with_name(f".{name}.lock")
        refuse_links(lock, "remove it and run the same command again")
        with exclusive(lock, f"dataset '{name}' is being ingested"):
            try:
                for stale in final.parent.glob(f".{final.name}.*.tmp*"):  # of a process that was killed
                    stale.unlink(missing_ok=True)
                with replacing(final, f"dataset '{name}'") as temp:
                    yield temp
            finally:
                with contextlib.suppress(OSError):  # Windows removes no file that is open
                    lock.unlink()  # while it is held: who waits for it finds it gone, and makes another

    # Runs -------------------------------------------------------------------------------------------------

    def run_dir(self, run_id: str) -> Path:
        """The folder of a run; NotFoundError for what no run is called, such as a path in somebody's spec."""
        if not _RUN_ID.fullmatch(run_id):
            raise NotFoundError(unknown_name("run", run_id[:80], self.run_ids(), "winnow runs lists them"))
        return self.root / "runs" / run_id

    def run_ids(self) -> list[str]:
        """All runs, readable or not. A folder whose name no run has, such as one that is not ASCII, is none."""
        found = (p.name for p in (self.root / "runs").glob("*") if os.path.lexists(p / "spec.json"))
        return sorted(name for name in found if _RUN_ID.fullmatch(name))

    def require_run(self, given: str) -> str:
        """The run id that starts with what was given; NotFoundError when none or several do."""
        found = [r for r in self.run_ids() if given and r.startswith(given)]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFoundError(f"run '{given}' is not unique: {', '.join(found[:5])}; give more digits")
        raise NotFoundError(unknown_name("run", given, self.run_ids(), "winnow runs lists them"))

    def published_dir(self, run_id: str) -> Path:
        return self.run_dir(run_id) / "published"

    def velocity_path(self, run_id: str, score: str) -> Path:
        """Where the kernel velocity by decile of a score is kept: beside the run, which itself never changes."""
        return self.run_dir(run_id) / f"velocity-{score}.json"

    def gap_path(self, run_id: str) -> Path:
        """Where the study of the complexity gap is kept, beside the run in the same way."""
        return self.run_dir(run_id) / "gap.json"

    def reproduced_dir(self, name: str) -> Path:
        """Where `winnow reproduce` keeps what is finished of one paper on one dataset, and its report."""
        return self.root / "reproduced" / name

    def is_published(self, run_id: str) -> bool:
        return self.published_dir(run_id).is_dir()

    def published_runs(self) -> list[str]:
        """The runs with results whose record can be read."""
        return [record.run_id for record in self.read_records()[0] if self.is_published(record.run_id)]

    def read_record(self, run_id: str) -> RunRecord:
        """The options of a run, where it was computed and when; StorageError when its spec.json is broken."""
        folder = self.run_dir(run_id)
        refuse_links(
            folder,
            f"copy what it leads to into its place, or remove the run (winnow remove {run_id}), not what it leads to",
        )
        return load_record(run_id, folder / "spec.json")

    def read_records(self) -> tuple[list[RunRecord], dict[str, str]]:
        """The records of all runs that can be read, and what is wrong with each run that cannot, by its id."""
        records, problems = [], {}
        for run_id in self.run_ids():
            try:
                records.append(self.read_record(run_id))
            except StorageError as error:
                problems[run_id] = str(error)
        return records, problems

    def known_runs(self) -> Iterator[tuple[RunRecord, Spec]]:
        """Every run whose spec this version reads, finished or not; one that is broken or newer stops no other."""
        for record in self.read_records()[0]:
            with contextlib.suppress(SpecError):
                yield record, spec_from_json(record.spec)

    def outdated(self, record: RunRecord) -> str:
        """Why a run does not belong to the dataset that has the name of its own now; "" when it does.

        Its results are about sample ids, and those of a dataset that was ingested anew are other samples.
        """
        if record.dataset not in self.datasets():
            return ""
        try:
            found = dataset_facts(self.dataset_path(record.dataset))
        except StorageError as error:
            return str(error)
        if found.fingerprint == record.fingerprint:
            return ""
        if record.fingerprint in found.earlier:
            train, test = found.earlier[record.fingerprint]
            return (
                f"run {record.run_id} is of an earlier version of dataset '{record.dataset}', with {train:,} training and "
                f"{test:,} test samples; winnow run {record.dataset} computes one of all that it has now"
            )
        return (
            f"run {record.run_id} was computed on other data: dataset '{record.dataset}' was ingested again since; "
            f"remove the run (winnow remove {record.run_id}) and compute it again"
        )

    def start_run(self, run_id: str, spec: dict[str, Any]) -> Path:
        """Make a run's folder and write its spec.json, unless they are there."""
        folder = self.run_dir(run_id)
        refuse_links(folder, f"remove the run (winnow remove {run_id}) and start it again")
        self._delete_removed()
        with storage_errors(f"run {run_id}", self.root):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "spec.json").exists():
                write_text(folder / "spec.json", json.dumps(spec, indent=1) + "\n")
        return folder

    def read_spec(self, run_id: str) -> dict[str, Any]:
        """`read_record` as a dictionary: spec, title, environment, trains, created_at, started_at."""
        record = asdict(self.read_record(run_id))
        del record["run_id"]
        return record

    @contextlib.contextmanager
    def building_run(self, run_id: str) -> Iterator[Path]:
        """A private folder to write a run's results in; published whole when the block ends well.

        A manifest with the SHA-256 of every file is added last. What the run needed only while it was being
        computed (checkpoint, spilled dynamics) is removed after the rename.
        """
        folder = self.run_dir(run_id)
        with _building_folder(
            folder / ".publishing", self.published_dir(run_id), f"the results of run {run_id}"
        ) as temp:
            yield temp
        self.is_complete(run_id)

    def is_complete(self, run_id: str) -> bool:
        """Whether a run is published; then what it needed only while it was computed is removed, if a kill left it."""
        if self.is_published(run_id):
            remove_path(self.run_dir(run_id) / "partial")
        return self.is_published(run_id)

    # Features ---------------------------------------------------------------------------------------------

    def features_dir(self, name: str) -> Path:
        """Where the stored features of that name are, computed or not."""
        folder = self.root / "features" / name
        refuse_links(folder, "remove it, and the features are computed again")
        return folder

    def feature_sets(self, key: str) -> list[Path]:
        """All stored features of one backbone or file, by its key."""
        return sorted(p for p in self.root.glob(f"features/{glob.escape(key)}-*") if link_in(p) is None)

    @contextlib.contextmanager
    def building_features(self, name: str) -> Iterator[tuple[Path, Path]]:
        """A folder for pieces that outlive this process, and one whose content is published when the block ends well.

        Raises: BusyError while another process is at it
        """
        final, what = self.features_dir(name), f"features {name}"
        partial = final.with_name(f".{name}.partial")
        for path in (partial, final.with_name(f".{name}.lock")):
            refuse_links(path, "remove it and run the same command again")
        with storage_errors(what, self.root):
            final.parent.mkdir(exist_ok=True)
        with exclusive(final.with_name(f".{name}.lock"), f"{what} are being computed"):
            if final.is_dir():
                raise BusyError(f"{what} were computed by another process just now; run the same command again")
            with storage_errors(what, self.root):
                partial.mkdir(exist_ok=True)
            with _building_folder(final.with_name(f".{name}.publishing"), final, what) as temp:
                yield partial, temp
            remove_path(partial)

    def remove_run(self, run_id: str) -> None:
        """Delete a run, which is gone from one moment to the next; what a kill leaves of it the next run or removal deletes.

        Raises: NotFoundError when it is not there; BusyError while it is being computed
        """
        folder = self.run_dir(run_id)
        if folder.is_symlink():
            return folder.unlink()
        if not folder.is_dir():
            self._delete_removed()
            raise NotFoundError(f"run {run_id} is not there; another process removed it")
        if (folder / "lock").is_symlink():
            (folder / "lock").unlink()
        with (
            exclusive(folder / "lock", f"run {run_id} is being computed (winnow cancel {run_id})"),
            storage_errors(f"the removal of run {run_id}", folder),
        ):
            # Half of a folder would be found by the next run of the same spec, and taken for its work.
            os.rename(folder, folder.with_name(f".{run_id}.{os.getpid()}-{threading.get_ident()}.removing"))
        self._delete_removed()

    def _delete_removed(self) -> None:
        """Delete the folders of runs that are removed, by this process or one that was killed."""
        for gone in (self.root / "runs").glob(".*.removing"):
            remove_path(gone)

    def remove_dataset(self, name: str) -> None:
        """Delete a dataset file, and what was tried on it. Its runs are the caller's to remove first."""
        path = self.require_dataset(name)
        remove_path(self.trial_path(name))  # first: another dataset of that name would be trained as it says
        path.unlink(missing_ok=True)
        self._delete_removed()


@contextlib.contextmanager
def _building_folder(temp: Path, final: Path, what: str) -> Iterator[Path]:
    """A private folder, published under its name when the block ends well, with a manifest of every file's SHA-256."""
    remove_path(temp)
    try:
        with storage_errors(what, temp.parent):
            temp.mkdir()
            yield temp
            manifest = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in sorted(temp.iterdir())}
            (temp / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": manifest}, indent=1) + "\n")
            publish_folder(temp, final)
            for name, about in manifest.items():
                remember(final / name, str(about["sha256"]))
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@contextlib.contextmanager
def exclusive(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file that the system releases when this process ends, however it ends. BusyError if held."""
    lock = filelock.FileLock(path)
    try:
        with storage_errors("a lock", path.parent):
            # Not at once: a reader that asks whether the lock is held holds it for a moment itself.
            lock.acquire(timeout=1.0, poll_interval=0.05)
    except filelock.Timeout as error:
        raise BusyError(f"{busy}; wait for it to end") from error
    except FileNotFoundError as error:
        raise _removed(path.parent) from error
    try:
        if not path.exists():
            raise _removed(path.parent)
        yield
    finally:
        lock.release()


def _removed(folder: Path) -> NotFoundError:
    """What to raise where a folder was removed while this process waited for its lock."""
    return NotFoundError(f"{folder} was removed by another process just now; run the same command again")


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock at path."""
    # Locked by its path, it would be made again where it was just removed, with its folder.
    try:
        handle = os.open(path, (os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY) | _PLAIN_FILE)
    except OSError:  # not there, or a folder of somebody else's in its place: nobody computes behind it
        return False
    try:
        free = filelock.lock_descriptor(handle, blocking=False)
        if free:
            filelock.unlock_descriptor(handle)
        return not free
    except OSError:
        return False
    finally:
        os.close(handle)


def _only_begun(path: Path) -> bool:
    """Whether a folder is a workspace whose making was interrupted: its own folders, empty, and no marker yet."""
    return all(
        (p.name in ("datasets", "runs") and p.is_dir() and not any(p.iterdir()))
        or (re.fullmatch(r"\.winnow\.json\..*\.tmp", p.name) and p.is_file())
        for p in path.iterdir()
    )
