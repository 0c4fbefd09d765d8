"""Open-loop overload: `python -m bench.overload`. What the server takes, refuses and loses when more is offered than it can do.

Jobs of a known length on a few workers make the capacity, which is measured first; the queue holds half a second of work. Requests come
by a Poisson schedule that waits for nothing, and all times count from the schedule, so a slow answer hides none behind it. Who is refused
comes again, as clients do; of two tenants one sends ten times as much as the other.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import quantiles
from textwrap import fill
from urllib.request import urlopen

import msgspec
import uvloop

from bench import svg
from bench.open_loop import ACCEPTED, REFUSED, RETRIES, SHARES, Load
from bench.process import cpu_s

PORT = re.compile(rb" on http://127\.0\.0\.1:(\d+)")
FACTORS = (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
WORKERS, RUN_S, HOLD_S, PATIENCE_S = 8, 0.01, 0.5, 1.0
LOOK_S = 0.5
REFUSALS = "429 p50 / p99 / p99 from sending, ms | sent late p99 ms | CPU server / generator"
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
    """What was seen while so much was offered. Shares are of the capacity; milliseconds count from the schedule.

    `offered` are requests by the schedule, `again` those that a client sent once more after a refusal. By tenant, the loud one first:
    `served` is the share of its requests that was taken on in the end, `tenant_p99_ms` how late a 202 came. `late` are answers that came
    after the clients' patience, and those that were neither 202 nor 429. `lag_p99_ms` is how late the load generator sent, `cpu` what it
    and the server used, in cores.
    """

    load: float
    offered: int
    again: int
    accepted: int
    refused: int
    late: int
    goodput: float
    throughput: float
    accept_p50_ms: float
    accept_p99_ms: float
    refusal_p50_ms: float
    refusal_p99_ms: float
    refusal_after_sending_p99_ms: float
    lag_p99_ms: float
    cpu: tuple[float, float]
    served: list[float]
    tenant_p99_ms: list[float]
    depth: int
    memory_mb: float


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
        with urlopen(f"http://127.0.0.1:{self.port}/queues/async") as answer:  # on another thread while load is offered
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


class Watch:
    """Looks at the server once in a while: how much memory it has, how many jobs wait or run."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.memory_mb = 0.0
        self.depth = 0

    def begin(self) -> None:
        """A step begins."""
        self.memory_mb, self.depth = 0.0, 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.memory_mb = max(self.memory_mb, self._server.memory_mb())
            self.depth = max(self.depth, await asyncio.to_thread(self._server.waiting))
            await asyncio.sleep(LOOK_S)


def measure_capacity(seconds: float) -> float:
    """Jobs a second that end while more wait than can start."""

    async def overfill(port: int) -> None:
        load = Load(Random(0))
        await load.connect(port)
        await load.offer(1.5 * WORKERS / RUN_S, seconds)
        await load.end()

    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), 1_000_000)
        try:
            uvloop.run(overfill(server.port))
            ends = sorted(ended_at for _, _, ended_at in server.done())
            half = ends[len(ends) // 4 :]
            return len(half) / (half[-1] - half[0])
        finally:
            server.close()


class Seen(msgspec.Struct):
    """What a whole run showed. `began_at` has the moment of each step, `looks` its highest depth and memory, `cpu` what generator and
    server used of a core.
    """

    load: Load
    began_at: list[float]
    looks: list[tuple[int, float]]
    cpu: list[tuple[float, float]]


async def offer_all(server: Server, capacity: float, seconds: float, seed: int) -> Seen:
    """One step after another, without a pause between them."""
    load, watch = Load(Random(seed)), Watch(server)
    seen = Seen(load, [], [], [])
    gc.disable()  # a look through all that is kept here would make what comes meanwhile late, and nothing here is a cycle
    await load.connect(server.port)
    watching = asyncio.create_task(watch.run())
    for factor in (*FACTORS, FACTORS[0]):
        watch.begin()
        seen.began_at.append(time.time())
        used = cpu_s("self"), cpu_s(server.process.pid)
        await load.offer(factor * capacity, seconds)
        seen.cpu.append((round((cpu_s("self") - used[0]) / seconds, 2), round((cpu_s(server.process.pid) - used[1]) / seconds, 2)))
        seen.looks.append((watch.depth, round(watch.memory_mb, 1)))
        print(f"offered {factor:g}: {sum(load.offered[-1]):,}", flush=True)
    watching.cancel()
    await load.end()
    return seen


def steps_of(seen: Seen, done: Sequence[tuple[int, float, float]], capacity: float, seconds: float) -> list[Step]:
    """The figures of each step."""
    steps: list[Step] = []
    for number, factor in enumerate((*FACTORS, FACTORS[0])):
        answers = [answer for answer in seen.load.answers if answer.request.step == number]
        accepted = [answer for answer in answers if answer.status == ACCEPTED]
        refused = [answer for answer in answers if answer.status == REFUSED]
        offered = seen.load.offered[number]
        by_tenant = [[answer.took_s for answer in accepted if answer.request.tenant == tenant] for tenant in range(len(SHARES))]
        began_at = seen.began_at[number] + HOLD_S
        ended = [(sent_at, at) for _, sent_at, at in done if began_at <= at < began_at - HOLD_S + seconds]
        share = 1 / (seconds - HOLD_S) / capacity
        accept, refusal = _percentiles_ms([answer.took_s for answer in accepted]), _percentiles_ms([answer.took_s for answer in refused])
        steps.append(
            Step(
                load=factor,
                offered=sum(offered),
                again=len(answers) - sum(offered),
                accepted=len(accepted),
                refused=len(refused),
                late=sum(answer.took_s > PATIENCE_S or answer.status not in {ACCEPTED, REFUSED} for answer in answers),
                goodput=round(sum(at - sent_at <= PATIENCE_S for sent_at, at in ended) * share, 3),
                throughput=round(len(ended) * share, 3),
                accept_p50_ms=accept[0],
                accept_p99_ms=accept[1],
                refusal_p50_ms=refusal[0],
                refusal_p99_ms=refusal[1],
                refusal_after_sending_p99_ms=_percentiles_ms([answer.answered_s for answer in refused])[1],
                lag_p99_ms=_percentiles_ms([answer.took_s - answer.answered_s for answer in answers])[1],
                cpu=seen.cpu[number],
                served=[round(len(took) / max(1, many), 3) for took, many in zip(by_tenant, offered, strict=True)],
                tenant_p99_ms=[_percentiles_ms(took)[1] for took in by_tenant],
                depth=seen.looks[number][0],
                memory_mb=seen.looks[number][1],
            )
        )
    return steps


def run(capacity: float, seconds: float, seed: int) -> tuple[list[Step], float, int]:
    """The steps, the seconds to normal after the last one, and how many acknowledged jobs never ran."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), max(WORKERS, round(capacity * HOLD_S)))
        try:
            seen = uvloop.run(offer_all(server, capacity, seconds, seed))
            server.emptied()
            done = server.done()
        finally:
            server.close()
    steps = steps_of(seen, done, capacity, seconds)
    for step in steps:
        print(msgspec.json.encode(step).decode(), flush=True)
    down_at = seen.began_at[-1]
    late = [at for _, sent_at, at in done if sent_at >= down_at and at - sent_at > HOLD_S / 5 + RUN_S]
    ran = {number for number, _, _ in done}
    lost = {answer.request.number for answer in seen.load.answers if answer.status == ACCEPTED} - ran
    return steps, round(max(late, default=down_at) - down_at, 2), len(lost)


def jain(shares: Sequence[float]) -> float:
    """How alike they are: 1 if all are the same, 1/n if one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)) if any(shares) else 1.0


