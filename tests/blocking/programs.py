"""Programs of users, run as processes of their own: a fork, a Ctrl-C or an exit is then a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

APP = """
import cabrank

app = cabrank.App()

@app.job
async def double(number: int) -> int:
    return 2 * number

@app.job
def triple(number: int) -> int:
    return 3 * number
"""


def start(folder: Path, program: str, *arguments: str) -> subprocess.Popen[str]:
    """`program` in `folder`, beside an `apps.py` with two handlers."""
    (folder / "apps.py").write_text(APP, "utf-8")
    (folder / "program.py").write_text(dedent(program), "utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "program.py", *arguments],
        cwd=folder,
        env=own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(folder: Path, program: str) -> list[str]:
    """What `program` prints, line by line, if it ends well."""
    with start(folder, program) as process:
        printed, complained = process.communicate(timeout=30)
    assert (process.returncode, complained) == (0, ""), complained
    return printed.splitlines()
