"""How long a turn of the SQLite store takes while the event loop idles, and while it is saturated.

    python -m bench.turns                                        # about 30 s
    python -m bench.turns --markdown docs/benchmarks/turns.md    # writes the page of the docs

A turn settles so many jobs (hands them back) and claims as many: one transaction, one fsync. *In its thread*: what the thread that owns the
writing connection took for it. *On the loop*: from the call to the answer, as whoever waits for an acknowledgement sees it. The saturated
loop runs Python code in slices of half a millisecond, one behind the other, as a busy server does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cabrank
from bench.disk import fsync_p50_s
from bench.figures import p50_p99
from bench.machine import commit, processor
from bench.report import Grid, markdown, put
from cabrank.clock import SystemClock
from cabrank.job import Settlement
from cabrank.settings import MIB, Settings
from cabrank.states import Cause
from cabrank.stores import open_url
from cabrank.stores.contract import Store, Submission, Terms, Turn, Want
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.settle import Ended

SIZES = (1, 64, 640)  # jobs of a turn: one submitter, 64 at once, a burst
TURNS = 400
SLICE_S = 0.0005
app = cabrank.App()
in_thread: list[float] = []


@app.job(queue="turns")
async def work(text: str) -> None:
    """Is claimed, and never runs."""
    del text


class Line(NamedTuple):
    """The figures of one size under one load, in seconds."""

    jobs: int
    loop: str
    thread_s: Sequence[float]
    loop_s: Sequence[float]


def timed() -> None:
    """Have every turn note what it takes in its thread."""
    turn = Ledger.turn

    def noting(self: Ledger, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want]) -> Turn:
        began = time.perf_counter()
        try:
            return turn(self, number, new, ended, want)
        finally:
            in_thread.append(time.perf_counter() - began)

    Ledger.turn = noting  # type: ignore[method-assign]


async def saturate() -> None:
    """Keep the event loop busy, as handlers and requests do."""
    while True:
        until = time.perf_counter() + SLICE_S
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)


async def turns(store: Store, jobs: int, numbers: range) -> list[float]:
    """Take turns of so many jobs; what each took on the loop."""
    want = {"turns": Want(jobs=jobs, bytes=64 * MIB, idle=jobs)}
    settlements: list[Settlement] = []
    took: list[float] = []
    for number in numbers:
        began = time.perf_counter()
        turn = await store.turn(number, new=(), settlements=settlements, want=want)
        took.append(time.perf_counter() - began)
        settlements = [Settlement(lease.job.id, lease.run, Cause.RELEASED) for lease in turn.leases]
        assert len(settlements) == jobs  # noqa: S101 -- else it measures something else
    await store.turn(numbers.stop, new=(), settlements=settlements, want={})
    return took[1:]  # the first settles nothing


async def measure(url: str) -> list[Line]:
    """All sizes, on an idle loop and on a saturated one."""
    async with cabrank.Intake(app, store=url) as intake:
        await intake.submit_many(work, ("x" * 254 for _ in range(max(SIZES))))
    store = open_url(url, SystemClock())
    await store.open(Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={}))
    lines: list[Line] = []
    number = 1
    for jobs in SIZES:
        for loop in ("idle", "saturated"):
            busy = asyncio.create_task(saturate()) if loop == "saturated" else None
            in_thread.clear()
            took = await turns(store, jobs, range(number, number + TURNS))
            lines.append(Line(jobs, loop, in_thread[1:-1], took))
            number += TURNS + 1
            if busy is not None:
                busy.cancel()
    await store.close()
    return lines


def table(lines: Sequence[Line]) -> Grid:
    """One line for each size and load."""
    heads = ("jobs of a turn", "event loop", "in its thread p50 ms", "p99 ms", "on the loop p50 ms", "p99 ms")
    rows = [(f"{line.jobs}", line.loop, *_of(line.thread_s), *_of(line.loop_s)) for line in lines]
    return Grid("", heads, rows)


def _of(values: Sequence[float]) -> Sequence[str]:
    return [f"{seconds * 1e3:.2f}" for seconds in p50_p99(values)]


def main() -> int:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the file is made, and removed again")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    timed()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        fsync_s = fsync_p50_s(Path(folder))
        grid = table(asyncio.run(measure(f"sqlite:///{Path(folder).absolute() / 'jobs.db'}")))
    print(f"fsync p50 {fsync_s * 1e3:.2f} ms\n{markdown(grid)}")
    if options.markdown is not None:
        what = (__doc__ or "").partition("\n\n    ")[2].partition("\n\n")[2].replace("\n", " ")
        put(
            options.markdown,
            f"# A turn of the SQLite store\n\nOne 2-core machine ({processor()}), Python {sys.version.split()[0]}, commit {commit()}, "
            f"fsync p50 {fsync_s * 1e3:.2f} ms; one run of `python -m bench.turns`, {TURNS} turns a line.\n\n{what.strip()}\n\n"
            f"{markdown(grid)}\n",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
