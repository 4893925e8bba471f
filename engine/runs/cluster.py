"""Where independent tasks run: in threads of this process, or on the machines of a Ray cluster.

A task is a function of what all tasks share, of its own item, and of a report. What is shared is sent to a machine
once; results come back to this process, which alone writes. On a cluster every task computes in a process of its own;
one whose machine or process dies is run again.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from engine.errors import ClusterError, SpecError
from engine.store.progress import Reporter, Unheard
from engine.store.version import winnow_version
from engine.training.own_models import allow_from_head, allowed_here
from engine.training.together import train_together

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741
T = TypeVar("T")

Report = Callable[[float], None]
"""Called with the share 0..1 of a task that is done; may raise to stop it."""

Task = Callable[[S, I, Report], T]

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 7.0
"""How long a cluster may take to be reached, and then to let this process join."""

POLL_SECONDS = 0.2
RETRIES = 3
"""How often a task is run again whose process or machine died."""

EMPTY_SECONDS = 30.0
"""How long a cluster may have no processor at all before a run gives up."""

IN_FLIGHT = (16, 512)
"""Tasks that are handed to a cluster at a time: twice its processors, and no fewer and no more than these."""

_PROBE = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR'); ray.shutdown()"


class Shared(Generic[S]):
    """A value that all tasks read. reference: where a cluster holds it."""

    def __init__(self, value: S, reference: Any = None) -> None:
        self.value, self.reference = value, reference


class Tasks(Protocol):
    """Where independent tasks run."""

    def share(self, value: S) -> Shared[S]:
        """A value for many tasks, sent to each machine once and kept while this is held. Tasks must not change it."""

    def together(
        self, work: Sequence[Callable[[], T]], workers: int, progress: Reporter, threads: int | None = 1
    ) -> list[T]:
        """The results of pieces of work of this process, in order, each of which may `call` a task.

        workers: pieces at a time in this process; a cluster has as many in flight as it has processors for
        threads: of each piece in this process, None = all; a cluster has its own number
        """

    def call(self, task: Task[S, I, T], shared: Shared[S], item: I, report: Report) -> T:
        """The result of one task.

        Raises: what the task or the report raises; ClusterError when the cluster could not compute it
        """

    def ranges(self, n: int, multiple: int) -> list[tuple[int, int]]:
        """0 .. n in as many ranges as it pays to compute apart, which begin at multiples of a number."""


class Here:
    """Tasks run in threads of this process."""

    def share(self, value: S) -> Shared[S]:
        return Shared(value)

    def together(
        self, work: Sequence[Callable[[], T]], workers: int, progress: Reporter, threads: int | None = 1
    ) -> list[T]:
        return train_together(work, workers, progress, threads)

    def call(self, task: Task[S, I, T], shared: Shared[S], item: I, report: Report) -> T:
        return task(shared.value, item, report)

    def ranges(self, n: int, multiple: int) -> list[tuple[int, int]]:
        return [(0, n)]


HERE = Here()


def map_tasks(tasks: Tasks, task: Task[S, I, T], value: S, items: Sequence[I], progress: Reporter) -> list[T]:
    """The results of a task for every item, in order; here one after another, on a cluster side by side."""
    shared, shares = tasks.share(value), [0.0] * len(items)

    def report(i: int, share: float) -> None:
        shares[i] = share
        progress.step(sum(shares), len(items))

    def work(i: int) -> T:
        found = tasks.call(task, shared, items[i], partial(report, i))
        report(i, 1.0)
        return found

    return tasks.together([partial(work, i) for i in range(len(items))], 1, progress, None)


class PartsThere:
    """Parts of the samples on a cluster, as a sampler computes them (`engine.selection.samplers.Parts`).

    What a part holds goes only to the machines that compute it. progress: stops it, from threads of other work as well
    """

    def __init__(self, tasks: Tasks, progress: Reporter) -> None:
        self._tasks, self._progress = tasks, progress

    def ranges(self, n: int, multiple: int) -> list[tuple[int, int]]:
        return self._tasks.ranges(n, multiple)

    def hold(self, value: S) -> Shared[S]:
        return self._tasks.share(value)

    def each(self, part: Task[S, I, T], held: Sequence[Shared[S]], given: Sequence[I]) -> list[T]:
        def report(share: float) -> None:
            self._progress.heartbeat()

        if len(held) == 1:  # too few samples to send
            return [part(held[0].value, given[0], report)]
        work = [partial(self._tasks.call, part, value, item, report) for value, item in zip(held, given, strict=True)]
        # Its own end must not stop the other work that reports to the same progress.
        return self._tasks.together(work, 1, Unheard(), None)


@contextlib.contextmanager
def tasks_on(cluster: str, device: torch.device, threads: int = 1) -> Iterator[Tasks]:
    """Where the tasks of a run go, for as long as the context lasts.

    cluster: "" for this process; "ray" for the Ray cluster that this machine belongs to; "ray:HOST:PORT" for the one
             whose head is there, which this machine must have joined; device: what a task computes on there; threads: of each task
             there

    A process that is in the cluster already stays in it, and the processes that compute its tasks go on with the next:
    to join takes seconds, and each of those processes imports torch.

    Raises: SpecError for another kind of cluster; ClusterError when Ray is not installed, when the cluster does not
            answer within 10 s, when this process is in another one, or when it lacks the device
    """
    if not cluster:
        yield HERE
        return
    kind, _, address = cluster.partition(":")
    if kind != "ray" or address.startswith("//"):
        raise SpecError(
            f"--cluster is '{cluster}'; allowed: ray, the cluster that this machine belongs to, or ray:HOST:PORT"
        )
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "--cluster ray needs Ray, which is not here: pip install 'winnow-images[cluster]'"
        ) from error
    joined = ray.get_runtime_context().gcs_address if ray.is_initialized() else ""
    if not joined or address not in ("", joined):
        _check_answers(address)
    if joined:
        if address not in ("", joined):
            raise ClusterError(
                f"--cluster is 'ray:{address}', but this process is in the Ray cluster at {joined}; give ray, or leave that "
                "one first (ray.shutdown())"
            )
        yield RayTasks(device, threads)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray about its own future
        # Ray puts the current folder of this process before all else that a worker imports: an engine.py there would run.
        places = ray.job_config.JobConfig(_py_driver_sys_path=[place for place in reversed(sys.path) if place])
        with contextlib.chdir(Path(__file__).parents[2]):
            ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.ERROR, job_config=places)
    try:
        yield RayTasks(device, threads)
    finally:
        ray.shutdown()  # what is still computed for this process ends with it


def _check_answers(address: str) -> None:
    """Raise ClusterError unless this machine can join the cluster. address: HOST:PORT, or "" to look for one here."""
    what = f"the Ray cluster at {address}" if address else "a Ray cluster on this machine"
    join = f"ray start --address={address}" if address else "ray start --head, or --address=HOST:PORT to join one"
    if address:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise SpecError(f"--cluster is 'ray:{address}'; allowed: ray:HOST:PORT, such as ray:10.0.0.1:6379")
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise ClusterError(
                f"{what} does not answer ({error}); start it there with ray start --head, or correct --cluster"
            ) from error
    # In a process of its own: Ray waits a minute for a cluster that is not there, and cannot be interrupted.
    try:
        probe = [sys.executable, "-P", "-c", _PROBE, address or "auto"]
        done = subprocess.run(probe, capture_output=True, text=True, timeout=ANSWER_SECONDS)
        problem = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else None
    except subprocess.TimeoutExpired:
        problem = f"no answer in {ANSWER_SECONDS:.0f} s"
    if problem is not None:
        raise ClusterError(f"cannot join {what} ({problem[:200]}); this machine must be part of it: {join}")


class RayTasks:
    """Tasks run on the cluster that this process has joined; `tasks_on` makes one."""

    def __init__(self, device: torch.device, threads: int = 1) -> None:
        import ray
        from ray.util import register_serializer

        self._ray = ray
        self._nodes: Any = ray.nodes
        self._kind = "GPU" if device.type == "cuda" else "CPU"
        self._lock = threading.Lock()
        self._looked_at = self._seen_at = time.monotonic()
        self._shared: weakref.WeakValueDictionary[int, Shared[Any]] = weakref.WeakValueDictionary()
        # Ray keeps arrays in memory that all processes of a machine read; tensors it would copy into each.
        register_serializer(torch.Tensor, serializer=_to_array, deserializer=_to_tensor)
        self._threads = threads
        options: dict[str, Any] = {"num_cpus": threads, "max_retries": RETRIES}
        if self._kind == "GPU":
            options["num_gpus"] = 1
        self._remote: Any = ray.remote(**options)(_compute)
        self.slots = self._count()
        if not self.slots:
            lacking = f"the cluster has no {self._kind}; add a machine that has one, or choose another --device"
            if threads > 1:
                lacking = f"no machine of the cluster has {threads} processors for a task; add one, or lower --threads"
            raise ClusterError(lacking)

    def share(self, value: S) -> Shared[S]:
        # As long as somebody holds what was shared, the same value is not sent again; then the cluster forgets it.
        found = self._shared.get(id(value))
        if found is None:
            found = self._shared[id(value)] = Shared(value, self._ray.put(value))
        return found

    def together(
        self, work: Sequence[Callable[[], T]], workers: int, progress: Reporter, threads: int | None = 1
    ) -> list[T]:
        fewest, most = IN_FLIGHT
        in_flight = min(len(work), max(fewest, min(most, 2 * self.slots)))
        return train_together(work, max(1, in_flight), progress, None)

    def call(self, task: Task[S, I, T], shared: Shared[S], item: I, report: Report) -> T:
        errors = self._ray.exceptions
        # What is shared is there before a task begins: a task that waits for it gives its processor to another meanwhile. A
        # GPU's is fetched by the task, which keeps it on the GPU for the next.
        held = [shared.reference] if self._kind == "GPU" else shared.reference
        reference = self._remote.remote(_versions(), allowed_here(), self._threads, task, item, held)
        try:
            while not self._ray.wait([reference], timeout=POLL_SECONDS)[0]:
                report(0.0)
                self._check_slots()
            found: T = self._ray.get(reference)
            return found
        except errors.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception) and not isinstance(cause, errors.RayError):
                raise cause from error  # the task's own
            raise ClusterError(
                f"the cluster could not compute a task, nor when it ran it again ({_first_line(cause or error)}); what is "
                "done is kept: see that its machines have the memory and the same winnow, and go on with winnow resume"
            ) from error
        except BaseException:
            self._ray.cancel(reference, force=True)
            raise

    def ranges(self, n: int, multiple: int) -> list[tuple[int, int]]:
        step = multiple * max(1, -(-n // (multiple * 4 * self.slots)))
        return [(start, min(start + step, n)) for start in range(0, n, step)]

    def _count(self) -> int:
        """How many tasks the machines of the cluster can compute at once."""
        machines = [node["Resources"] for node in self._nodes() if node["Alive"]]
        processors = [int(has.get("CPU", 0)) // self._threads for has in machines]
        if self._kind == "CPU":
            return sum(processors)
        return sum(min(int(has.get("GPU", 0)), free) for has, free in zip(machines, processors, strict=True))

    def _check_slots(self) -> None:
        """Raise ClusterError when the cluster has had nothing to compute on for long."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at < EMPTY_SECONDS / 10:
                return
            self._looked_at = now
            if self._count():
                self._seen_at = now
            elif now - self._seen_at > EMPTY_SECONDS:
                raise ClusterError(
                    f"the cluster has had no {self._kind} for {EMPTY_SECONDS:.0f} s; what is done is kept: start a machine "
                    "again (ray start), and go on with winnow resume"
                )


