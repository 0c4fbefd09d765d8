"""A SQLite file in which more and more jobs wait: what a claim, a submit and the process's memory cost then.

    python -m bench.backlog                                            # up to 10 million jobs: 6 GB of disk, some minutes
    python -m bench.backlog --most 1000000
    python -m bench.backlog --markdown docs/benchmarks/backlog.md      # writes the page of the docs and its plots

One process fills the file step by step. At each size another one opens it, claims and settles, then a third drains it for some seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

import cabrank
from bench.disk import fsync_p50_s
from bench.figures import p50_p99
from bench.machine import commit, processor
from bench.process import cpu_s, peak_memory
from bench.report import Grid, markdown
from bench.svg import curve
from cabrank.clock import SystemClock
from cabrank.job import Settlement
from cabrank.settings import MIB, Settings
from cabrank.states import Cause
from cabrank.stores import open_url
from cabrank.stores.contract import Terms, Want

SIZES = (1_000, 10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)
PAYLOAD = "x" * 254  # 256 bytes as JSON
CLAIMED = 100  # jobs of one claim
CLAIMS = 300
DRAIN_S = 5.0
DRAINED = 1_000_000  # jobs from which on it is drained: fewer are gone before the time is up
ROOM = Settings(max_queue=20_000_000, keep_done_jobs=100_000)

app = cabrank.App()
done = 0


@app.job(queue="backlog")
async def work(text: str) -> None:
    """Does nothing but count."""
    global done  # noqa: PLW0603 -- a benchmark's own count
    del text
    done += 1


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one process found at one size. Times in ms, CPU in µs, memory in MB."""

    open_ms: float
    claim_p50_ms: float
    claim_p99_ms: float
    claim_cpu_us: float
    claim_memory_mb: float
    drain_per_s: float = 0.0
    drain_memory_mb: float = 0.0
    submit_per_s: float = 0.0
    fill_memory_mb: float = 0.0
    file_mb: float = 0.0


async def fill(url: str, jobs: int) -> None:
    """Submit so many jobs; prints the rate of the last ones and the memory that it took."""
    async with cabrank.Intake(app, store=url, settings=ROOM) as intake:
        last = min(jobs, 100_000)
        await intake.submit_many(work, (PAYLOAD for _ in range(jobs - last)))
        began = time.perf_counter()
        await intake.submit_many(work, (PAYLOAD for _ in range(last)))
        print(f"{last / (time.perf_counter() - began)} {peak_memory('self') / 1e6}")


async def claim(url: str) -> None:
    """Claim and settle, turn by turn: the store alone."""
    began = time.perf_counter()
    store = open_url(url, SystemClock())
    await store.open(Terms(handlers=frozenset({"work"}), settings=ROOM, max_crashes={}))
    open_ms = (time.perf_counter() - began) * 1e3
    want = {"backlog": Want(jobs=CLAIMED, bytes=64 * MIB, idle=CLAIMED)}
    took: list[float] = []
    settlements: list[Settlement] = []
    used = cpu_s("self")
    for number in range(1, CLAIMS + 1):
        began = time.perf_counter()
        turn = await store.turn(number, new=(), settlements=settlements, want=want)
        took.append(time.perf_counter() - began)
        settlements = [Settlement(lease.job.id, lease.run, Cause.RELEASED) for lease in turn.leases]
        assert len(settlements) == CLAIMED  # noqa: S101 -- else it measures something else
    cpu = (cpu_s("self") - used) / CLAIMS / CLAIMED * 1e6
    await store.close()
    p50, p99 = p50_p99(took)
    print(
        msgspec.json.encode(
            Sample(
                open_ms=open_ms,
                claim_p50_ms=p50 * 1e3,
                claim_p99_ms=p99 * 1e3,
                claim_cpu_us=cpu,
                claim_memory_mb=peak_memory("self") / 1e6,
            )
        ).decode()
    )


async def drain(url: str) -> None:
    """Work the backlog off for some seconds, with 100 workers; prints the rate and the memory that it took."""
    async with cabrank.Dispatcher(app, store=url, settings=ROOM, max_workers=100):
        await asyncio.sleep(0.5)
        before, began = done, time.perf_counter()
        await asyncio.sleep(DRAIN_S)
        print(f"{(done - before) / (time.perf_counter() - began)} {peak_memory('self') / 1e6}")
    async with cabrank.Intake(app, store=url, settings=ROOM) as intake:
        print((await intake.engine.store.tally())["backlog"].waiting)


