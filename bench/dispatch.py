"""The in-process dispatch rate beside what Python and Go programs use: `python -m bench.dispatch`.

Every round runs every contender of every case once, one after the other; ratios are made within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

import cabrank
from bench import contenders as who
from bench import threaded
from bench.figures import Spread, spread
from bench.go_programs import GoPrograms
from bench.machine import commit, processor, version
from bench.report import Grid, markdown, put, ranged
from bench.svg import bars

MILLION = 1_000_000
Run = Callable[[Any, int, int], Coroutine[Any, Any, float]]
QUEUE, EXECUTOR, GO = "asyncio.Queue workers", "ThreadPoolExecutor", "Go original"
MANY, ONE = "cabrank submit_many", "cabrank submit"
OURS, OUR_EXECUTOR = "cabrank threads", "cabrank DispatcherExecutor"


class Way(NamedTuple):
    """How a contender runs jobs, and which share of a case's jobs it is given: slow ones would take minutes for all."""

    run: Run
    share: float = 1.0


class Case(NamedTuple):
    """One kind of job on so many workers. Ratios are to the contender named `against`."""

    title: str
    job: Any
    workers: int
    jobs: int
    ways: Mapping[str, Way]
    against: str


class Sample(NamedTuple):
    """One run: jobs/s, and the CPU of the process for one job in µs (0 where it was another process)."""

    rate: float
    cpu_us: float


class About(NamedTuple):
    """What the page of a run says besides its figures: the packages whose versions it names, the cases that are drawn."""

    title: str
    packages: Sequence[str]
    plots: Sequence[str]
    method: str


Samples = dict[tuple[str, str], list[Sample]]
COROUTINES = {
    MANY: Way(who.submit_many),
    ONE: Way(who.submit),
    f"{MANY}, no app": Way(who.submit_many_bare),
    f"{ONE}, no app": Way(who.submit_bare),
    QUEUE: Way(who.queue_workers),
    "task + semaphore": Way(who.semaphore, 0.3),
    "aiojobs": Way(who.scheduler, 0.1),
    "anyio streams": Way(who.streams, 0.1),
}
SHORT = {name: COROUTINES[name] for name in (MANY, QUEUE)}
CALLS = {EXECUTOR: Way(threaded.pool_of, 0.1)}
THREADS = {
    OURS: Way(threaded.submit_results),
    OUR_EXECUTOR: Way(threaded.our_executor),
    EXECUTOR: Way(threaded.executor),
    "threads, no pool": Way(threaded.alone),
}


def _cases() -> list[Case]:
    sizes = (8, 100, 1_000)
    cases: list[Case] = []
    for job in (who.NOOP, who.MICROSECOND, who.SUSPENDS):
        ways = COROUTINES if job.call is None else COROUTINES | CALLS
        cases += [Case(f"{job.title}, {size:,} workers", job, size, MILLION, ways, QUEUE) for size in sizes]
    cases.append(Case("sleeps 10 ms, 1,000 workers, 100,000 jobs", who.SLEEPS, 1_000, 100_000, SHORT, QUEUE))
    for title, call, size, jobs in (
        ("no-op", threaded.noop, 8, 50_000),
        ("no-op", threaded.noop, 100, 50_000),
        ("sleeps 1 ms", threaded.sleeps, 8, 5_000),
        ("sleeps 1 ms", threaded.sleeps, 100, 30_000),
    ):
        cases.append(Case(f"threads: {title}, {size} threads", call, size, jobs, THREADS, EXECUTOR))
    return cases


CASES = _cases()
ABOUT = About(
    "Dispatch in the process",
    packages=("uvloop", "aiojobs", "anyio"),
    plots=("no-op, 100 workers", "suspends once, 100 workers", "threads: no-op, 8 threads", "threads: sleeps 1 ms, 100 threads"),
    method="""cabrank runs handlers of an app with a retry policy, with a bound, counters, and a subscriber to its
events; *no app*: the bare function. Ratios are made within a round.""",
)


def measure(way: Way, case: Case, part: float) -> Sample:
    """One run in this process, of a part of the case's jobs."""
    count = max(case.workers, int(case.jobs * way.share * part))
    gc.collect()
    began = time.process_time()
    took_s = uvloop.run(way.run(case.job, count, case.workers))
    return Sample(count / took_s, (time.process_time() - began) / count * 1e6)


def run_round(samples: Samples, cases: Sequence[Case], part: float, go: GoPrograms) -> None:
    """Every contender of every case once."""
    for case in cases:
        whole = case.job is who.SLEEPS  # what is asked for is a time for so many
        for name, way in case.ways.items():
            samples.setdefault((case.title, name), []).append(measure(way, case, 1.0 if whole else part))
        for name in go.commands if case.job is who.NOOP else ():
            rate = go.rate(name, int(case.jobs * part), case.workers)
            samples.setdefault((case.title, name), []).append(Sample(rate, 0.0))


def ratio(samples: Samples, title: str, name: str, against: str) -> Spread:
    """How many times as fast, within each round."""
    pairs = zip(samples[title, name], samples[title, against], strict=True)
    return spread(one.rate / other.rate for one, other in pairs)


def grids(samples: Samples, cases: Sequence[Case]) -> list[Grid]:
    """A table for each case."""
    tables: list[Grid] = []
    for case in cases:
        lines: list[Sequence[str]] = []
        for (title, name), its in samples.items():
            if title == case.title:
                cpu = statistics.median(one.cpu_us for one in its)
                rates = ranged(spread(one.rate for one in its), ",.0f")
                times = ranged(ratio(samples, title, name, case.against), ".2f")
                lines.append((name, rates, times, f"{cpu:.2f}" if cpu else "-"))
        tables.append(Grid(case.title, ("contender", "jobs/s", f"x {case.against}", "CPU µs/job"), lines))
    return tables


