"""`python -P -m dashboard --workspace DIR [--port N]`: what `winnow dashboard` runs. -P keeps the current folder's files out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dashboard.serve import serve

parser = argparse.ArgumentParser(prog="python -P -m dashboard", description="Serve a workspace on localhost.")
parser.add_argument("--workspace", type=Path, required=True, help="the folder of the workspace")
parser.add_argument("--port", type=int, help="port on localhost (default: 8501, or the next free one)")
options = parser.parse_args()
try:
    serve(options.workspace, options.port)
except OSError as error:
    print(f"winnow: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:  # before Streamlit listens for it
    pass
