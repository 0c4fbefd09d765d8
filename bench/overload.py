"""Open-loop overload: `python -m bench.overload`. What the server takes, refuses and loses when more is offered than it can do.

Jobs of a known length on a few workers make the capacity, which is measured first; the queue holds half a second of work. Requests come
by a Poisson schedule that waits for nothing, and all times count from the schedule, so a slow answer hides none behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import cast
from urllib.request import urlopen

import msgspec
import uvloop

from bench import svg

PORT = re.compile(rb" on http://127\.0\.0\.1:(\d+)")
FACTORS = (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
WORKERS, RUN_S, HOLD_S, PATIENCE_S = 8, 0.01, 0.5, 1.0
CONNECTIONS = 64
APP = f"""
import asyncio, os, time
import cabrank

app = cabrank.App()
written = os.open("done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@app.job
async def work(sent_at: float, number: int) -> None:
    await asyncio.sleep({RUN_S})
    os.write(written, b"%d %.6f %.6f\\n" % (number, sent_at, time.time()))
"""


class Step(msgspec.Struct, kw_only=True):
    """What was seen while so much was offered. Shares are of the capacity; milliseconds count from the schedule."""

    load: float
    offered: int
    accepted: int
    refused: int
    goodput: float
    throughput: float
    accept_p50_ms: float
    accept_p99_ms: float
    refusal_p50_ms: float
    refusal_p99_ms: float
    memory_mb: float


class Connection(asyncio.Protocol):
    """One kept-alive connection. Answers come in the order of the requests."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._asked: deque[tuple[float, int]] = deque()
        self._rest = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = cast(asyncio.Transport, transport)  # of TCP

    def post(self, due_at: float, number: int) -> None:
        """Send one job."""
        body = b'{"sent_at":%.6f,"number":%d}' % (due_at, number)
        self._asked.append((due_at, number))
        self.transport.write(b"POST /jobs/work HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def data_received(self, data: bytes) -> None:
        """Take the answers that are whole."""
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self._rest) < end + 4 + length:
                return
            self._rest = self._rest[end + 4 + length :]
            self._load.answered(int(head[9:12]), *self._asked.popleft())


class Load:
    """What is offered in one step."""

    def __init__(self) -> None:
        self.accepted: list[tuple[int, float]] = []
        self.refused: list[float] = []
        self.others: list[int] = []
        self._posted = -1  # known when all are
        self._all = asyncio.Event()

    def answered(self, status: int, due_at: float, number: int) -> None:
        """Note one answer."""
        took_s = time.time() - due_at
        if status == 202:
            self.accepted.append((number, took_s))
        elif status == 429:
            self.refused.append(took_s)
        else:
            self.others.append(status)
        if self._count == self._posted:
            self._all.set()

    @property
    def _count(self) -> int:
        return len(self.accepted) + len(self.refused) + len(self.others)

    async def offer(self, port: int, rate: float, seconds: float, rng: Random, first: int) -> int:
        """Post by the schedule; how many were posted. Returns when all are answered."""
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(lambda: Connection(self), "127.0.0.1", port) for _ in range(CONNECTIONS)]
        connections = [protocol for _, protocol in made]
        due_at, posted = time.time(), 0
        ends_at = due_at + seconds
        while (due_at := due_at + rng.expovariate(rate)) < ends_at:
            if (left_s := due_at - time.time()) > 0:
                await asyncio.sleep(left_s)
            elif posted % 32 == 0:
                await asyncio.sleep(0)  # it is behind: answers have to be read all the same
            connections[posted % CONNECTIONS].post(due_at, first + posted)
            posted += 1
        self._posted = posted
        if self._count < posted:
            await self._all.wait()
        for connection in connections:
            connection.transport.close()
        return posted


