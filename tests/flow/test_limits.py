"""Limits from submit to start: over the workers of one process, over processes, over a kill; and what they cost nobody."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import pytest

import cabrank
from tests.flow.limited import KEYS, RUNNING

ROOT = Path(__file__).parents[2]


class Call(msgspec.Struct):
    customer: str
    number: int = 0


class Service:
    """What jobs call: it counts how many do so at once."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[str] = []

    async def call(self, name: str) -> None:
        self.order.append(name)
        self.now[name] += 1
        self.most[name] = max(self.most[name], self.now[name])
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        self.now[name] -= 1


async def test_no_more_of_a_key_run_at_once_than_its_limit_says(store: str) -> None:
    app, service = cabrank.App(), Service()

    @app.job(limit=cabrank.Limit(running=2, key=lambda call: call.customer))
    async def call(call: Call) -> None:
        await service.call(call.customer)

    async with cabrank.Dispatcher(app, store=store, max_workers=8) as dispatcher:
        await dispatcher.submit_many(call, [Call(customer, number) for number in range(20) for customer in "ab"])
        await dispatcher.join()
    assert Counter(service.order) == {"a": 20, "b": 20}
    assert service.most == {"a": 2, "b": 2}, "as many as may, and no more"


async def test_who_is_held_back_holds_no_worker(store: str) -> None:
    """Two workers, a limited handler that never gets further, and others that go by it."""
    app, go = cabrank.App(), asyncio.Event()
    started: asyncio.Queue[int] = asyncio.Queue()

    @app.job(queue="calls", limit=cabrank.Limit(running=1))
    async def slow(number: int) -> None:
        started.put_nowait(number)
        await go.wait()

    @app.job(queue="calls")
    async def free(number: int) -> int:
        return number

    async with cabrank.Dispatcher(app, store=store, max_workers=2) as dispatcher:
        await dispatcher.submit_many(slow, range(50))
        assert await started.get() == 0
        handles = await dispatcher.submit_many(free, range(200))
        assert await asyncio.gather(*(handle.result() for handle in handles)) == list(range(200))
        assert started.empty()
        go.set()
        await dispatcher.join()
    assert started.qsize() == 49


async def test_a_key_with_few_jobs_does_not_wait_behind_one_with_many(store: str) -> None:
    app, service, go = cabrank.App(), Service(), asyncio.Event()

    @app.job(limit=cabrank.Limit(running=100, key=lambda call: call.customer))
    async def call(call: Call) -> None:
        await go.wait()
        await service.call(call.customer)

    async with cabrank.Dispatcher(app, store=store, max_workers=4) as dispatcher:
        await dispatcher.submit_many(call, [Call("busy", number) for number in range(1_000)])
        await dispatcher.submit_many(call, [Call("small", number) for number in range(10)])
        go.set()
        await dispatcher.join()
    last = max(place for place, name in enumerate(service.order) if name == "small")
    assert last < 4 + 4 + 2 * 10, "four ran before it came, then every second start is its"


async def test_starts_come_no_faster_than_the_rate(store: str) -> None:
    app, starts = cabrank.App(), list[float]()

    @app.job(limit=cabrank.Limit(per_s=100, burst=2))
    async def call() -> None:
        starts.append(time.monotonic())

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        began_at = time.monotonic()
        handles = [await dispatcher.submit(call) for _ in range(22)]
        await asyncio.gather(*(handle.result() for handle in handles))
    assert len(starts) == 22
    for number, at in enumerate(starts, 1):
        assert number <= 2 + 100 * (at - began_at) + 0.001


