"""What is measured of each peer, each part on a fresh server."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.peers.environment import Environment
from bench.peers.place import BEGUN, DONE, Place, kill, memory, place
from bench.peers.who import Peer

LEAST, MOST = 500, 1_000_000  # jobs of a run
RUN_S = 10.0  # what a run is to take
PROBE = 500
PACED = 500  # jobs at 100 a second
SLOW = 20  # jobs of a second each
BEFORE_KILL_S = 0.5
AFTER_KILL_S = 60.0
QUIET_S = 45.0  # nothing came for so long: nothing more comes
SETTLED_S = 2.0  # a worker that has started and is idle


class Figures(msgspec.Struct, kw_only=True):
    """Of one peer. Rates in jobs a second, latencies in ms, memory in bytes; `load_average` is
    what the machine had to do in the minute before; `failed` says which part could not be measured, and why.
    """

    load_average: float = 0.0
    one: float = 0.0
    many: float = 0.0
    bulk: float = 0.0
    has_bulk: bool = False
    submitted: int = 0
    drained: int = 0
    drain: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    memory: int = 0
    memory_of_all: int = 0
    begun: int = 0
    done: int = 0
    twice: int = 0
    last_s: float = 0.0
    failed: dict[str, str] = msgspec.field(default_factory=dict[str, str])


RATES = ("one", "many", "bulk", "drain")
LATENCIES = ("p50_ms", "p99_ms")


def best(rounds: Sequence[Figures]) -> Figures:
    """The best of each figure over the rounds: whatever else the machine does makes a figure worse, never better."""
    its = msgspec.structs.replace(rounds[0])
    for name in RATES:
        setattr(its, name, max(getattr(one, name) for one in rounds))
    for name in LATENCIES:
        setattr(its, name, min((at for one in rounds if (at := getattr(one, name))), default=0.0))
    its.drained = max(rounds, key=lambda one: one.drain).drained
    its.load_average = min(one.load_average for one in rounds)
    its.failed = {part: why for part, why in its.failed.items() if all(part in one.failed for one in rounds)}
    return its


def measure(peer: Peer, environment: Environment, scratch: Path, say: Callable[[str], None], *, kill: bool) -> Figures:
    """Everything of one peer; the SIGKILL, which the load of the machine changes little, if `kill` says so."""
    figures = Figures(load_average=os.getloadavg()[0])
    for title, part in (("submits", submits), ("drain", drain), ("latency", latency), ("kill", killed))[: 4 if kill else 3]:
        try:
            with place(peer, environment, scratch) as made:
                part(made, figures)
        except (RuntimeError, subprocess.SubprocessError, OSError) as error:
            figures.failed[title] = str(error)[:200]
        say(f"{peer.name}: {title} {figures.failed.get(title, 'done')}")
    return figures


def submits(made: Place, figures: Figures) -> None:
    """One submitter, 64, and in bulk, with nobody who works."""
    rates: dict[str, float] = {}
    for how in ("one", "many", "bulk"):
        probe = made.submit(how, PROBE)
        count = int(min(MOST, max(LEAST, RUN_S / 4 * PROBE / probe["took_s"])))
        found = made.submit(how, count)
        rates[how] = count / found["took_s"]
        figures.has_bulk, figures.submitted = found["bulk"], max(figures.submitted, count)
    figures.one, figures.many, figures.bulk = rates["one"], rates["many"], rates["bulk"]


def drain(made: Place, figures: Figures) -> None:
    """Jobs wait, then a worker starts: the rate over the last 95 % of them; first few jobs, which tell how many it does in 10 s."""
    count = PROBE
    rate = 0.0
    for _ in range(3):  # few jobs tell little of a rate, for they are done before it is reached
        made.clear()
        made.submit("bulk", count)
        with made.working() as worker:
            moments = [moment for _, moment, _ in made.wait(count, within_s=6 * RUN_S, quiet_s=QUIET_S)]
            figures.memory, figures.memory_of_all = memory(worker)
        if len(moments) < count:
            raise RuntimeError(f"{len(moments)} of {count} jobs were done")
        first = moments[len(moments) // 20]
        rate = (len(moments) - len(moments) // 20) / max(1e-9, (moments[-1] - first) / 1e9)
        figures.drained, figures.drain = count, rate
        wanted = int(min(MOST, max(LEAST, RUN_S * rate)))
        if wanted <= count * 1.5:
            return
        count = wanted


def latency(made: Place, figures: Figures) -> None:
    """From just before the submit to the handler, at 100 jobs a second."""
    made.submit("one", 1)
    with made.working():
        made.wait(1, within_s=30, quiet_s=30)
        time.sleep(SETTLED_S)
        made.clear()
        submitted = made.submit("pace", PACED)["moments"]
        ran = {number: moment for number, moment, _ in made.wait(PACED, within_s=30, quiet_s=20)}
    took = sorted((moment - submitted[number]) / 1e6 for number, moment in ran.items())
    if len(took) < PACED:
        raise RuntimeError(f"{len(took)} of {PACED} jobs were done")
    figures.p50_ms, figures.p99_ms = statistics.median(took), took[int(len(took) * 0.99)]


def killed(made: Place, figures: Figures) -> None:
    """The worker's whole tree is killed half a second into jobs of a second; a new one starts at once and gets a minute."""
    made.submit("slow", SLOW)
    worker = made.start()
    try:
        made.wait(1, within_s=30, quiet_s=30)
        time.sleep(BEFORE_KILL_S)
    finally:
        kill(worker)
    killed_at = time.monotonic_ns()
    figures.begun = len({number for number, _, what in made.records() if what == BEGUN})
    with made.working():
        while time.monotonic_ns() < killed_at + AFTER_KILL_S * 1e9 and len(finished(made)) < SLOW:
            time.sleep(0.05)
        time.sleep(1.0)  # what runs twice has noted it
    done = finished(made)
    figures.done = len(done)
    figures.twice = len([number for number, _, what in made.records() if what == DONE]) - len(done)
    figures.last_s = (max(done.values(), default=killed_at) - killed_at) / 1e9


def finished(made: Place) -> dict[int, int]:
    """The slow jobs that were done, each with the moment."""
    return {number: moment for number, moment, what in made.records() if what == DONE}