class Server:
    """`cabrank serve` on a SQLite file, and what its jobs wrote."""

    def __init__(self, folder: Path, max_queue: int) -> None:
        self._done = folder / "done"
        (folder / "overloaded.py").write_text(APP, "utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
        command = [sys.executable, "-m", "cabrank", "serve", "overloaded.py:app", "--port", "0", "--store", "sqlite:///jobs.db"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--workers", str(WORKERS), "--max-queue", str(max_queue)], cwd=folder, env=environment, stderr=log
            )
        while not (found := PORT.search((folder / "log").read_bytes())):
            if self.process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.05)
        self.port = int(found[1])

    def done(self) -> list[tuple[int, float, float]]:
        """Number, moment of the schedule and moment of the end of each job that ran."""
        lines = [line.split() for line in self._done.read_text().splitlines()] if self._done.exists() else []
        return [(int(number), float(sent_at), float(ended_at)) for number, sent_at, ended_at in lines]

    def waiting(self) -> int:
        """Jobs that wait or run."""
        with urlopen(f"http://127.0.0.1:{self.port}/queues/async") as answer:
            queue = json.load(answer)
        return int(queue["waiting"]) + int(queue["running"])

    def memory_mb(self) -> float:
        """Resident now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def emptied(self) -> None:
        """Return when nothing is left."""
        while self.waiting():
            time.sleep(0.05)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def _percentiles_ms(seconds: list[float]) -> tuple[float, float]:
    if len(seconds) < 2:
        return 0.0, 0.0
    cuts = quantiles(seconds, n=100)
    return round(cuts[49] * 1000, 2), round(cuts[98] * 1000, 2)


def measure_capacity(seconds: float) -> float:
    """Jobs a second that end while more wait than can start."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), 1_000_000)
        try:
            uvloop.run(Load().offer(server.port, 1.5 * WORKERS / RUN_S, seconds, Random(0), 0))
            ends = sorted(ended_at for _, _, ended_at in server.done())
            half = ends[len(ends) // 4 :]
            return len(half) / (half[-1] - half[0])
        finally:
            server.close()


def run(capacity: float, seconds: float, seed: int) -> tuple[list[Step], float, int]:
    """The steps, the seconds to normal after the last one, and how many acknowledged jobs never ran."""
    with tempfile.TemporaryDirectory() as folder:
        server, rng = Server(Path(folder), max(WORKERS, round(capacity * HOLD_S))), Random(seed)
        acknowledged: set[int] = set()
        steps: list[Step] = []
        posted, began_at = 0, 0.0
        try:
            for factor in (*FACTORS, FACTORS[0]):
                load, began_at = Load(), time.time()
                offered = uvloop.run(load.offer(server.port, factor * capacity, seconds, rng, posted))
                posted += offered
                acknowledged |= {number for number, _ in load.accepted}
                ended = [(sent_at, at) for _, sent_at, at in server.done() if began_at + HOLD_S <= at < began_at + seconds]
                in_time = sum(at - sent_at <= PATIENCE_S for sent_at, at in ended)
                measured_s = seconds - HOLD_S
                step = Step(
                    load=factor,
                    offered=offered,
                    accepted=len(load.accepted),
                    refused=len(load.refused) + len(load.others),
                    goodput=round(in_time / measured_s / capacity, 3),
                    throughput=round(len(ended) / measured_s / capacity, 3),
                    accept_p50_ms=_percentiles_ms([took_s for _, took_s in load.accepted])[0],
                    accept_p99_ms=_percentiles_ms([took_s for _, took_s in load.accepted])[1],
                    refusal_p50_ms=_percentiles_ms(load.refused)[0],
                    refusal_p99_ms=_percentiles_ms(load.refused)[1],
                    memory_mb=round(server.memory_mb(), 1),
                )
                print(msgspec.json.encode(step).decode(), flush=True)
                steps.append(step)
            server.emptied()
            late = [at for _, sent_at, at in server.done() if sent_at >= began_at and at - sent_at > HOLD_S / 5 + RUN_S]
            normal_s = max(late, default=began_at) - began_at
            return steps, round(normal_s, 2), len(acknowledged - {number for number, _, _ in server.done()})
        finally:
            server.close()


def page(steps: list[Step], capacity: float, normal_s: float, lost: int, seconds: float) -> str:
    """The page of the docs."""
    rows = [
        f"| {step.load:g} | {step.offered:,} | {step.accepted:,} | {step.refused:,} | {step.goodput:.2f} | {step.throughput:.2f} "
        f"| {step.accept_p50_ms:g} / {step.accept_p99_ms:g} | {step.refusal_p50_ms:g} / {step.refusal_p99_ms:g} | {step.memory_mb:g} |"
        for step in steps
    ]
    about = (
        f"Open-loop Poisson arrivals at one server, `sqlite:///`, {WORKERS} workers, jobs of {RUN_S * 1000:g} ms, a queue of {HOLD_S:g} s\n"
        f"of work, {seconds:g} s a step; made by `python -m bench.overload`. One 2-core machine, load generator on it. Capacity, measured\n"
        f"first: {capacity:,.0f} jobs/s. Goodput counts jobs that ended within {PATIENCE_S:g} s of their scheduled request; it,\n"
        "throughput and load are shares of the capacity."
    )
    return "\n".join(
        [
            "# Overload",
            "",
            about,
            "",
            "| load | offered | accepted | refused | goodput | throughput | 202, p50 / p99 ms | 429, p50 / p99 ms | memory MB |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"Acknowledged and never run: {lost}. After the last step down jobs were late for {normal_s:g} s.",
            "",
            "![Goodput and throughput by load](overload.svg)",
            "",
        ]
    )


def main() -> None:
    """Measure, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the page there, and its plot beside it")
    asked = parser.parse_args()
    capacity = measure_capacity(min(10.0, asked.seconds))
    print(f"capacity {capacity:,.0f} jobs/s", flush=True)
    steps, normal_s, lost = run(capacity, asked.seconds, asked.seed)
    print(f"lost {lost}, normal after {normal_s} s")
    if asked.markdown:
        asked.markdown.write_text(page(steps, capacity, normal_s, lost, asked.seconds), "utf-8")
        points = {
            "goodput": {step.load: step.goodput for step in steps[:-1]},
            "throughput": {step.load: step.throughput for step in steps[:-1]},
        }
        asked.markdown.with_suffix(".svg").write_text(svg.curve("Goodput under overload", points, x="load", y="share of capacity"), "utf-8")
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()