def tenants_part(steps: list[Step]) -> list[str]:
    """What the page says of the two tenants."""
    tenants = [
        f"| {step.load:g} | {step.served[0]:.2f} | {step.served[1]:.2f} | {jain(step.served):.3f} "
        f"| {step.tenant_p99_ms[0]:.1f} | {step.tenant_p99_ms[1]:.1f} |"
        for step in steps
    ]
    return [
        "## Two tenants",
        "",
        f"One sends {SHARES[0]} times as much as the other, into the same queue. There are no quotas yet, so both are refused alike:",
        "*served* is the share of a tenant's jobs that was taken on in the end, with Jain's index of the two.",
        "",
        "| load | served, loud | served, quiet | Jain | 202 p99 ms, loud | 202 p99 ms, quiet |",
        "|---|---|---|---|---|---|",
        *tenants,
    ]


def about_of(capacity: float, seconds: float) -> str:
    """How the figures were taken."""
    return (
        f"Open-loop Poisson arrivals at one server, `sqlite:///`, {WORKERS} workers, jobs of {RUN_S * 1000:g} ms, a queue of {HOLD_S:g} s "
        f"of work, {seconds:g} s a step, one straight after another; made by `python -m bench.overload`. One 2-core machine, load "
        f"generator on it. Capacity, measured first: {capacity:,.0f} jobs/s. A client that is refused comes again after `Retry-After`, "
        f"up to {RETRIES} times; these come on top of the load. Goodput counts jobs that ended within {PATIENCE_S:g} s of their scheduled "
        "request; it, throughput and load are shares of the capacity. Milliseconds count from the scheduled moment. Late are answers "
        f"after more than {PATIENCE_S:g} s, and any but 202 and 429. *Sent late* is by how much the load "
        "generator missed its schedule. CPU is in cores. Depth is the most that waited or ran, memory the most resident."
    )


def page(steps: list[Step], capacity: float, normal_s: float, lost: int, seconds: float) -> str:
    """The page of the docs."""
    rows = [
        f"| {step.load:g} | {step.offered:,} | {step.again:,} | {step.accepted:,} | {step.refused:,} | {step.late:,} "
        f"| {step.goodput:.2f} | {step.throughput:.2f} | {step.accept_p50_ms:.1f} / {step.accept_p99_ms:.1f} "
        f"| {step.refusal_p50_ms:.1f} / {step.refusal_p99_ms:.1f} / {step.refusal_after_sending_p99_ms:.1f} | {step.lag_p99_ms:.1f} "
        f"| {step.cpu[1]:.2f} / {step.cpu[0]:.2f} | {step.depth:,} | {step.memory_mb:.0f} |"
        for step in steps
    ]
    over = [step for step in steps if step.load >= 1]
    about = about_of(capacity, seconds)
    head = f"load | offered | again | accepted | refused | late | goodput | throughput | 202 p50 / p99 ms | {REFUSALS} | depth | MB"
    return "\n".join(
        [
            "# Overload",
            "",
            fill(about, 140),
            "",
            f"| {head} |",
            "|---" * 14 + "|",
            *rows,
            "",
            f"- Goodput from load 1 on: {min(step.goodput for step in over):.2f} or more.",
            f"- Refusals: p99 at most {max(step.refusal_p99_ms for step in steps):.1f} ms.",
            f"- Memory: {steps[0].memory_mb:.0f} MB in the first step, {steps[-1].memory_mb:.0f} MB in the last.",
            f"- Acknowledged and never run: {lost}.",
            f"- After the last step down, when those who were refused before still come again, jobs were late for {normal_s:g} s.",
            "",
            "![Goodput and throughput by load](overload.svg)",
            "",
            *tenants_part(steps),
            "",
        ]
    )


def main() -> None:
    """Measure, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each step")
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
