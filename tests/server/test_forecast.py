"""What is said of the time to come: a job's place and start, when to come again, and what is refused before it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

import cabrank
from cabrank.errors import DiskFull, IntakeClosed, QueueDrained, QueueFull, StoreUnavailable
from cabrank.server.forecast import HALF_LIFE_S, LATEST_S, LOOK_S, Flow, Forecast
from cabrank.server.fullness import LONGEST_S, Fullness
from cabrank.server.problems import answer_to
from cabrank.settings import load
from cabrank.testing import FakeClock
from tests.server.app import make_app
from tests.server.serving import Served, get, number, post, serving, until
from tests.server.test_answers import told

RUN_S, WORKERS = 0.1, 2
RATE = WORKERS / RUN_S  # jobs a second, by the fake clock
NOTE = b'{"device":"a","count":7}'


class Steady:
    """A dispatcher whose jobs take `RUN_S` each, by a clock that only the test moves."""

    def __init__(self, dispatcher: cabrank.Dispatcher, clock: FakeClock, work: cabrank.Handler[[int], Any], started: list[int]) -> None:
        self.dispatcher = dispatcher
        self.clock = clock
        self.work = work
        self.started = started
        self.submitted = 0
        self.forecast = Forecast(dispatcher)

    async def fill(self, jobs: int) -> None:
        """Submit so many jobs; return when each worker has one."""
        await self.dispatcher.submit_many(self.work, range(jobs))
        self.submitted += jobs
        await until(lambda: len(self.started) == WORKERS)

    async def submit(self, **when: Any) -> int:
        """The number of one job more, which the store has."""
        handle = await self.dispatcher.submit(self.work, -1, **when)
        self.submitted += 1
        await self.dispatcher.engine.handles.caught_up()
        return number(handle.id)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in steps in which each worker ends a job, as long as there are some."""
        for _ in range(round(seconds / RUN_S)):
            begun = min(self.submitted, len(self.started) + WORKERS)
            await self.clock.advance(RUN_S)
            await until(partial(self._begun, begun))

    def _begun(self, jobs: int) -> bool:
        return len(self.started) == jobs


@asynccontextmanager
async def steady(store: str = "memory://", max_queue: int = 10_000) -> AsyncGenerator[Steady]:
    app, clock, started = cabrank.App(), FakeClock(), list[int]()

    @app.job
    async def work(number: int) -> None:
        started.append(number)
        await clock.sleep(RUN_S)

    settings = load({}, store=store, max_workers=WORKERS, max_queue=max_queue)
    async with cabrank.Dispatcher(app, settings=settings, clock=clock, rng=Random(1)) as dispatcher:
        yield Steady(dispatcher, clock, work, started)
        await dispatcher.stop(grace_s=0)


@pytest.mark.parametrize("store", ["memory://", "sqlite"])
async def test_the_start_that_was_told_is_within_a_factor_of_two(store: str, tmp_path: Path) -> None:
    async with steady(f"sqlite:///{tmp_path}/jobs.db" if store == "sqlite" else store) as one:
        await one.fill(200)
        await one.pass_time(3)
        place = await one.forecast.place(await one.submit())
        before = 200 - len(one.started)
        assert place.position is not None
        assert abs(place.position - before) <= WORKERS
        assert place.starts_in_s is not None
        told_at = one.clock.monotonic()
        while -1 not in one.started:
            await one.pass_time(RUN_S)
        took_s = one.clock.monotonic() - told_at
        assert took_s / 2 <= place.starts_in_s <= took_s * 2


async def test_who_goes_first_has_fewer_before_it() -> None:
    async with steady() as one:
        await one.fill(100)
        await one.pass_time(2)
        places: list[int] = []
        for priority in (9, 5, 0):
            place = await one.forecast.place(await one.submit(priority=priority))
            assert place.position is not None
            places.append(place.position)
        assert places[0] == places[1] == 58
        assert places[2] <= WORKERS


async def test_what_nobody_can_know_is_not_told() -> None:
    async with steady() as one:
        await one.dispatcher.pause()
        soon, later = await one.submit(), await one.submit(delay_s=50)
        await one.clock.advance(LOOK_S)
        place = await one.forecast.place(soon)
        assert (place.position, place.starts_in_s) == (0, None)
        place = await one.forecast.place(later)
        assert place.position is None
        assert place.starts_in_s == pytest.approx(50 - LOOK_S)
        place = await one.forecast.place(12345)
        assert (place.position, place.starts_in_s) == (None, None)


def rate_after(*looks: tuple[int, bool]) -> float:
    """The rate after looks a second apart, each with the runs that had ended and whether something waited; 0 if it is not known."""
    flow = Flow()
    for ended, waits in looks:
        flow.look(ended, -ended, 1, waits=waits)
    return flow.rate or 0


