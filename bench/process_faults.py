"""What it takes to get over what jobs do to their worker processes: kills, crashes, hogs, hangs, and children left behind.

    python -m bench.process_faults --rounds 50

One worker, so that the time until its place can be used again is seen whole. A time is from the harm to the moment at which the next
run begins, both taken from the machine's monotonic clock, which all its processes share.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec

import cabrank
from bench.process import peak_memory
from cabrank.settings import MIB, Settings

app = cabrank.App()
ONCE = cabrank.Retry(attempts=1)
TIMEOUT_S = 0.2
HOG = 2048 * MIB
LIMIT = 512 * MIB


@app.job(kind="process")
def begins() -> float:
    """When it began."""
    return time.monotonic()


@app.job(kind="process")
def waits(folder: str, *, job: cabrank.JobContext = cabrank.context()) -> float:
    """Says who it is, and waits to be killed; its second run returns when that began."""
    if job.run > 1:
        return time.monotonic()
    _say(Path(folder) / "pid", f"{os.getpid()}")
    time.sleep(1e6)
    return 0.0


@app.job(kind="process", max_crashes=1)
def segfaults(folder: str) -> None:
    """Reads what is not there."""
    _say(Path(folder) / "at", f"{time.monotonic()}")
    ctypes.string_at(0)


@app.job(kind="process", max_crashes=1)
def aborts(folder: str) -> None:
    """Ends as an assertion in C does."""
    _say(Path(folder) / "at", f"{time.monotonic()}")
    os.abort()


@app.job(kind="process", retry=ONCE)
def hoards(folder: str) -> int:
    """Wants more memory than it may have."""
    _say(Path(folder) / "at", f"{time.monotonic()}")
    return len(bytearray(HOG))


@app.job(kind="process", retry=ONCE, timeout_s=TIMEOUT_S)
def hangs(folder: str) -> None:
    """Ends when it is told to."""
    _say(Path(folder) / "at", f"{time.monotonic() + TIMEOUT_S}")
    time.sleep(1e6)


@app.job(kind="process", retry=ONCE, timeout_s=TIMEOUT_S)
def ignores(folder: str) -> None:
    """Does not end when it is told to."""
    _say(Path(folder) / "at", f"{time.monotonic() + TIMEOUT_S}")
    while True:
        try:
            time.sleep(1e6)
        except BaseException:  # noqa: BLE001, S112 -- that is the point
            continue


@app.job(kind="process", max_crashes=1)
def leaves_children(folder: str) -> None:
    """One in its group, one in a session of its own; then it dies."""
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(1e6)"]
    children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
    _say(Path(folder) / "pids", " ".join(str(child.pid) for child in children))
    _say(Path(folder) / "at", f"{time.monotonic()}")
    os._exit(1)


def _say(path: Path, words: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(words, "ascii")
    new.rename(path)


class Row(msgspec.Struct):
    """One kind of harm: how long the place was away each time, and what else was seen."""

    name: str
    seconds: list[float]
    seen: str = ""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def _failed(handle: cabrank.JobHandle[object]) -> str:
    try:
        await handle.result()
    except cabrank.JobFailed as error:
        return error.reason
    raise SystemExit(f"{handle!r} ended well")


async def killed(dispatcher: cabrank.Dispatcher, folder: Path, rounds: int) -> Row:
    """SIGKILL from outside, in the middle of a job: it is run again."""
    row, crashes = Row("worker killed in its job", []), 0
    for _ in range(rounds):
        (folder / "pid").unlink(missing_ok=True)
        handle = await dispatcher.submit(waits, str(folder))
        while not (folder / "pid").exists():  # noqa: ASYNC110 -- it comes from another process
            await asyncio.sleep(0.001)
        at = time.monotonic()
        os.kill(int((folder / "pid").read_text("ascii")), signal.SIGKILL)
        row.seconds.append(await handle.result() - at)
        crashes += 1
    row.seen = f"{crashes} of {rounds} run again, {dispatcher.engine.counters.retried} crashes counted"
    return row


async def harmed(
    dispatcher: cabrank.Dispatcher, folder: Path, rounds: int, name: str, handler: Callable[[str], object], reason: str
) -> Row:
    """A job harms its process; then the next job begins."""
    row = Row(name, [])
    for _ in range(rounds):
        handle = await dispatcher.submit(handler, str(folder))
        neighbour = await dispatcher.submit(begins)
        if (was := await _failed(handle)) != reason:
            raise SystemExit(f"{name}: {was}")
        row.seconds.append(await neighbour.result() - float((folder / "at").read_text("ascii")))
    row.seen = f"{rounds} of {rounds} {reason}, neighbours failed 0"
    return row


async def left(dispatcher: cabrank.Dispatcher, folder: Path, rounds: int) -> Row:
    """A job leaves processes behind and dies."""
    row, survivors = Row("grandchildren left behind", []), 0
    for _ in range(rounds):
        await _failed(await dispatcher.submit(leaves_children, str(folder)))
        pids = [int(pid) for pid in (folder / "pids").read_text("ascii").split()]
        at = float((folder / "at").read_text("ascii"))
        while any(map(_lives, pids)) and time.monotonic() < at + 1:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.001)
        row.seconds.append(time.monotonic() - at)
        survivors += sum(map(_lives, pids))
    row.seen = f"{survivors} survivors of {2 * rounds}"
    return row


async def measure(folder: Path, rounds: int) -> list[Row]:
    """All rows."""
    settings = Settings(max_workers=1, process_memory=LIMIT)

    def with_dispatcher(work: Callable[[cabrank.Dispatcher], Awaitable[Row]]) -> Awaitable[Row]:
        async def run() -> Row:
            async with cabrank.Dispatcher(app, settings=settings) as dispatcher:
                await (await dispatcher.submit(begins)).result()
                return await work(dispatcher)

        return run()

    cases: list[tuple[str, Callable[[str], object], str]] = [
        ("segfault", segfaults, "worker_lost"),
        ("abort", aborts, "worker_lost"),
        (f"wants {HOG // MIB:,} MiB, may have {LIMIT // MIB}", hoards, "failed"),
        ("hangs past its timeout, heeds SIGTERM", hangs, "timed_out"),
        ("hangs past its timeout, ignores SIGTERM", ignores, "timed_out"),
    ]
    rows = [await with_dispatcher(partial(killed, folder=folder, rounds=rounds))]
    for name, handler, reason in cases:
        before = peak_memory("self")
        rows.append(await with_dispatcher(partial(harmed, folder=folder, rounds=rounds, name=name, handler=handler, reason=reason)))
        rows[-1].seen += f"; this process grew by {(peak_memory('self') - before) / MIB:.1f} MiB"
    return [*rows, await with_dispatcher(partial(left, folder=folder, rounds=rounds))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # each crash writes its traceback there
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(Path(folder), options.rounds))
    print("| harm | times | place free again, median ms | at most ms | seen |\n|---|---|---|---|---|")
    for row in rows:
        its = sorted(row.seconds)
        print(f"| {row.name} | {len(its)} | {1e3 * its[len(its) // 2]:.0f} | {1e3 * its[-1]:.0f} | {row.seen} |")


if __name__ == "__main__":
    main()