def _versions() -> dict[str, str]:
    return {"winnow": winnow_version(), "torch": torch.__version__, "Python": platform.python_version()}


def _compute(
    versions: dict[str, str],
    models: dict[str, tuple[str, str]],
    threads: int,
    task: Task[S, I, T],
    item: I,
    shared: Any,
) -> T:
    """One task, in a process of the cluster.

    models: what it may import; shared: what tasks share, or the reference to it in a list, so that it stays one
    """
    for name, theirs in _versions().items():
        if theirs != versions[name]:
            raise ClusterError(
                f"{socket.gethostname()} has {name} {theirs}, the machine that started the run {versions[name]}; "
                "install the same on all machines of the cluster"
            )
    allow_from_head(models, socket.gethostname())
    torch.set_num_threads(threads)
    return task(_fetch(shared[0]) if _is_reference(shared) else shared, item, lambda share: None)


_latest: tuple[Any, Any] = (None, None)


def _is_reference(shared: Any) -> bool:
    import ray

    return isinstance(shared, list) and len(shared) == 1 and isinstance(shared[0], ray.ObjectRef)


def _fetch(reference: Any) -> Any:
    """What a reference stands for, kept for the next task of this process."""
    global _latest
    if _latest[0] != reference:
        import ray

        _latest = (None, None)
        _latest = (reference, ray.get(reference))
    return _latest[1]


def _to_array(tensor: Tensor) -> tuple[Any, str]:
    return tensor.detach().cpu().numpy(), tensor.device.type


def _to_tensor(stored: tuple[Any, str]) -> Tensor:
    array, device = stored
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the memory is shared and must not be written to; no task does
        return torch.from_numpy(array).to(device)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
