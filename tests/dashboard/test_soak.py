"""Eight sessions browse and filter while runs are published and removed: no error, memory flat, how long a page takes.

A session speaks to the server as the page in a browser does: a WebSocket, a rerun for every click, and all that the
server draws is read. The long form takes ten minutes: pytest tests/dashboard/test_soak.py -m slow -s
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

from dashboard.navigation import all_pages

ROOT = Path(__file__).parents[2]
SESSIONS = 8
ANSWER_SECONDS = 120
"""After so long without an end of a page it counts as hanging, on a machine under load too."""

PUBLISHES = """
import random, sys, time
from pathlib import Path
from engine.errors import NotFoundError
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.decisions import decide
from engine.store.workspace import Workspace

workspace, until = Workspace.open(Path(sys.argv[1])), time.monotonic() + float(sys.argv[2])
made, seed = [], 0
while time.monotonic() < until:
    seed += 1
    training = TrainingSpec(model="mlp", epochs=1, seeds=1, batch_size=256, threads=1)
    made.append(compute(workspace, plan_run(workspace, "digits", ["aum"], training, seed=seed), "cpu")[0])
    decide(workspace, "digits", [seed % 100], "drop")
    if len(made) > 2:
        workspace.remove_run(made.pop(0))
    time.sleep(1)
print(seed)
"""


@dataclass
class Seen:
    """What all sessions saw. seconds: of every page, in the order in which they ended."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def serving(root: Path, elsewhere: Path) -> Iterator[tuple[int, str, int, list[bytes]]]:
    """A dashboard: its port, its token, its process, and what it prints."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dashboard", "--workspace", str(root), "--port", str(port)],
        env=os.environ | {"PYTHONPATH": python_path},
        cwd=elsewhere,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    printed: list[bytes] = []
    try:
        found = next((line for line in process.stdout if line.startswith(b"dashboard at ")), b"").decode()
        token = re.search(r"token=([\w-]+)", found)
        assert token, "the dashboard did not start"
        reader = threading.Thread(target=printed.extend, args=(process.stdout,))
        reader.start()
        yield port, token[1], process.pid, printed
    finally:
        process.terminate()
        process.wait(30)
        reader.join()
        process.stdout.close()


def addresses(chance: random.Random, runs: list[str]) -> tuple[str, dict[str, str]]:
    """A page and its query, as clicks and links make them; the run may be one that is gone."""
    page = chance.choice(all_pages())
    query = {"dataset": chance.choice(["digits", "digits-noisy"])}
    for name, values in {
        "run": [*runs, "", ""],
        "score": ["aum", "el2n", "loss", "forgetting"],
        "label": ["", "1", "3,7"],
        "low": ["", "10", "90"],
        "split": ["", "test", "all"],
        "list": ["", "short", "all"],
        "page": ["", "2", "9"],
        "sample": ["", "5", "1500"],
        "truth": ["", "wrong"],
    }.items():
        if chance.random() < 0.4 and (value := chance.choice(values)):
            query[name] = value
    return "" if page.place == all_pages()[0].place else page.address, query


def browse(number: int, port: int, token: str, root: Path, until: float, seen: Seen) -> None:
    """One session, up to a moment."""
    chance = random.Random(number)
    try:
        with connect(
            f"ws://localhost:{port}/_stcore/stream",
            origin=f"http://localhost:{port}",  # type: ignore[arg-type]
            additional_headers={"Cookie": f"winnow-{port}={token}"},
            subprotocols=["streamlit"],  # type: ignore[list-item]
            max_size=None,
        ) as server:
            while time.monotonic() < until:
                runs = [path.name for path in (root / "runs").iterdir()]
                page, query = addresses(chance, runs)
                began = time.monotonic()
                seen.errors += [f"{page}?{urlencode(query)}: {text}" for text in open_page(server, page, query)]
                seen.seconds.append(time.monotonic() - began)
                time.sleep(chance.uniform(0, 0.5))
    except Exception as error:
        seen.errors.append(f"session {number}: {type(error).__name__}: {error}")


def open_page(server: ClientConnection, page: str, query: dict[str, str]) -> list[str]:
    """Open a page, and read all of it. Returns: the exceptions that it shows"""
    message = BackMsg()
    message.rerun_script.query_string = urlencode(query)
    message.rerun_script.page_name = page
    server.send(message.SerializeToString())
    errors = []
    while True:
        got = ForwardMsg.FromString(server.recv(timeout=ANSWER_SECONDS))  # type: ignore[arg-type]
        kind = got.WhichOneof("type")
        if kind == "delta" and got.delta.new_element.WhichOneof("type") == "exception":
            shown = got.delta.new_element.exception
            errors.append(f"{shown.type}: {shown.message}")
        if kind == "session_event" and got.session_event.WhichOneof("type") == "script_compilation_exception":
            errors.append(got.session_event.script_compilation_exception.message)
        if kind == "script_finished" and got.script_finished in (
            ForwardMsg.FINISHED_SUCCESSFULLY,
            ForwardMsg.FINISHED_WITH_COMPILE_ERROR,
        ):
            return errors


def resident(pid: int) -> float:
    """Memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(("seconds", "most_growth"), [(20, 250.0), pytest.param(600, 120.0, marks=pytest.mark.slow)])
def test_sessions_browse_while_runs_come_and_go(
    demo_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: int, most_growth: float
) -> None:
    """most_growth: MB that the server may grow by in the second half; the short form still fills its caches there."""
    root = Path(shutil.copytree(demo_workspace, tmp_path / "workspace"))
    seen, memory = Seen(), []
    with serving(root, tmp_path) as (port, token, pid, printed):
        until = time.monotonic() + seconds
        with open(tmp_path / "publisher", "w+") as output:
            publisher = subprocess.Popen(
                [sys.executable, "-c", PUBLISHES, str(root), str(seconds)], stdout=output, stderr=output, cwd=ROOT
            )
            sessions = [
                threading.Thread(target=browse, args=(i, port, token, root, until, seen)) for i in range(SESSIONS)
            ]
            for session in sessions:
                session.start()
            while time.monotonic() < until:
                time.sleep(min(5.0, seconds / 20))
                memory.append(resident(pid))
            for session in sessions:
                session.join()
            publisher.wait(ANSWER_SECONDS)
            output.seek(0)
            published = output.read()
    assert publisher.returncode == 0, published
    half, last = statistics.median(memory[len(memory) // 2 :][: max(1, len(memory) // 8)]), memory[-1]
    ranked = sorted(seen.seconds)
    p50, p95 = (ranked[int(share * len(ranked))] for share in (0.5, 0.95))
    with capsys.disabled():
        print(
            f"\n{SESSIONS} sessions, {seconds} s: {len(ranked)} pages, {published.strip()} runs published, p50 {p50:.2f} s, "
            f"p95 {p95:.2f} s, longest {ranked[-1]:.2f} s, memory {memory[0]:.0f} / {half:.0f} / {last:.0f} MB"
        )
    log = b"".join(printed).decode()
    assert seen.errors == [], "\n".join([*seen.errors[:20], log[-5000:]])
    assert "Traceback" not in log, log[-5000:]
    assert len(ranked) >= SESSIONS and last - half < most_growth
