"""Commands as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio

ROOT = Path(__file__).parents[2]


async def bridged(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `bridged ARGUMENTS` in `folder` to its end, in an environment without this one's settings."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    own = {"PYTHONPATH": str(ROOT), "HOME": str(folder), "XDG_STATE_HOME": str(folder / "xdg"), "COLUMNS": "200"}
    done = await trio.run_process(
        [sys.executable, "-m", "bridged", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=folder,
        env=kept | own | environment,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
