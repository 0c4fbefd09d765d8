"""What the figures were taken on and with."""

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path

import msgspec

from bench.contender import ROOT, go_version
from bench.wrk import wrk_version


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    processor: str
    cores: int
    memory: int
    system: str
    python: str
    go: str
    wrk: str
    packages: dict[str, str]
    commit: str
    started_at: float
    load_average: float
    """What else the machine had to do in the minute before, in cores."""

    @property
    def caption(self) -> str:
        """The line that stands beside every figure."""
        return (
            f"One {self.cores}-core machine ({self.processor}, {self.memory / 2**30:.0f} GiB), load generator on it. "
            f"{self.system}; Python {self.python}, {self.go}, {self.wrk}."
        )


def this_machine() -> Machine:
    return Machine(
        processor=processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.freedesktop_os_release()['PRETTY_NAME']}, kernel {platform.release()}",
        python=platform.python_version(),
        go=go_version(),
        wrk=wrk_version(),
        packages={name: version(name) for name in ("cabrank", "msgspec", "apsw", "httptools", "uvloop", "uvicorn")},
        commit=commit(),
        started_at=time.time(),
        load_average=os.getloadavg()[0],
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit that was measured, with `-dirty` if the files differ from it; "unknown" outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return answer.stdout.strip() or "unknown"
