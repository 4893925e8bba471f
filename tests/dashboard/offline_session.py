"""What `test_no_network` runs where there is no network: commands and a browser's session, with their connections traced.

python offline_session.py FOLDER COMMAND...    each COMMAND is the words behind `winnow`, as one argument; the last serves

Writes FOLDER/control.trace, FOLDER/N.trace for the Nth command, and FOLDER/session.json: what the dashboard answered.
"""

from __future__ import annotations

import http.client
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

PAGES = ("", "gallery", "trajectories", "scores", "compare", "embedding", "psi", "figures", "export", "guide")
OUTSIDE = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex(('192.0.2.1', 9))"


def traced(trace: Path) -> list[str]:
    """What traces a command and all its children, threads too. -D: the command itself is our child."""
    calls = "connect,sendto,sendmsg,sendmmsg"
    return ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-s", "64", "-e", f"trace={calls}", "-o", str(trace)]


def elements(socket: ClientConnection, page: str) -> list[str]:
    """Run a page as a browser does: the kinds of what it drew, an error's text after its kind."""
    wanted = BackMsg()
    wanted.rerun_script.page_name = page
    socket.send(wanted.SerializeToString())
    found = []
    while True:
        message = ForwardMsg.FromString(socket.recv(timeout=120))
        if message.WhichOneof("type") == "delta" and message.delta.WhichOneof("type") == "new_element":
            element = message.delta.new_element
            kind = str(element.WhichOneof("type"))
            found.append(f"{kind}: {getattr(element, kind)}" if kind in ("exception", "alert") else kind)
        if message.WhichOneof("type") == "script_finished":
            return found


def session(address: str) -> dict[str, object]:
    """What the dashboard answers its own page, and others."""
    at = urlsplit(address)
    own = f"http://localhost:{at.port}"

    def fetch(path: str, **headers: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("localhost", at.port, timeout=60)
        connection.request("GET", path, headers={"Host": f"localhost:{at.port}"} | headers)
        answer = connection.getresponse()
        connection.close()
        return answer.status, dict(answer.headers)

    cookie = fetch(f"{at.path}?{at.query}")[1]["set-cookie"].split(";")[0]
    foreign = []
    for host, origin in (
        (f"localhost:{at.port}", "http://evil.example"),
        (f"localhost:{at.port}", "http://localhost:1"),
        (f"evil.example:{at.port}", f"http://evil.example:{at.port}"),
    ):
        foreign.append(fetch("/_stcore/health", Cookie=cookie, Host=host, Origin=origin)[0])
        try:
            with connect(
                f"ws://localhost:{at.port}/_stcore/stream", origin=origin, subprotocols=["streamlit"], proxy=None,
                additional_headers={"Cookie": cookie}, open_timeout=30,
            ):  # fmt: skip
                pass
            foreign.append(101)
        except InvalidStatus as refused:
            foreign.append(refused.response.status_code)
    with connect(
        f"ws://localhost:{at.port}/_stcore/stream", origin=own, subprotocols=["streamlit"], proxy=None,
        additional_headers={"Cookie": cookie}, max_size=None, open_timeout=60,
    ) as socket:  # fmt: skip
        pages = {page: elements(socket, page) for page in PAGES}
    return {"page": fetch("/", Cookie=cookie)[0], "foreign": foreign, "pages": pages}


def main(folder: Path, commands: list[str]) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run([*traced(folder / "control.trace"), sys.executable, "-c", OUTSIDE], check=True)
    winnow = [sys.executable, "-P", "-m", "engine.cli"]
    for number, words in enumerate(commands[:-1]):
        subprocess.run([*traced(folder / f"{number}.trace"), *winnow, *shlex.split(words)], check=True)
    last = [*traced(folder / f"{len(commands) - 1}.trace"), *winnow, *shlex.split(commands[-1])]
    with subprocess.Popen(last, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = next(line.split()[2] for line in process.stdout if line.startswith("dashboard at "))
        try:
            (folder / "session.json").write_text(json.dumps(session(address)))
        finally:
            process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
