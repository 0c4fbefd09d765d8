"""Segfaulting jobs among good ones, in process workers: does each good one run, is each bad one given up, is anything left behind?

    python -m bench.segfaults --good 100000 --bad 10000
    python -m bench.segfaults --good 100000 --bad 10000 --store sqlite:///segfaults.db

The bad ones are spread evenly among the good ones. A process that a bad one kills is replaced; the job is run again until it has
killed `max_crashes` processes (default 3), and is then dead.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import time
from pathlib import Path

import msgspec

import cabrank
from cabrank.settings import Settings

app = cabrank.App()


@app.job(kind="process")
def double(number: int) -> int:
    """Runs well."""
    return 2 * number


@app.job(kind="process")
def segfaults(number: int) -> None:
    """Reads what is not there."""
    ctypes.string_at(number and 0)


class Found(msgspec.Struct):
    """What became of them."""

    seconds: float
    right: int
    """Good jobs with their right result."""
    given_up: int
    """Bad jobs that are dead because their workers were lost."""
    deaths: int
    """Processes that died."""
    children_left: int
    descriptors_left: int


def _children() -> int:
    """Processes below this one, zombies among them."""
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split())


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def run(good: int, bad: int, *, store: str, workers: int) -> Found:
    """Run them all, and look at what is left."""
    children, descriptors, began = _children(), _descriptors(), time.perf_counter()
    handles: list[cabrank.JobHandle[int]] = []
    killers: list[cabrank.JobHandle[None]] = []
    async with cabrank.Dispatcher(app, store=store, max_workers=workers) as dispatcher:
        for number in range(good):
            if bad and number * bad // good != (number - 1) * bad // good:
                killers.append(await dispatcher.submit(segfaults, number))
            handles.append(await dispatcher.submit(double, number))
        right = sum([await handle.result() == 2 * number for number, handle in enumerate(handles)])
        given_up = sum([await _is_given_up(handle) for handle in killers])
        deaths = dispatcher.engine.counters.retried + dispatcher.engine.counters.dead
    seconds = time.perf_counter() - began
    return Found(seconds, right, given_up, deaths, _children() - children, _descriptors() - descriptors)


async def _is_given_up(handle: cabrank.JobHandle[None]) -> bool:
    try:
        await handle.result()
    except cabrank.JobFailed as error:
        return error.reason == "worker_lost"
    return False


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=100_000)
    parser.add_argument("--bad", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--store", default="memory://")
    options = parser.parse_args()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # each segfault writes its traceback there
    found = asyncio.run(run(options.good, options.bad, store=options.store, workers=options.workers))
    print(f"{options.good:,} good and {options.bad:,} segfaulting jobs, {options.workers} workers, {found.seconds:,.0f} s")
    print(f"good with their result {found.right:,}, bad given up {found.given_up:,}")
    each = found.deaths / max(1, options.bad)
    print(f"processes that died {found.deaths:,}, which is {each:g} a bad job (max_crashes {Settings().max_crashes})")
    print(f"left behind: {found.children_left} processes, {found.descriptors_left} descriptors")


if __name__ == "__main__":
    main()
