"""What a running process has used so far, read from Linux's /proc."""

import os
from pathlib import Path
from typing import Literal

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
USER_TICKS, SYSTEM_TICKS = 11, 12  # places in /proc/PID/stat, counted after the name, which may hold spaces


def family(pid: int) -> list[int]:
    """The process and those that it has started: a server may work in a process of its own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_s(pid: int | Literal["self"]) -> float:
    """CPU seconds, user and system, of all threads that the process has had."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(after_name[USER_TICKS]) + int(after_name[SYSTEM_TICKS])) / TICKS_PER_S


def peak_memory(pid: int | Literal["self"]) -> int:
    """The most resident memory that the process has had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)