def ask(role: str, url: str, jobs: int = 0) -> str:
    """What a process of its own prints."""
    command = [sys.executable, "-m", "bench.backlog", "--role", role, "--url", url, "--jobs", str(jobs)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure(path: Path, size: int, waiting: int) -> tuple[Sample, int]:
    """The sample at one size, and how many jobs wait behind it."""
    url = f"sqlite:///{path}"
    submit_per_s, fill_memory = map(float, ask("fill", url, size - waiting).split())
    file_mb = sum(file.stat().st_size for file in path.parent.glob("jobs.db*") if file.is_file()) / 1e6
    sample = msgspec.json.decode(ask("claim", url), type=Sample)
    drain_per_s, drain_memory, left = map(float, ask("drain", url).split()) if size >= DRAINED else (0.0, 0.0, size)
    more = {"drain_per_s": drain_per_s, "drain_memory_mb": drain_memory, "submit_per_s": submit_per_s}
    return msgspec.structs.replace(sample, **more, fill_memory_mb=fill_memory, file_mb=file_mb), int(left)


def table(samples: dict[int, Sample]) -> Grid:
    """One line for each size."""
    first = ("jobs waiting", "file MB", "open ms", f"claim {CLAIMED}: p50 ms", "p99 ms", "CPU µs a job", "claimer's memory MB")
    head = (*first, "submit_many jobs/s", "submitter's memory MB", "drain jobs/s", "drainer's memory MB")
    lines: list[Sequence[str]] = [
        (
            f"{size:,}",
            f"{s.file_mb:,.0f}",
            f"{s.open_ms:.1f}",
            f"{s.claim_p50_ms:.2f}",
            f"{s.claim_p99_ms:.2f}",
            f"{s.claim_cpu_us:.1f}",
            f"{s.claim_memory_mb:.0f}",
            f"{s.submit_per_s:,.0f}",
            f"{s.fill_memory_mb:.0f}",
            f"{s.drain_per_s:,.0f}" if s.drain_per_s else "-",
            f"{s.drain_memory_mb:.0f}" if s.drain_per_s else "-",
        )
        for size, s in samples.items()
    ]
    return Grid("", head, lines)


def write(page: Path, samples: dict[int, Sample], fsync_s: float) -> None:
    """The page and its plots."""
    costs: dict[str, dict[float, float]] = {
        "p50": {n: s.claim_p50_ms for n, s in samples.items()},
        "p99": {n: s.claim_p99_ms for n, s in samples.items()},
    }
    memory: dict[str, dict[float, float]] = {
        "claims": {n: s.claim_memory_mb for n, s in samples.items()},
        "submits": {n: s.fill_memory_mb for n, s in samples.items()},
    }
    memory["drains"] = {n: s.drain_memory_mb for n, s in samples.items() if s.drain_per_s}
    plots = {"claim": curve(f"A turn that settles {CLAIMED} jobs and claims {CLAIMED}", costs, x="by jobs that wait", y="ms")}
    plots["memory"] = curve("Peak memory of a process", memory, x="by jobs that wait", y="MB")
    for name, plot in plots.items():
        page.with_name(f"{page.stem}-{name}.svg").write_text(plot, encoding="utf-8")
    page.write_text(
        "# A long backlog\n\n"
        f"One 2-core machine ({processor()}), Python {sys.version.split()[0]}, commit {commit()}, fsync p50 {fsync_s * 1e3:.2f} ms; "
        "one run of `python -m bench.backlog`. Jobs of 256 bytes wait in a SQLite file; at each size a fresh process opens it and takes "
        f"{CLAIMS} turns, each of which hands {CLAIMED} jobs back and claims {CLAIMED}; another drains it with 100 workers for "
        f"{DRAIN_S:.0f} s.\n\n"
        f"{markdown(table(samples))}\n\n"
        f"![claims]({page.stem}-claim.svg)\n\n![memory]({page.stem}-memory.svg)\n",
        encoding="utf-8",
    )


def main() -> int:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="jobs at the end")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the file is made, and removed again")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--role", choices=["fill", "claim", "drain"], help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is not None:
        asyncio.run(
            fill(options.url, options.jobs) if options.role == "fill" else {"claim": claim, "drain": drain}[options.role](options.url)
        )
        return 0
    samples: dict[int, Sample] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder).absolute() / "jobs.db"
        fsync_s, waiting = fsync_p50_s(Path(folder)), 0
        for size in (size for size in SIZES if size <= options.most):
            samples[size], waiting = measure(path, size, waiting)
            print(f"{size:,}: {samples[size]}", file=sys.stderr, flush=True)
    print(markdown(table(samples)))
    if options.markdown is not None:
        write(options.markdown, samples, fsync_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
