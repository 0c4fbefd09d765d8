"""What the process holds on to: under submits as fast as they go into a full queue, and over millions of jobs of every kind.

    python -m bench.memory                                             # 1,000,000 submits, then 5 million jobs: about 2 minutes
    python -m bench.memory --submits 100000 --jobs 500000
    python -m bench.memory --markdown docs/benchmarks/memory.md        # writes the page of the docs, and its plot

The slope is that of a straight line through the samples of the last nine tenths; the first tenth fills pools, caches and what is kept of
finished jobs, which is bounded (`keep_done_jobs`). Exit status 1 means that something grew.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

import cabrank
from bench import contenders as who
from bench.machine import commit, processor
from bench.report import Grid, markdown, put
from bench.svg import curve

MIB = 2**20
SAMPLES = 50
DRAWN = (0, 1, 3, 7, 15, 31, SAMPLES - 1)
SETTINGS = cabrank.Settings(keep_done_jobs=10_000)
BYTES_PER_JOB = 0.2  # what a line through the resident size may show: the allocator's arenas come and go by 256 KiB
ROUND = 10_000  # jobs of the soak that are submitted together

app = cabrank.App()


@app.job(retry=cabrank.Retry(attempts=2))
async def sometimes_fails(number: int, *, job: cabrank.JobContext = cabrank.context()) -> int:
    """Fails in the first run of one job in a hundred, and suspends in one in ten. None dies: the dead are kept for people."""
    if number % 100 == 0 and job.attempt == 1:
        raise cabrank.TryAgain("the first time", after_s=0)
    if number % 10 == 0:
        await asyncio.sleep(0)
    return number


@app.job
async def returns_nothing(number: int) -> None:
    """Nothing."""


@app.job
def on_a_thread(number: int) -> int:
    """A result out of a thread."""
    return number


class Sample(msgspec.Struct, frozen=True):
    """What the process held after so many jobs."""

    jobs: int
    resident: int
    tasks: int
    threads: int
    descriptors: int


def sample(jobs: int) -> Sample:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Sample(
        jobs, pages * resource.getpagesize(), len(asyncio.all_tasks()), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    )


def slope(points: Sequence[Sample], what: str) -> float:
    """How much of it a job adds, by the line through the last nine tenths."""
    later = points[len(points) // 10 :]
    line = statistics.linear_regression([point.jobs for point in later], [getattr(point, what) for point in later])
    return line.slope


async def full_queue(submits: int) -> list[Sample]:
    """Submits as fast as they go into a queue that is full nearly all the time."""
    points: list[Sample] = []
    async with cabrank.Dispatcher(store="memory://", max_workers=1, max_queue=1_000, settings=SETTINGS) as dispatcher:
        for number in range(submits):
            await dispatcher.submit(who.suspends, number)
            if (number + 1) % (submits // SAMPLES) == 0:
                points.append(sample(number + 1))
        await dispatcher.join()
    return points


async def soak(jobs: int) -> list[Sample]:
    """Jobs that return, fail, suspend, run on threads, with results that are asked for and with handles that are dropped."""
    points: list[Sample] = []
    async with cabrank.Dispatcher(app, store="memory://", max_workers=16, settings=SETTINGS) as dispatcher:
        done = 0
        while done < jobs:
            await _one_round(dispatcher, done)
            done += ROUND
            if done % max(ROUND, jobs // SAMPLES // ROUND * ROUND) == 0:
                gc.collect()
                points.append(sample(done))
    return points


async def _one_round(dispatcher: cabrank.Dispatcher, first: int) -> None:
    part = ROUND // 10
    await dispatcher.submit_many(returns_nothing, range(first, first + 6 * part))
    for number in range(first, first + part):
        await dispatcher.submit(sometimes_fails, number)  # the handle is dropped
    handles = [await dispatcher.submit(sometimes_fails, number) for number in range(first, first + part)]
    for handle in handles:
        await handle.result()
    results = [result async for result in dispatcher.map(on_a_thread, range(first, first + part))]
    assert len(results) == part  # noqa: S101 -- a benchmark that lost jobs measures nothing
    await dispatcher.submit_many(on_a_thread, range(first, first + part))
    await dispatcher.join()


def table(title: str, points: Sequence[Sample]) -> Grid:
    lines: list[Sequence[str]] = []
    for what, scale, form in (("resident", MIB, ".1f"), ("tasks", 1, ".0f"), ("threads", 1, ".0f"), ("descriptors", 1, ".0f")):
        values = [getattr(point, what) / scale for point in points]
        begin = values[len(values) // 10]
        per_million = slope(points, what) * 1e6 / scale
        lines.append((what, f"{begin:{form}}", f"{values[-1]:{form}}", f"{max(values):{form}}", f"{per_million:+.2f}"))
    return Grid(title, ("", "after a tenth", "at the end", "most", "slope for a million jobs"), lines)


def grew(points: Sequence[Sample]) -> list[str]:
    """What grew."""
    found = [what for what in ("tasks", "threads", "descriptors") if round(slope(points, what) * 1e6, 2) > 0]
    return found + (["resident"] if slope(points, "resident") > BYTES_PER_JOB else [])


def main() -> int:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submits", type=int, default=1_000_000, help="into the full queue")
    parser.add_argument("--jobs", type=int, default=5_000_000, help="of the soak")
    parser.add_argument("--markdown", type=Path, help="write the page of the docs there, and a plot beside it")
    options = parser.parse_args()
    tables: list[Grid] = []
    runs: dict[str, list[Sample]] = {}
    for title, run, jobs in (
        (f"{options.submits:,} submits into a full queue of 1,000", full_queue, options.submits),
        (f"{options.jobs:,} jobs of all kinds", soak, options.jobs),
    ):
        began = time.monotonic()
        runs[title] = points = uvloop.run(run(jobs))
        tables.append(table(f"{title} ({time.monotonic() - began:.0f} s)", points))
    growing = {title: what for title, points in runs.items() if (what := grew(points))}
    text = "\n\n".join(f"## {grid.title}\n\n{markdown(grid)}" for grid in tables)
    print(text)
    print("\nNothing grew." if not growing else f"\nGREW: {growing}")
    if options.markdown is not None:
        write(options.markdown, text, runs)
    return 1 if growing else 0


def write(page: Path, text: str, runs: dict[str, list[Sample]]) -> None:
    """The page and its plot, what was on it below its rule kept."""
    drawn = {title.partition(" ")[2]: {float(points[at].jobs): points[at].resident / MIB for at in DRAWN} for title, points in runs.items()}
    page.with_suffix(".svg").write_text(curve("resident size", drawn, x="jobs", y="MiB"), encoding="utf-8")
    intro = (
        f"# What a process holds on to\n\nOne 2-core machine ({processor()}), Python {sys.version.split()[0]}, uvloop. Commit {commit()}."
    )
    put(page, f"{intro}\n\n![resident size]({page.stem}.svg)\n\n{text}")


if __name__ == "__main__":
    sys.exit(main())
