"""`cabrank work` as process 1 of a container, and behind a shell: who hears the signal, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import cabrank
from cabrank.settings import Settings
from tests.faults import program
from tests.server.process import Server

SOON = Settings(sweep_s=0.2)
ROOT = Path(__file__).parents[2]
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
WORK = f"{sys.executable} -m cabrank work tests/faults/program.py:app --workers 1"
AS_FIRST = {"itself": WORK.split(), "behind exec": ["sh", "-c", f'cd "$PWD" && exec {WORK}']}


def can_have_a_namespace() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(sys.platform != "linux" or not can_have_a_namespace(), reason="needs the right to make a PID namespace")


@asynccontextmanager
async def contained(store: str, first: list[str]) -> AsyncGenerator[Server]:
    """`first` as process 1, and whatever it starts."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
    process = await asyncio.create_subprocess_exec(
        *NAMESPACE, *first, cwd=ROOT, env=own | {"CABRANK_STORE": store}, stderr=asyncio.subprocess.PIPE
    )
    started = Server(process)
    try:
        await started.logged(b"stop with")
        yield started
    finally:
        started.kill()
        await started.ended()


def children(pid: int) -> list[int]:
    found = list[int]()
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text("ascii").split())
    return found


def below(pid: int) -> list[int]:
    """All processes below one."""
    return [one for child in children(pid) for one in (child, *below(child))]


def zombies(pid: int) -> list[int]:
    return [one for one in below(pid) if is_zombie(one)]


def is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] == "Z"
    return False


@pytest.mark.parametrize("first", AS_FIRST)
async def test_as_process_one_it_hears_the_signal_and_leaves_no_zombie(tmp_path: Path, first: str) -> None:
    """Also behind a shell that execs it. Worker processes die; what handlers leave behind has process 1 for its parent, and ends."""
    store, pids = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "pids"
    async with contained(store, AS_FIRST[first]) as started:
        async with cabrank.Intake(program.app, store=store) as intake:
            for _ in range(3):
                with pytest.raises(cabrank.JobFailed, match="worker_lost"):
                    await (await intake.submit(program.leaves_children, str(pids))).result()
            assert await (await intake.submit(program.double, 21)).result() == 42
            await (await intake.submit(program.orphans, str(tmp_path / "go"))).result()
        [one] = children(started.pid)
        assert len(children(one)) == 2, "the program, and what lost its parent"
        (tmp_path / "go").touch()
        while len(children(one)) > 1 or zombies(one):
            await asyncio.sleep(0.01)
        os.kill(one, signal.SIGTERM)
        assert await started.ended() == 0


async def test_a_shell_that_does_not_exec_keeps_the_signal_to_itself_and_nothing_is_lost(tmp_path: Path) -> None:
    """Why the docs say `exec`: as process 1 the shell is not even ended by it. What is killed then loses nothing."""
    store, where = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "pids"
    async with (
        contained(store, ["sh", "-c", f"{WORK}; true"]) as started,
        cabrank.Intake(program.app, store=store, settings=SOON) as intake,
    ):
        handle = await intake.submit(program.sits, str(where))
        while not where.exists():
            await asyncio.sleep(0.01)
        [shell] = children(started.pid)
        os.kill(shell, signal.SIGTERM)
        [works] = children(shell)
        os.kill(works, signal.SIGUSR1)
        await started.logged(b"1 job runs\n")
        assert b"stopping: " not in started.log
        os.kill(shell, signal.SIGKILL)
        await started.ended()
        while (await handle.state()) == cabrank.State.RUNNING:
            await asyncio.sleep(0.05)
        assert await handle.state() == cabrank.State.WAITING