def test_a_rate_is_that_of_the_last_seconds_in_which_something_waited() -> None:
    assert rate_after((1010, True)) == 0, "what ended before something waited says nothing"
    measured = ((1010, True), (1030, True))
    assert rate_after(*measured) == 20
    assert rate_after(*measured, (1031, False), (1032, True)) == 20
    faster = [(1030 + 100 * place, True) for place in range(1, round(HALF_LIFE_S) + 1)]
    assert 55 < rate_after(*measured, *faster) < 100


def test_what_left_the_store_counts_where_it_is_more() -> None:
    flow = Flow()
    for look in range(4):
        flow.look(look * 5, look * 50 - 1000, 1, waits=True)
    assert flow.rate == pytest.approx(50)


def again_s(one: Steady, error: Exception) -> set[int]:
    return {one.forecast.answer_to(error).retry_after_s for _ in range(200)}


async def test_when_to_come_again_is_computed_from_the_rate() -> None:
    full, drained = QueueFull("async", "400 of 400 jobs wait"), QueueDrained("async")
    async with steady(max_queue=400) as one:
        assert again_s(one, full) == {1, 2}, "nothing is known yet"
        await one.fill(400)
        await one.pass_time(3)
        waits = (await one.dispatcher.engine.store.tally())["async"].waiting
        assert again_s(one, full) <= set(range(round(waits * 0.2 / RATE * 0.8), round(waits * 0.2 / RATE * 1.2) + 3))
        assert min(again_s(one, drained)) >= waits / RATE * 0.75
        assert max(again_s(one, drained)) <= waits / RATE * 1.25 + 1
        await one.dispatcher.pause()
        await one.clock.advance(LOOK_S)
        assert min(again_s(one, full)) >= LATEST_S * 0.8, "nothing is worked off while it is paused"


async def test_a_server_that_stops_says_how_long_what_runs_takes() -> None:
    async with steady() as one:
        one.dispatcher.pools["async"].queue.measured(1, 15.0)
        assert max(again_s(one, IntakeClosed())) <= 6, "nothing runs"
        await one.fill(WORKERS)
        again = again_s(one, IntakeClosed())
        assert min(again) >= 15
        assert max(again) <= 31
        assert min(again_s(one, StoreUnavailable())) >= 2


async def test_what_surely_finds_no_room_is_refused_for_a_moment() -> None:
    async with steady(max_queue=100) as one:
        full = Fullness(one.forecast, one.clock)
        full.note("async", size=10, bound="100 of 100 jobs wait")
        assert full.refusal("async", 10) is None, "it is not known how fast it is worked off"
        await one.fill(100)
        await one.pass_time(2)
        full.note("async", size=10, bound="100 of 100 jobs wait")
        assert full.refusal("async", 9) is None, "less may find room"
        assert full.refusal("other", 10) is None
        refusal = full.refusal("async", 10)
        assert refusal is not None
        assert refusal.bound == "100 of 100 jobs wait"
        await one.clock.advance(LONGEST_S)
        assert full.refusal("async", 10) is None
        assert not full


async def test_each_full_queue_is_told_of_in_its_own_words() -> None:
    async with steady() as one:
        for _ in range(2):
            for queue, bound in (("async", "4 of 4 jobs wait"), ("async", "5 of 5 jobs wait"), ("thread", "5 of 5 jobs wait")):
                error = QueueFull(queue, bound)
                answer = one.forecast.answer_to(error)
                assert (answer.status, answer.body) == (429, answer_to(error).body)
                assert bound in answer.body.decode()


async def test_a_disk_that_stays_full_is_asked_less_and_less() -> None:
    full = DiskFull("1 MiB is free")
    async with steady() as one:
        assert again_s(one, full) == {1, 2}
        await one.clock.advance(30)
        assert again_s(one, full) <= set(range(24, 37))
        await one.submit()
        assert again_s(one, full) == {1, 2}, "in between there was space"


# ---------------------------------------------------------------------------------------------------------- over HTTP


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app(), grace_s=0) as served:
        yield served


async def test_a_place_is_told_to_who_asks(served: Served) -> None:
    answer = await served.ask(post("/jobs/note?position=true", NOTE))
    assert answer.json().keys() == {"id", "position", "starts_in_s"}
    await served.dispatcher.pause()
    answer = await served.ask(post("/jobs/note?position=true", NOTE))
    assert (answer.status, answer.json()["position"]) == (202, 0)
    for path, place in (("/telemetry", 1), ("/jobs/note/batch", 3)):
        answer = await served.ask(post(f"{path}?position=true", b'[{"device":"a"},{"device":"b"}]'))
        assert answer.json().keys() == {"ids", "position", "starts_in_s"}
        assert answer.json()["position"] == place, "of the first"
    assert (await served.ask(post("/jobs/note/batch?position=true", b"[]"))).json() == {"ids": []}
    assert told(await served.ask(post("/jobs/note/stream?position=true", b""))) == (400, "parameter-unusable")


