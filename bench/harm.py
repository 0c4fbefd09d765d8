"""What harms the process that runs jobs from within or ends it from outside, at full size: for `bench.faults`."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any

import msgspec

import cabrank
from bench.errors import RoundNotClean
from cabrank.cli.loading import load_app
from cabrank.stores.contract import JobFilter
from tests.faults import program
from tests.server.process import Gate, Server, command, gated
from tests.server.serving import Response, post, serving

Figures = Mapping[str, object]
SERVE = ("serve", "gated.py:app", "--port", "0", "--store", "sqlite:///jobs.db")
HELD = 3  # jobs that run when a signal comes
LONGEST_S = 20.0  # that a slot is waited for
TIMEOUT_S = 0.2
BLOCKED_S = 30.0
SHORT = {"CABRANK_LEASE_S": "8", "CABRANK_RENEW_S": "0.3", "CABRANK_SWEEP_S": "0.1"}

# ----------------------------------------------------------------------------------------------------- SIGTERM, whenever


async def _told(started: Server) -> None:
    started.tell(signal.SIGTERM)
    await started.logged(b"stopping")


async def _idle(started: Server, gate: Gate) -> float:
    del gate
    began = time.monotonic()
    await _told(started)
    return began


async def _busy(started: Server, gate: Gate) -> float:
    await _held(started, gate)
    await _told(started)
    began = time.monotonic()  # the jobs end now
    gate.open()
    return began


async def _twice(started: Server, gate: Gate) -> float:
    await _held(started, gate)
    await _told(started)
    began = time.monotonic()
    started.tell(signal.SIGTERM)
    return began


async def _starting(started: Server, gate: Gate) -> float:
    await gate.came.get()
    await _told(started)
    began = time.monotonic()  # its resource is open now
    gate.open()
    return began


async def _draining(started: Server, gate: Gate) -> float:
    await _held(started, gate)
    wire = await started.connect()
    await wire.send(post("/queues/async/drain?wait_s=60", b""))
    while (await started.ask(post("/jobs/hold", b'"late"'))).status != HTTPStatus.SERVICE_UNAVAILABLE:
        await gate.came.get()  # it was quicker than the drain
    await _told(started)
    began = time.monotonic()
    gate.open()
    await wire.receive()
    return began


async def _held(started: Server, gate: Gate) -> None:
    for number in range(HELD):
        accepted(await started.ask(post("/jobs/hold", f'"{number}"'.encode())))
    for _ in range(HELD):
        await gate.came.get()


def accepted(answer: Response) -> None:
    """See that it was.

    Raises: RoundNotClean.
    """
    if answer.status != HTTPStatus.ACCEPTED:
        raise RoundNotClean(f"{answer.status}: {answer.body.decode()}")


CASES: Mapping[str, Callable[[Server, Gate], Awaitable[float]]] = {
    "idle": _idle,
    "busy": _busy,
    "twice": _twice,
    "starting": _starting,
    "draining": _draining,
}


def stops(folder: Path, trials: int | None, rng: Random) -> tuple[Figures, bool]:
    """SIGTERM to `cabrank serve`: seconds to its end, from when nothing keeps it any more; jobs lost and failures counted."""
    del rng
    figures: dict[str, object] = {}
    passed = True
    for name in CASES:
        ends = [asyncio.run(_stopped(made(folder / f"{name}{trial}"), name)) for trial in range(trials or 20)]
        exits = sorted(took_s for took_s, _, _ in ends)
        lost, burned = sum(lost for _, lost, _ in ends), sum(burned for _, _, burned in ends)
        figures[name] = {"exit_p50_s": round(median(exits), 3), "exit_most_s": round(exits[-1], 3), "lost": lost, "burned": burned}
        passed = passed and not lost and not burned
    return figures, passed


async def _stopped(folder: Path, name: str) -> tuple[float, int, int]:
    """Seconds, jobs that are neither done nor waiting, failures and crashes that are counted."""
    async with gated(folder) as gate, command(folder, *SERVE, **({"SLOW": "yes"} if name == "starting" else {})) as started:
        if name != "starting":
            await started.listening()
        began = await CASES[name](started, gate)
        status = await started.ended()
        took_s = time.monotonic() - began
    async with cabrank.Intake(store=f"sqlite:///{folder}/jobs.db") as intake:
        pages = [await intake.engine.store.browse(which) for which in (JobFilter(), JobFilter(state=cabrank.State.DONE))]
    records = {one.id: one for page in pages for one in page.records}
    jobs = HELD if name in {"busy", "twice", "draining"} else 0
    kept = sum(one.state in {cabrank.State.DONE, cabrank.State.WAITING} for one in records.values())
    return took_s, max(0, jobs - kept) + (status != 0), sum(one.failures + one.crashes for one in records.values())


def made(folder: Path) -> Path:
    """The folder, made."""
    folder.mkdir()
    return folder


# ------------------------------------------------------------------------------------------------ a job that never returns


ONCE = cabrank.Retry(attempts=1)
OVER = threading.Event()
hanging = cabrank.App()


@hanging.job(timeout_s=TIMEOUT_S, retry=ONCE)
async def swallows() -> None:
    """Does not heed that it is cancelled."""
    while not OVER.is_set():
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue


@hanging.job(timeout_s=TIMEOUT_S, retry=ONCE)
def stays() -> None:
    """Keeps its thread."""
    OVER.wait()


@hanging.job
async def follows() -> None:
    """What a coroutine keeps waiting."""


@hanging.job
def follows_on_thread() -> None:
    """What a thread keeps waiting."""


def hangs(folder: Path, trials: int | None, rng: Random) -> tuple[Figures, bool]:
    """Seconds from the timeout of a job that never returns until the next one has run on the only worker, for each kind."""
    del rng
    figures = {kind: asyncio.run(_slots_again(folder, kind, trials or 5)) for kind in ("async", "thread", "process")}
    return figures, all(its["slot_most_s"] < LONGEST_S for kind, its in figures.items() if kind != "async")  # that one keeps its worker


async def _slots_again(folder: Path, kind: str, trials: int) -> Mapping[str, float]:
    seconds, left_behind = list[float](), 0
    for _ in range(trials):
        app = program.app if kind == "process" else hanging
        async with cabrank.Dispatcher(app, max_workers=1, settings=cabrank.Settings(grace_s=0)) as dispatcher:
            seconds.append(await _slot_again(dispatcher, kind, str(folder / "pid")))
            left_behind += dispatcher.engine.counters.left_behind
            OVER.set()
        OVER.clear()
    return {"slot_p50_s": round(median(seconds), 3), "slot_most_s": round(max(seconds), 3), "left_behind": left_behind, "of": trials}


async def _slot_again(dispatcher: cabrank.Dispatcher, kind: str, where: str) -> float:
    await (await _follow(dispatcher, kind)).result()
    began = time.monotonic()
    match kind:
        case "async":
            await dispatcher.submit(swallows)
        case "thread":
            await dispatcher.submit(stays)
        case _:
            await dispatcher.submit(program.hangs, where)
    following = await _follow(dispatcher, kind)
    try:
        async with asyncio.timeout(LONGEST_S):
            await following.result()
    except TimeoutError:
        return LONGEST_S
    return time.monotonic() - began - TIMEOUT_S


async def _follow(dispatcher: cabrank.Dispatcher, kind: str) -> cabrank.JobHandle[Any]:
    match kind:
        case "async":
            return await dispatcher.submit(follows)
        case "thread":
            return await dispatcher.submit(follows_on_thread)
        case _:
            return await dispatcher.submit(program.works_in)


# ---------------------------------------------------------------------------------------------------- a loop that is blocked


BLOCKING = """
import asyncio, os, socket, time
import cabrank

