"""Nothing leaves this machine: commands and the dashboard where there is no route, with every connection traced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SESSION = Path(__file__).with_name("offline_session.py")
QUICK = (
    "ingest small --from digits --limit 300 --noise symmetric:0.2 --workspace {at}",
    "run small --model mlp --epochs 2 --seeds 2 --workspace {at}",
    "psi small --orders random,oracle --points 2 --seeds 1 --epochs 1 --workspace {at}",
    "dashboard --workspace {at}",
)


def attempts_outside(trace: str) -> list[str]:
    """The calls of a trace that reach for more than this machine: other families, other addresses, a name server."""
    calls = [line for line in trace.splitlines() if "sa_family=" in line or "<... " in line]
    inside = r"sa_family=(AF_UNIX|AF_NETLINK|AF_UNSPEC)\b|inet_addr\(\"127\.|inet_pton\(AF_INET6, \"::1\""
    return [line for line in calls if "sa_family=" in line and (not re.search(inside, line) or "htons(53)" in line)]


@pytest.mark.parametrize(
    "commands", [QUICK, pytest.param(("demo --workspace {at}",), marks=pytest.mark.slow)], ids=["quick", "demo"]
)
def test_nothing_is_attempted_but_this_machine(tmp_path: Path, commands: tuple[str, ...]) -> None:
    missing = [tool for tool in ("unshare", "ip", "strace") if shutil.which(tool) is None]
    if missing and os.environ.get("WINNOW_REQUIRE_TOOLS") == "1":
        pytest.fail(f"WINNOW_REQUIRE_TOOLS=1 requires {', '.join(missing)}")
    tried = (
        None if missing else subprocess.run(["unshare", "-rn", "strace", "-f", "true"], capture_output=True, text=True)
    )
    if tried is None or tried.returncode:  # some containers allow no namespaces, or no tracing
        pytest.skip(f"needs {', '.join(missing)}" if tried is None else f"not allowed here: {tried.stderr.strip()}")
    words = [command.format(at=tmp_path / "workspace") for command in commands]
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, str(SESSION), str(tmp_path), *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]

    assert len(attempts_outside((tmp_path / "control.trace").read_text())) == 1  # an attempt would be seen
    for number, command in enumerate(words):
        trace = (tmp_path / f"{number}.trace").read_text()
        assert attempts_outside(trace) == [], command
    assert "127.0.0.1" in trace  # the last command waits for its own server
    found = json.loads((tmp_path / "session.json").read_text())
    assert found["page"] == 200 and found["foreign"] == [403] * 6
    for page, elements in found["pages"].items():
        assert len(elements) > 3, page or "overview"
        assert not [element for element in elements if element.startswith("exception")], page