@pytest.mark.parametrize("store", ["memory", "disk"])
@pytest.mark.parametrize(
    "request_",
    [
        post("/jobs/note", NOTE),
        post("/jobs/note?priority=1", NOTE),
        post("/telemetry", b"[]"),
        post("/jobs/note/batch", b"[]"),
        post("/jobs/note/stream", b""),
    ],
)
async def test_an_acknowledgement_says_what_it_is_worth(store: str, request_: bytes, tmp_path: Path) -> None:
    async with serving(make_app(), store="memory://" if store == "memory" else f"sqlite:///{tmp_path}/jobs.db", grace_s=0) as served:
        answer = await served.ask(request_)
        assert (answer.status, answer.headers["cabrank-durability"]) == (202, store)
        assert "cabrank-durability" not in (await served.ask(get("/healthz"))).headers


@pytest.mark.parametrize("path", ["/jobs/note", "/jobs/note?priority=1", "/telemetry", "/jobs/note/batch"])
@pytest.mark.parametrize("length", [100_000, 900_000])
async def test_a_server_that_stops_refuses_before_the_body_is_read(served: Served, path: str, length: int) -> None:
    served.dispatcher.engine.close_door()
    assert told(await served.ask(post(path, b"", length=length))) == (503, "stopping")


@pytest.mark.parametrize("path", ["/jobs/hold", "/jobs/hold/batch"])
async def test_a_full_queue_refuses_before_the_body_is_read(path: str) -> None:
    app, go = cabrank.App(), asyncio.Event()

    @app.job
    async def hold(text: str) -> None:
        await go.wait()

    clock = FakeClock()
    async with serving(app, clock=clock, max_workers=1, max_queue=1, grace_s=0) as served:
        small, length = post("/jobs/hold", b'""'), 100_000
        while (await served.ask(small)).status == 202:
            pass
        while served.http._reception.forecast.rate("async") is None:  # that nothing ends while something waits
            await clock.advance(LOOK_S)
        await served.ask(small)
        assert told(await served.ask(post(path, b"", length=length))) == (429, "queue-full")
        wire = await served.connect()
        await wire.send(post(path, b"", "Idempotency-Key: k", length=length))
        await wire.send(b'["' + b"x" * (length - 4) + b'"]')  # with a key it is read: its jobs may be there already
        assert (await wire.receive()).status in {422, 429}
        go.set()


async def test_what_other_processes_work_off_is_known_where_jobs_are_posted(tmp_path: Path) -> None:
    """The one worker here is busy for ever, those of another dispatcher on the same file do the work."""
    clock, here, elsewhere, started = FakeClock(), cabrank.App(), cabrank.App(), list[int]()

    @here.job(name="work")
    async def stay(number: int) -> None:
        await asyncio.Event().wait()

    @elsewhere.job
    async def work(number: int) -> None:
        started.append(number)
        await clock.sleep(RUN_S)

    store = f"sqlite:///{tmp_path}/jobs.db"
    async with (
        serving(here, store=store, clock=clock, max_workers=1, grace_s=0) as served,
        cabrank.Dispatcher(elsewhere, settings=load({}, store=store, max_workers=WORKERS, grace_s=0), clock=clock),
    ):
        forecast = served.http._reception.forecast
        assert (await served.ask(post("/jobs/work/batch", b"[" + b"0," * 199 + b"0]"))).status == 202
        await until(lambda: len(started) == WORKERS)
        for _ in range(40):
            more = len(started) + WORKERS
            await clock.advance(RUN_S)
            await until(partial(_reached, started, more))
            if clock.monotonic() - forecast._looked_at > LOOK_S - RUN_S / 2:  # it looks at the file, in another thread
                await until(lambda: forecast._looked_at == clock.monotonic())
        rate = forecast.rate("async")
        assert rate == pytest.approx(RATE, rel=0.25)
        waits = forecast.waiting("async")
        told_s = {forecast.answer_to(QueueFull("async", "full")).retry_after_s for _ in range(100)}
        assert told_s <= set(range(round(waits * 0.2 / RATE * 0.6), round(waits * 0.2 / RATE * 1.6) + 2))


def _reached(started: list[int], jobs: int) -> bool:
    return len(started) >= jobs
