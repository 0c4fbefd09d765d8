"""The in-process dispatch rate beside what Python and Go programs use: `python -m bench.dispatch`.

Every round runs every contender of every case once, one after the other; ratios are made within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

import cabrank
from bench import contenders as who
from bench.contender import ROOT
from bench.figures import spread
from bench.report import Grid, markdown, ranged
from bench.svg import bars

Way = Callable[[Any, int, int], Coroutine[Any, Any, float]]
MILLION = 1_000_000


class Case(NamedTuple):
    """One kind of job on so many workers; `share` of the jobs of a run. Ratios are to the contender named `against`."""

    title: str
    work: Any
    workers: int
    share: float
    ways: dict[str, Way]
    against: str


class Sample(NamedTuple):
    """One run: jobs/s, and the CPU of the process for one job in µs (0 where it was another process)."""

    rate: float
    cpu_us: float


ASYNC: dict[str, Way] = {
    "cabrank submit_many": who.submit_many,
    "cabrank submit": who.submit,
    "asyncio.Queue workers": who.queue_workers,
    "task + semaphore": who.semaphore,
    "anyio streams": who.streams,
}
SHORT = {name: ASYNC[name] for name in ("cabrank submit_many", "asyncio.Queue workers")}
THREADS: dict[str, Way] = {"cabrank threads": who.submit_results, "ThreadPoolExecutor": who.executor}
QUEUE, EXECUTOR = "asyncio.Queue workers", "ThreadPoolExecutor"
CASES = [
    Case("no-op, 8 workers", who.noop, 8, 1, ASYNC, QUEUE),
    Case("no-op, 100 workers", who.noop, 100, 1, ASYNC, QUEUE),
    Case("no-op, 1,000 workers", who.noop, 1000, 1, ASYNC, QUEUE),
    Case("about 1 µs, 100 workers", who.microsecond, 100, 0.5, ASYNC, QUEUE),
    Case("suspends once, 100 workers", who.suspends, 100, 0.5, ASYNC, QUEUE),
    Case("sleeps 10 ms, 1,000 workers", who.sleeps, 1000, 0.1, SHORT, QUEUE),
    Case("threads: no-op, 8 threads", who.thread_noop, 8, 0.02, THREADS, EXECUTOR),
    Case("threads: no-op, 100 threads", who.thread_noop, 100, 0.02, THREADS, EXECUTOR),
    Case("threads: sleeps 1 ms, 8 threads", who.thread_sleeps, 8, 0.005, THREADS, EXECUTOR),
    Case("threads: sleeps 1 ms, 100 threads", who.thread_sleeps, 100, 0.02, THREADS, EXECUTOR),
]
Samples = dict[tuple[str, str], list[Sample]]


def measure(way: Way, case: Case, jobs: int) -> Sample:
    """One run in this process."""
    count = max(1, int(jobs * case.share))
    gc.collect()
    began = time.process_time()
    took_s = uvloop.run(way(case.work, count, case.workers))
    return Sample(count / took_s, (time.process_time() - began) / count * 1e6)


def go_program(folder: str) -> str | None:
    """The Go original, compiled with defaults; None where there is no Go."""
    beside = Path(sys.executable).with_name("go")
    go = str(beside) if beside.exists() else shutil.which("go")
    if go is None:
        return None
    program = str(Path(folder) / "dispatch")
    subprocess.run([go, "build", "-o", program, "./dispatch"], cwd=ROOT / "bench" / "go", check=True)
    return program


def measure_go(program: str, mode: str, case: Case, jobs: int) -> Sample:
    """One run of the Go program."""
    command = [program, "-mode", mode, "-jobs", str(jobs), "-workers", str(case.workers)]
    taken = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Sample(jobs / (int(taken) / 1e9), 0.0)


def run_round(samples: Samples, jobs: int, go: str | None) -> None:
    """Every contender of every case once."""
    for case in CASES:
        for name, way in case.ways.items():
            samples.setdefault((case.title, name), []).append(measure(way, case, jobs))
        for mode in ("original", "range") if go is not None and case.work is who.noop else ():
            samples.setdefault((case.title, f"Go {mode}"), []).append(measure_go(str(go), mode, case, jobs))


def grids(samples: Samples) -> list[Grid]:
    """A table for each case."""
    tables: list[Grid] = []
    for case in CASES:
        base = samples[case.title, case.against]
        lines: list[Sequence[str]] = []
        for (title, name), its in samples.items():
            if title == case.title:
                ratio = spread(one.rate / other.rate for one, other in zip(its, base, strict=True))
                cpu = statistics.median(one.cpu_us for one in its)
                rates = ranged(spread(one.rate for one in its), ",.0f")
                lines.append((name, rates, ranged(ratio, ".2f"), f"{cpu:.2f}" if cpu else "-"))
        tables.append(Grid(case.title, ("contender", "jobs/s", f"x {case.against}", "CPU µs/job"), lines))
    return tables


async def latency(count: int) -> str:
    """Start latencies of an idle pool: cabrank's, and that of a worker on an `asyncio.Queue`."""
    async with cabrank.Dispatcher(max_workers=8) as dispatcher:

        async def begins(started: asyncio.Future[float]) -> None:
            started.set_result(time.perf_counter())

        async def submit(started: asyncio.Future[float]) -> None:
            await dispatcher.submit(begins, started)

        ours = sorted(await who.start_latencies(submit, count))
    queue: asyncio.Queue[asyncio.Future[float]] = asyncio.Queue()

    async def worker() -> None:
        while True:
            (await queue.get()).set_result(time.perf_counter())

    async with asyncio.TaskGroup() as group:
        one = group.create_task(worker())
        theirs = sorted(await who.start_latencies(queue.put, count))
        one.cancel()
    said = [f"p50 {its[count // 2] * 1e6:.0f} µs, p99 {its[count * 99 // 100] * 1e6:.0f} µs" for its in (ours, theirs)]
    return f"Start latency of an idle pool: cabrank {said[0]}; asyncio.Queue worker {said[1]}."


