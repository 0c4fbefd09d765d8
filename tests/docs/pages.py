"""Pages whose code is run: each `python` block that begins with a file's name is that file, each `sh` block is run by a shell.

A `text` block behind an `sh` block is what that prints: its lines in their order, `…` standing for anything, also for more lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
STOOD_STILL = re.compile(r"^this process stood still for .*\n", re.MULTILINE)
"""What the log says, and rightly, where the machine had no processor for a moment: no page is about that."""
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^# (?P<name>[\w.-]+\.(?:py|toml))\n")


@dataclass(frozen=True)
class Step:
    """A command of a page and what it says it prints."""

    command: str
    prints: str = ""


def files(page: str) -> dict[str, str]:
    """The files that a page shows."""
    blocks = [block["text"] for block in BLOCK.finditer(page) if block["kind"] in {"python", "toml"}]
    return {named["name"]: text for text in blocks if (named := FILE.match(text))}


def steps(page: str) -> Iterator[Step]:
    """The commands of a page in order."""
    blocks = [(block["kind"], block["text"]) for block in BLOCK.finditer(page)]
    for number, (kind, text) in enumerate(blocks):
        if kind == "sh":
            following = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
            yield Step(text, following[1] if following[0] == "text" else "")


def run(step: Step, folder: Path) -> str:
    """What the command of a step prints, if it ends well."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    source = str(ROOT / "src")
    ended = subprocess.run(
        ["/bin/bash", "-euc", step.command],
        cwd=folder,
        env=own | {"PATH": path, "COLUMNS": "120", "PYTHONPATH": source, "PYTEST_PLUGINS": "pytest_cabrank"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )
    assert ended.returncode == 0, f"{step.command}\n{ended.stdout}"
    return STOOD_STILL.sub("", ended.stdout)


def fits(printed: str, shown: str) -> bool:
    """Whether what a command printed is what the page shows."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.search(pattern, printed, re.DOTALL) is not None
