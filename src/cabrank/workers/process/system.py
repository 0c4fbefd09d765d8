"""What only the operating system can do about processes that end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Collection, Container, Iterator
from pathlib import Path

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
PAGE = resource.getpagesize()


def end_with_parent(parent: int, connection: int) -> None:
    """Let this process die when its parent, whose process id is given, does: at once on Linux, elsewhere when `connection` closes."""
    if LINUX:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(connection,), daemon=True, name="cabrank-watch").start()
    if os.getppid() != parent:
        os._exit(1)  # it was gone before


def adopt_orphans() -> None:
    """Become the parent of whatever below this process loses its own, so that nothing slips away. On Linux."""
    if LINUX:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def orphans(known: Collection[int]) -> list[int]:
    """The children of this process that it did not start: what dead workers left. On Linux; it must have one thread."""
    if not LINUX:
        return []
    with contextlib.suppress(OSError):  # a kernel without CONFIG_PROC_CHILDREN
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        return [pid for pid in map(int, children.split()) if pid not in known]
    return []


def reaped(leaders: Container[int]) -> Iterator[tuple[int, int]]:
    """The children that have ended, each with its exit code; below 0 it is the signal. The group of a leader is killed before."""
    if not hasattr(os, "waitid"):
        yield from _reaped_by_number(leaders)
        return
    with contextlib.suppress(ChildProcessError):
        while (pid := _dead()) is not None:
            if pid in leaders:
                kill_group(pid)
            _, status = os.waitpid(pid, 0)
            yield pid, os.waitstatus_to_exitcode(status)


def _dead() -> int | None:
    """A child that has ended and is not waited for yet: until then its process id is nobody else's."""
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None if found is None else found.si_pid


def _reaped_by_number(leaders: Container[int]) -> Iterator[tuple[int, int]]:
    """As `reaped`, where Python has no `waitid` (macOS before 3.13): the group is killed a moment after its number is free."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] in leaders:
                kill_group(found[0])
            yield found[0], os.waitstatus_to_exitcode(found[1])


def threads() -> int:
    """How many threads this process has, those of libraries included where that can be seen."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 -- names are enough
    except OSError:
        return threading.active_count()


def memory() -> int:
    """What this process holds in memory (bytes): now where that can be seen, else at most so far."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 -- ten times as fast, and it is asked often
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def kill_group(leader: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process group, if it is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says so of a group of zombies
        os.killpg(leader, number)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _watch(connection: int) -> None:
    """End this process and its group when the other side of the connection is gone."""
    poll = select.poll()
    poll.register(connection, 0)  # errors and hang-ups alone
    poll.poll()
    kill_group(os.getpid())
    os._exit(1)