def resident() -> int:
    """The resident size of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


async def growth(jobs: int) -> str:
    """Resident size before and after so many submits as fast as they go into a full queue."""
    async with cabrank.Dispatcher(max_workers=1, max_queue=1_000) as dispatcher:
        sizes: list[int] = []
        for _ in range(10):
            for number in range(jobs // 10):
                await dispatcher.submit(who.noop, number)
            sizes.append(resident())
        await dispatcher.join()
    grown = (sizes[-1] - sizes[0]) / 2**20
    return f"{jobs:,} submits as fast as they go into a queue of 1,000: resident size {grown:+.1f} MiB from the first tenth to the last."


def main() -> int:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=MILLION, help="no-op jobs of a run; other cases take a share")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the page of the docs there, and a plot beside it")
    options = parser.parse_args()
    samples: Samples = {}
    with tempfile.TemporaryDirectory() as folder:
        go = go_program(folder)
        for number in range(options.rounds):
            run_round(samples, options.jobs, go)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    facts = [uvloop.run(latency(10_000)), uvloop.run(growth(options.jobs))]
    tables = grids(samples)
    text = "\n\n".join([*facts, *(f"## {grid.title}\n\n{markdown(grid)}" for grid in tables)])
    print(text)
    if options.markdown is not None:
        write(options.markdown, text, samples, f"{options.rounds} rounds of {options.jobs:,} no-op jobs (other cases a share of it)")
    return 0


def write(page: Path, text: str, samples: Samples, how: str) -> None:
    """The page, what was on it below its rule kept, and its plot."""
    case = CASES[1].title
    rates = {name: statistics.median(one.rate for one in its) for (title, name), its in samples.items() if title == case}
    page.with_suffix(".svg").write_text(bars(f"{case}: jobs/s", rates), encoding="utf-8")
    rule = "\n<!-- below: written by hand -->\n"
    kept = page.read_text(encoding="utf-8").partition(rule)[2] if page.exists() else ""
    intro = f"# Dispatch in the process\n\nOne 2-core machine, Python {sys.version.split()[0]}, uvloop; {how}; medians, lowest and highest."
    page.write_text(f"{intro}\n\n![{case}]({page.stem}.svg)\n\n{text}\n{rule}{kept}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
