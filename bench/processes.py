"""Process workers beside the pools that Python programs use: `python -m bench.processes`.

Every round runs every contender of every case once, one after the other; ratios are made within a round.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from bench import pools as who
from bench import threaded
from bench.dispatch import About, Case, Sample, Samples, Way, blocking, grids, ratio, write
from bench.report import Grid, markdown, ranged

POOL, THREAD_POOL = "ProcessPoolExecutor", "ThreadPoolExecutor"
MANY, ONE, BARE = "cabrank submit_many", "cabrank submit", "cabrank submit, isolated"
OURS, THREADS, BATCHES = "cabrank DispatcherExecutor", "cabrank DispatcherExecutor threads", "cabrank batch handler"
UNCHUNKED: Mapping[str, Way] = {
    MANY: Way(who.submit_many, 2),
    ONE: Way(who.submit, 2),
    BARE: Way(who.submit_isolated, 2),
    OURS: Way(who.our_executor, 2),
    POOL: Way(who.executor, 0.5),
    "multiprocessing.Pool": Way(who.pool),
    "loky": Way(who.loky, 0.2),
    "mpire": Way(who.mpire, 0.5),
}
CHUNKED: Mapping[str, Way] = {
    BATCHES: Way(who.batches),
    OURS: Way(who.our_executor_chunked),
    POOL: Way(who.executor_chunked),
    "multiprocessing.Pool": Way(who.pool_chunked),
    "loky": Way(who.loky_chunked),
    "mpire": Way(who.mpire_chunked),
}
ALIKE = {name: Way(way.run) for name, way in UNCHUNKED.items()}
IN_THREADS: Mapping[str, Way] = {THREADS: Way(threaded.our_executor), THREAD_POOL: Way(threaded.executor)}
NOOP, SPINS = "no-op, unchunked", "1 ms of CPU, unchunked"
CASES = (
    Case(NOOP, who.noop, 2, 20_000, UNCHUNKED, POOL),
    Case(SPINS, who.spins, 2, 1_000, ALIKE, POOL),
    Case(f"no-op, chunks of {who.CHUNK:,}", who.noop, 2, 200_000, CHUNKED, POOL),
    Case("1 ms of CPU, chunks of 20", who.spins, 2, 1_000, CHUNKED, POOL),
    Case("threads: no-op, 8 threads", threaded.noop, 8, 20_000, IN_THREADS, THREAD_POOL),
)
ABOUT = About(
    "Process workers",
    packages=("loky", "mpire", "uvloop"),
    plots=(NOOP, SPINS),
    method="""Two worker processes each, started before the clock. *submit* asks for each result, as the pools do; the handlers are
of an app, their payloads JSON; *isolated* is the bare function, pickled. CPU is of all processes, their
start included. Ratios are made within a round.""",
)


def _cpu_s() -> float:
    """CPU of this process and of those below it that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(its.ru_utime + its.ru_stime for its in used)


def measure(way: Way, case: Case, part: float) -> Sample:
    """One run, of a part of the case's jobs."""
    count = max(case.workers, int(case.jobs * way.share * part))
    gc.collect()
    began = _cpu_s()
    took_s = uvloop.run(way.run(case.job, count, case.workers))
    return Sample(count / took_s, (_cpu_s() - began) / count * 1e6)


def musts(samples: Samples) -> Grid:
    """What was asked for, and what this run reached."""
    lines: list[Sequence[str]] = []
    asked = [(title, name, POOL) for title in ABOUT.plots for name in (MANY, ONE, BARE, OURS)]
    for title, name, against in [*asked, (CASES[-1].title, THREADS, THREAD_POOL)]:
        if (title, name) in samples:
            found = ratio(samples, title, name, against)
            lines.append((f"{title}, {name}: ≥ 2 x {against}", f"{ranged(found, '.2f')} x", "yes" if found.median >= 2 else "no"))
    return Grid("What was asked for", ("must", "reached", "met"), lines)


def main() -> int:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", type=float, default=1.0, help="of the jobs of each run")
    parser.add_argument("--only", default="", help="cases whose title begins so")
    parser.add_argument("--markdown", type=Path, help="write the page of the docs there, and plots beside it")
    options = parser.parse_args()
    samples: Samples = {}
    cases = [case for case in CASES if case.title.startswith(options.only)]
    load = f"load average before {os.getloadavg()[0]:.1f}"
    for number in range(options.rounds):
        for case in cases:
            for name, way in case.ways.items():
                samples.setdefault((case.title, name), []).append(measure(way, case, options.part))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    tables = [musts(samples), *grids(samples, cases)]
    if not options.only:
        tables.append(blocking(options.rounds, 20_000))
    text = "\n\n".join(f"## {grid.title}\n\n{markdown(grid)}" for grid in tables)
    print(text)
    if options.markdown is not None:
        write(options.markdown, ABOUT, text, samples, f"{options.rounds} rounds; {load}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