app = cabrank.App()

@app.job
async def blocks(seconds: float, *, job: cabrank.JobContext = cabrank.context()) -> None:
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(os.environ["GATE"])
        gate.sendall(f"blocks run {job.run}\\n".encode())
    time.sleep(seconds)
"""


def blocked(folder: Path, trials: int | None, rng: Random) -> tuple[Figures, bool]:
    """The loop is blocked for 30 s, nearly four leases: seconds to the words in the log, and runs that another process began."""
    del rng
    seconds, lost = list[float](), 0
    for trial in range(trials or 3):
        place = made(folder / f"{trial}")
        (place / "blocking.py").write_text(BLOCKING, "utf-8")
        alarm_s, again = asyncio.run(_blocked(place))
        seconds.append(alarm_s)
        lost += again
    return {"alarm_most_s": round(max(seconds), 2), "leases_lost": lost, "blocked_s": BLOCKED_S, "of": len(seconds)}, not lost


async def _blocked(folder: Path) -> tuple[float, int]:
    app = load_app(f"{folder / 'blocking.py'}:app")
    work = ("work", "blocking.py:app", "--store", "sqlite:///jobs.db")
    async with gated(folder) as gate, command(folder, *work, **SHORT) as one, command(folder, *work, **SHORT) as other:
        await asyncio.gather(one.logged(b"stop with"), other.logged(b"stop with"))
        async with cabrank.Intake(app, store=f"sqlite:///{folder}/jobs.db") as intake:
            handle = await intake.submit(app.handler("blocks"), BLOCKED_S)
            await gate.came.get()
            began = time.monotonic()
            looks = [asyncio.create_task(each.logged(b"of blocks, run 1; it stands at ")) for each in (one, other)]
            _, waiting = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
            alarm_s = time.monotonic() - began
            for look in waiting:
                look.cancel()
            await handle.result()
            return alarm_s, gate.came.qsize()


# ------------------------------------------------------------------------------------------------------- a bomb of jobs


class Seen(msgspec.Struct):
    """What the neighbour of a bomb saw."""

    latencies_s: list[float]
    refused: int
    waiting_most: int


def bomb(folder: Path, trials: int | None, rng: Random) -> tuple[Figures, bool]:
    """Jobs that each submit two: from POST to start in another queue with and without them, and what their own queue is answered."""
    del rng
    figures: dict[str, object] = {}
    seen = {name: asyncio.run(_beside(made(folder / name), trials or 1_000, bombed=name == "bombed")) for name in ("alone", "bombed")}
    for name, its in seen.items():
        figures[name] = {
            "start_p50_s": round(median(its.latencies_s), 4),
            "start_p99_s": round(quantiles(its.latencies_s, n=100)[98], 4),
            "answered_429": its.refused,
            "waiting_most": its.waiting_most,
        }
    return figures, seen["bombed"].refused > 0 and seen["bombed"].waiting_most <= BOMB_ROOM


BOMB_ROOM = 1_000


async def _beside(folder: Path, jobs: int, *, bombed: bool) -> Seen:
    app, seen, over = cabrank.App(), Seen([], 0, 0), asyncio.Event()

    @app.job(queue="bomb", retry=cabrank.Retry(attempts=1))
    async def splits() -> None:
        for _ in range(0 if over.is_set() else 2):
            try:
                await served.dispatcher.submit(splits)
            except cabrank.QueueFull:
                return

    @app.job(queue="calm")
    async def works(posted_at: float) -> None:
        seen.latencies_s.append(time.monotonic() - posted_at)

    async with serving(app, store=f"sqlite:///{folder}/jobs.db", max_workers=8, max_queue=f"bomb={BOMB_ROOM},calm=10000") as served:
        wire, bomber = await served.connect(), await served.connect()
        for number in range(jobs):
            if bombed and number % 10 == 0:
                seen.refused += (await bomber.ask(post("/jobs/splits", b""))).status == HTTPStatus.TOO_MANY_REQUESTS
                seen.waiting_most = max(seen.waiting_most, (await served.dispatcher.engine.store.tally())["bomb"].waiting)
            accepted(await wire.ask(post("/jobs/works", f"{time.monotonic()}".encode())))
            await asyncio.sleep(0.01)  # the load is one over time
        over.set()
        await served.dispatcher.join()
    return seen
