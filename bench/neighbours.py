"""Four processes at one SQLite file: how long until a job starts elsewhere, until its result is back, and until a submit is acknowledged.

    python -m bench.neighbours --seconds 10
    python -m bench.neighbours --markdown docs/benchmarks/neighbours.md    # writes the page of the docs

One process submits and waits, two work, and a fourth is quiet at first and then writes all it can. The moments are those of the machine's
monotonic clock, which its processes share.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import cabrank
from bench.disk import fsync_p50_s
from bench.figures import p50_p99
from bench.machine import commit, processor
from bench.report import Grid, markdown, put
from cabrank.settings import Settings

GAP_S = 0.01  # between two submits: nothing of the one before is under way
WARM_UP_S = 0.5
HEADS = ("what else there is", "jobs", "from → to", "p50 ms", "p99 ms", "longest ms", "asked for")
ASKED = {"submit → ack": "longest ≤ 100", "submit → start elsewhere": "p99 ≤ 5, alone", "end elsewhere → result here": "≤ 20"}

app = cabrank.App()


@app.job(queue="measured")
async def started_at() -> float:
    return time.monotonic()


@app.job(queue="load")
async def load(number: int) -> None:
    del number


async def work(url: str) -> None:
    """A process that works, until its input ends."""
    async with cabrank.Dispatcher(app, store=url, settings=Settings()):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def flood(url: str) -> None:
    """A process that writes all it can, until its input ends."""
    async with cabrank.Intake(app, store=url, max_queue={"load": 5_000}) as intake:
        print("ready", flush=True)
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        submitted = 0
        while not ended.done():
            await asyncio.gather(*(intake.submit(load, number) for number in range(64)))
            submitted += 64
        print(submitted, flush=True)


@contextlib.asynccontextmanager
async def neighbour(role: str, url: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Another process, ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.neighbours", role, url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is not None:
        await process.stdout.readline()
    yield process
    said, _ = await process.communicate(b"")
    if said.strip():
        print(f"    ({role} submitted {int(said):,} jobs)")


async def measure(url: str, seconds: float, title: str) -> Iterator[Sequence[str]]:
    """Submit one job after the other for so long; the lines of the table."""
    acked: list[float] = []
    started: list[float] = []
    told: list[float] = []
    async with cabrank.Intake(app, store=url) as intake:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            submitted_at = time.monotonic()
            handle = await intake.submit(started_at)
            acked.append(time.monotonic() - submitted_at)
            began_at = await handle.result(timeout_s=30)
            returned_at = time.monotonic()
            started.append(began_at - submitted_at)
            told.append(returned_at - began_at)
            await asyncio.sleep(GAP_S)
    return (line(title, name, values) for name, values in zip(ASKED, (acked, started, told), strict=True))


def line(title: str, name: str, took_s: list[float]) -> Sequence[str]:
    """One line of the table."""
    figures = (f"{seconds * 1e3:.2f}" for seconds in (*p50_p99(took_s), max(took_s)))
    return (title, f"{len(took_s):,}", name, *figures, ASKED[name])


async def main(seconds: float, page: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        fsync = f"fsync p50 {fsync_p50_s(Path(folder)) * 1e3:.2f} ms"
        url = f"sqlite:///{folder}/jobs.db"
        async with neighbour("work", url), neighbour("work", url):
            await measure(url, WARM_UP_S, "warm-up")
            lines = [*await measure(url, seconds, "two processes work")]
            async with neighbour("flood", url):
                lines += await measure(url, seconds, "and another writes all it can")
    found = markdown(Grid("", HEADS, lines))
    print(f"{fsync}\n{found}")
    if page is not None:
        put(
            page,
            f"# Several processes at one file\n\nOne 2-core machine ({processor()}), Python {sys.version.split()[0]}, commit {commit()}, "
            f"{fsync}; one run of `python -m bench.neighbours --seconds {seconds:g}`.\n\n"
            "One process submits a job, waits for its result, pauses for 10 ms and goes on; two others work. Then a fourth one submits "
            f"jobs of another queue, 64 at a time, as fast as it can. All share the two cores and the file.\n\n{found}\n",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", nargs="?", choices=["work", "flood"], help="for the neighbours themselves")
    parser.add_argument("url", nargs="?")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each case is measured")
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    roles = {"work": work, "flood": flood}
    asyncio.run(roles[given.role](given.url) if given.role else main(given.seconds, given.markdown))