async def test_a_retry_waits_for_the_limit_as_a_first_run_does(store: str) -> None:
    app, service = cabrank.App(), Service()

    @app.job(limit=cabrank.Limit(running=1), retry=cabrank.Retry(attempts=3, base_s=0))
    async def call(*, job: cabrank.JobContext = cabrank.context()) -> int:
        await service.call("all")
        if job.attempt < 3:
            raise ValueError
        return job.attempt

    async with cabrank.Dispatcher(app, store=store, max_workers=4) as dispatcher:
        handles = [await dispatcher.submit(call) for _ in range(5)]
        assert await asyncio.gather(*(handle.result() for handle in handles)) == [3] * 5
    assert service.most == {"all": 1}
    assert len(service.order) == 15


async def test_threads_are_limited_too(store: str) -> None:
    app = cabrank.App()
    now, most = 0, 0

    @app.job(limit=cabrank.Limit(running=1))
    def call() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.002)
        now -= 1

    async with cabrank.Dispatcher(app, store=store, max_workers=4) as dispatcher:
        handles = [await dispatcher.submit(call) for _ in range(10)]
        await asyncio.gather(*(handle.result() for handle in handles))
    assert most == 1


async def test_a_stop_while_jobs_are_held_back_ends(durable: str) -> None:
    app = cabrank.App()
    started = asyncio.Event()

    @app.job(limit=cabrank.Limit(per_s=0.001, burst=1))
    async def call() -> None:
        started.set()

    async with cabrank.Dispatcher(app, store=durable) as dispatcher:
        for _ in range(5):
            await dispatcher.submit(call)
        await started.wait()
    async with cabrank.Intake(app, store=durable) as intake:
        assert (await intake.engine.store.tally())["async"].waiting == 4


async def test_a_key_that_cannot_be_had_is_refused_and_nothing_is_stored(store: str) -> None:
    app = cabrank.App()

    @app.job(limit=cabrank.Limit(running=1, key=lambda call: call.customer.upper))
    async def call(call: Call) -> None: ...

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        with pytest.raises(cabrank.PayloadInvalid, match="the key of its limit"):
            await dispatcher.submit(call, Call("a"))
        with pytest.raises(cabrank.PayloadInvalid, match="the key of its limit"):
            await dispatcher.submit_many(call, [Call("a")])
        await dispatcher.join()


@pytest.mark.timeout(120)
def test_processes_share_a_limit_and_what_a_killed_one_ran_runs_again(tmp_path: Path) -> None:
    jobs = 1_000
    with child(tmp_path, workers=4, jobs=jobs) as doomed:
        announced(doomed)
        with child(tmp_path, workers=len(KEYS) * RUNNING, jobs=0) as survivor:
            announced(survivor)
            while sum(pid == survivor.pid for pid, *_ in runs_of(tmp_path)) < 20:
                assert survivor.poll() is None
                time.sleep(0.005)
            killed_at = time.monotonic()
            doomed.kill()
            doomed.wait()
            assert survivor.wait() == 0

    runs = runs_of(tmp_path)
    assert {(key, number) for _, key, number, _, end in runs if end} == {(key, number) for key in KEYS for number in range(jobs)}
    for key in KEYS:
        moments = [(start, 1) for _, of, _, start, _ in runs if of == key]
        moments += [(end or killed_at, -1) for _, of, _, _, end in runs if of == key]
        counts = list(itertools.accumulate(step for _, step in sorted(moments)))
        assert max(counts) == RUNNING
        after = [count for count, (at, _) in zip(counts, sorted(moments), strict=True) if at > killed_at]
        assert max(after) == RUNNING, "the places of the killed process are free again"


def child(folder: Path, *, workers: int, jobs: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.flow.limited", str(folder), str(workers), str(jobs)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def announced(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"


def runs_of(folder: Path) -> list[tuple[int, str, int, float, float]]:
    """Each run: process, key, number, start, and end or 0."""
    runs: dict[tuple[str, str, str, str], float] = defaultdict(float)
    for line in (folder / "runs").read_text().splitlines():
        pid, key, number, start, *end = line.split()
        runs[pid, key, number, start] += float(end[0]) if end else 0.0
    return [(int(pid), key, int(number), float(start), end) for (pid, key, number, start), end in runs.items()]
