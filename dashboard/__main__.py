"""`python -P -m dashboard --workspace DIR`: what `winnow dashboard` runs. -P keeps the current folder's files out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dashboard.serve import serve

parser = argparse.ArgumentParser(prog="python -P -m dashboard", description="Serve a workspace on localhost.")
parser.add_argument("--workspace", type=Path, required=True, help="the folder of the workspace")
parser.add_argument("--port", type=int, help="port on localhost (default: 8501, or the next free one)")
parser.add_argument("--no-token", action="store_true", help="serve whoever can connect to this machine's localhost")
parser.add_argument("--attached", action="store_true", help="end when standard input ends")
parser.add_argument("--read-only", action="store_true", help="decide, start, save and remove nothing")
parser.add_argument("--login", type=Path, help="a file that names an OpenID Connect provider, in place of the token")
options = parser.parse_args()


def warm_up() -> None:
    """What a thread of the server does first: it imports Streamlit, which the arguments above need not wait for."""
    from dashboard import warming

    warming.warm_up()


try:
    serve(
        options.workspace,
        options.port,
        guarded=not options.no_token,
        attached=options.attached,
        read_only=options.read_only,
        login=options.login,
        warm_up=warm_up,
    )
except (OSError, ValueError) as error:
    print(f"winnow: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:  # Ctrl-C; the server has ended
    pass