def musts(samples: Samples) -> Grid:
    """What was asked for, and what this run reached."""
    lines: list[Sequence[str]] = []

    def must(what: str, title: str, name: str, against: str, least: float) -> None:
        if (title, name) in samples and (title, against) in samples:
            found = ratio(samples, title, name, against)
            lines.append((f"{what}: ≥ {least:g} x {against}", f"{ranged(found, '.2f')} x", _met(found.median >= least)))

    for against in (GO, QUEUE):
        must("no-op, `submit_many`, 100 workers", "no-op, 100 workers", MANY, against, 2)
        must("no-op, `submit` with its handle, 100 workers", "no-op, 100 workers", ONE, against, 0.7)
    must("suspends once, 100 workers", "suspends once, 100 workers", MANY, QUEUE, 1.2)
    for case in CASES:
        if case.against == EXECUTOR:
            for name in (OURS, OUR_EXECUTOR):
                must(f"{case.title}, {name.removeprefix('cabrank ')}", case.title, name, EXECUTOR, 2)
        if case.job is who.SLEEPS and (case.title, MANY) in samples:
            took = spread(case.jobs / one.rate for one in samples[case.title, MANY])
            lines.append(
                ("100,000 jobs of `sleep(10 ms)` on 1,000 workers: ≤ 1.08 s", f"{ranged(took, '.2f')} s", _met(took.median <= 1.08))
            )
            must("the same", case.title, MANY, QUEUE, 1)
    return Grid("What was asked for", ("must", "reached", "met"), lines)


def _met(met: bool) -> str:  # noqa: FBT001 -- a fact
    return "yes" if met else "no"


async def latency(count: int) -> str:
    """Start latencies of an idle pool: cabrank's, and that of a worker on an `asyncio.Queue`."""
    async with cabrank.Dispatcher(max_workers=8) as dispatcher:

        async def begins(started: asyncio.Future[float]) -> None:
            started.set_result(time.perf_counter())

        async def submit(started: asyncio.Future[float]) -> None:
            await dispatcher.submit(begins, started)

        await who.start_latencies(submit, count // 10)
        ours = sorted(await who.start_latencies(submit, count))
    queue: asyncio.Queue[asyncio.Future[float]] = asyncio.Queue()

    async def worker() -> None:
        while True:
            (await queue.get()).set_result(time.perf_counter())

    async with asyncio.TaskGroup() as group:
        one = group.create_task(worker())
        await who.start_latencies(queue.put, count // 10)
        theirs = sorted(await who.start_latencies(queue.put, count))
        one.cancel()
    said = [f"p50 {its[count // 2] * 1e6:.0f} µs, p99 {its[count * 99 // 100] * 1e6:.0f} µs" for its in (ours, theirs)]
    return f"Start latency of an idle pool, {count:,} submits: cabrank {said[0]}; asyncio.Queue worker {said[1]}."


def blocking(rounds: int, jobs: int) -> Grid:
    """What a submit costs threads that have no event loop."""
    lines: list[Sequence[str]] = []
    for threads in (1, 8):
        rates = spread(jobs / threaded.blocking(who.NOOP, jobs, threads) for _ in range(rounds))
        lines.append((f"{threads}", ranged(rates, ",.0f")))
    return Grid("`cabrank.blocking`: `submit` of no-op coroutines in memory", ("threads that submit", "submits/s"), lines)


def main() -> int:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=MILLION, help="no-op jobs of a run; other cases take a share")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose title begins so")
    parser.add_argument("--markdown", type=Path, help="write the page of the docs there, and plots beside it")
    options = parser.parse_args()
    samples: Samples = {}
    cases = [case for case in CASES if case.title.startswith(options.only)]
    load = f"load average before {os.getloadavg()[0]:.1f}"
    with tempfile.TemporaryDirectory() as folder:
        go = GoPrograms(Path(folder))
        for number in range(options.rounds):
            run_round(samples, cases, options.jobs / MILLION, go)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    facts = [f"Not here: {missing}." for missing in go.missing]
    tables = [musts(samples), *grids(samples, cases)]
    if not options.only:
        facts.append(uvloop.run(latency(10_000)))
        tables.append(blocking(options.rounds, options.jobs // 20))
    text = "\n\n".join([*facts, *(f"## {grid.title}\n\n{markdown(grid)}" for grid in tables)])
    print(text)
    if options.markdown is not None:
        how = f"{options.rounds} rounds of {options.jobs:,} no-op jobs (other cases, and slow contenders, a share of it); {load}"
        write(options.markdown, ABOUT, text, samples, how)
    return 0


def write(page: Path, about: About, text: str, samples: Samples, how: str) -> None:
    """The page, what was on it below its rule kept, and its plots."""
    shown: list[str] = []
    for number, title in enumerate(about.plots):
        rates = {name: statistics.median(one.rate for one in its) for (case, name), its in samples.items() if case == title}
        plot = page.with_name(f"{page.stem}-{number + 1}.svg")
        plot.write_text(bars(f"{title}: jobs/s", rates), encoding="utf-8")
        shown.append(f"![{title}]({plot.name})")
    versions = ", ".join(f"{name} {version(name)}" for name in about.packages)
    taken = f"One 2-core machine ({processor()}), Python {sys.version.split()[0]}, {versions}; {how}; medians, lowest and highest."
    put(page, "\n\n".join([f"# {about.title}", f"{taken} Commit {commit()}.", about.method, *shown, text]))


if __name__ == "__main__":
    sys.exit(main())
