"""Schedules as a dispatcher keeps them, on virtual time: what is submitted when, after a time away, and when things go wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal

import pytest

import cabrank
from cabrank.stores.memory import MemoryStore
from cabrank.testing import FakeClock, FaultyStore

HOUR = 3600.0
PATIENT = cabrank.Settings(lease_s=86_400)  # virtual time goes by faster than a thread renews leases
Missed = Literal["skip", "once", "all"]


class Seen:
    """An app with one schedule, whose handler notes the ticks it got."""

    def __init__(self, cron: str = "0 * * * *", *, args: Callable[[datetime], Sequence[Any]] | None = None, **given: Any) -> None:
        self.app = cabrank.App()
        self.ticks: list[str] = []
        self.came = asyncio.Event()

        @self.app.schedule(cron, args=args or (lambda at: (at.isoformat(),)), **given)
        @self.app.job
        async def note(tick: str) -> None:
            self.ticks.append(tick)
            self.came.set()

        self.note = note

    async def next(self) -> str:
        """The tick that comes next."""
        async with asyncio.timeout(30):
            await self.came.wait()
        self.came.clear()
        return self.ticks[-1]


def clock_at(text: str) -> FakeClock:
    return FakeClock(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


async def passing(clock: FakeClock, duration_s: float, *, until: Callable[[], bool]) -> None:
    """Let time pass: by a jump of the wall clock, but for the last half minute. Then let happen what is due, in little time more."""
    clock.jump(max(0.0, duration_s - 31))
    await clock.advance(min(duration_s, 31))
    async with asyncio.timeout(30):
        while not until():
            await asyncio.sleep(0.001)
            await clock.advance(0.05)


async def taken(dispatcher: cabrank.Dispatcher, seen: Seen, tick: str) -> None:
    """Return when the store has taken this tick."""
    at, spec = clock_at(tick).now(), seen.app.schedules["note"].spec
    async with asyncio.timeout(30):
        while await dispatcher.engine.store.last_tick("note", spec) != at:
            await asyncio.sleep(0.001)


async def test_each_tick_runs_when_its_time_comes(store: str) -> None:
    clock, seen = clock_at("2026-01-01T10:59:50"), Seen()
    async with cabrank.Dispatcher(seen.app, store=store, clock=clock, settings=PATIENT) as dispatcher:
        await passing(clock, 20, until=lambda: len(seen.ticks) == 1)
        await passing(clock, HOUR, until=lambda: len(seen.ticks) == 2)
        await passing(clock, HOUR, until=lambda: len(seen.ticks) == 3)
        await dispatcher.join()
    assert seen.ticks == [f"2026-01-01T{hour}:00:00+00:00" for hour in (11, 12, 13)]


@pytest.mark.parametrize(
    ("begins", "cron", "expected"),
    [
        ("2026-03-29T00:59:00", "30 2 * * *", ["2026-03-29T03:00:00+02:00"]),  # spring: 2:30 is not, 3:00 follows 1:59
        ("2026-10-25T00:29:00", "30 2 * * *", ["2026-10-25T02:30:00+02:00"]),
        ("2026-10-25T00:29:00", "30 * * * *", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]),
    ],
)
async def test_summer_time_on_virtual_time(store: str, begins: str, cron: str, expected: list[str]) -> None:
    clock, seen = clock_at(begins), Seen(cron, timezone="Europe/Berlin")
    async with cabrank.Dispatcher(seen.app, store=store, clock=clock, settings=PATIENT):
        await passing(clock, 90, until=lambda: len(seen.ticks) == 1)
        await passing(clock, HOUR, until=lambda: len(seen.ticks) == len(expected))
    assert seen.ticks == expected


@pytest.mark.parametrize(
    ("missed", "hours"),
    [("once", [13]), ("skip", []), ("all", [11, 12, 13])],
)
async def test_what_was_missed_while_no_process_was_there(durable: str, missed: Missed, hours: list[int]) -> None:
    clock, seen = clock_at("2026-01-01T10:30:00"), Seen(missed=missed)
    async with cabrank.Dispatcher(seen.app, store=durable, clock=clock, settings=PATIENT):
        pass
    clock.jump(3 * HOUR)
    async with cabrank.Dispatcher(seen.app, store=durable, clock=clock, settings=PATIENT) as dispatcher:
        await passing(clock, 1, until=lambda: len(seen.ticks) == len(hours))
        await passing(clock, 0.5 * HOUR, until=lambda: len(seen.ticks) == len(hours) + 1)
        await dispatcher.join()
    async with cabrank.Dispatcher(seen.app, store=durable, clock=clock, settings=PATIENT) as dispatcher:
        await asyncio.sleep(0.05)
        await dispatcher.join()
    assert [tick[11:13] for tick in seen.ticks] == [f"{hour}" for hour in [*hours, 14]]


async def test_processes_on_one_file_submit_each_tick_once(durable: str) -> None:
    clock, seen = clock_at("2026-01-01T10:59:59"), Seen()
    async with (
        cabrank.Dispatcher(seen.app, store=durable, clock=clock, settings=PATIENT),
        cabrank.Dispatcher(seen.app, store=durable, clock=clock, settings=PATIENT) as other,
        cabrank.Dispatcher(seen.app, store=durable, clock=clock, settings=PATIENT),
    ):
        await passing(clock, 5, until=lambda: len(seen.ticks) == 1)
        await passing(clock, HOUR, until=lambda: len(seen.ticks) == 2)
        joining = asyncio.create_task(other.join())  # it looks now and then, on this clock, at what others run
        await passing(clock, 0, until=joining.done)
        await joining
        await asyncio.sleep(0.1)
    assert seen.ticks == ["2026-01-01T11:00:00+00:00", "2026-01-01T12:00:00+00:00"]


async def test_a_queue_that_is_drained_gets_the_tick_when_it_is_resumed(store: str) -> None:
    clock, seen = clock_at("2026-01-01T10:59:59"), Seen()
    async with cabrank.Dispatcher(seen.app, store=store, clock=clock, settings=PATIENT) as dispatcher:
        await dispatcher.drain("async")
        await passing(clock, 5, until=lambda: True)
        assert seen.ticks == []
        await dispatcher.resume("async")
        await passing(clock, 3, until=lambda: len(seen.ticks) == 1)
    assert seen.ticks == ["2026-01-01T11:00:00+00:00"]


async def test_ticks_of_a_paused_queue_do_not_pile_up_if_they_are_unique(store: str) -> None:
    clock, seen = clock_at("2026-01-01T10:59:59"), Seen(unique="note", priority=1)
    async with cabrank.Dispatcher(seen.app, store=store, clock=clock, settings=PATIENT) as dispatcher:
        await dispatcher.pause()
        for hour in (11, 12, 13):
            await passing(clock, HOUR, until=lambda: True)
            await taken(dispatcher, seen, f"2026-01-01T{hour}:00:00")
        assert (await dispatcher.engine.store.tally())["async"].waiting == 1
        await dispatcher.resume()
        assert await seen.next() == "2026-01-01T11:00:00+00:00"


async def test_arguments_that_cannot_be_had_cost_their_tick_and_nothing_else(store: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken_at_eleven(at: datetime) -> tuple[str]:
        if at.hour == 11:
            raise LookupError("no such day")
        return (at.isoformat(),)

    clock, seen = clock_at("2026-01-01T10:59:59"), Seen(args=broken_at_eleven)
    async with cabrank.Dispatcher(seen.app, store=store, clock=clock, settings=PATIENT):
        with caplog.at_level(logging.ERROR, "cabrank"):
            await passing(clock, 5, until=lambda: "is left out" in caplog.text)
        assert "of schedule note is left out: its args cannot be had: LookupError: no such day" in caplog.text
        await passing(clock, HOUR, until=lambda: len(seen.ticks) == 1)
    assert seen.ticks == ["2026-01-01T12:00:00+00:00"]


async def test_an_intake_submits_no_ticks(durable: str) -> None:
    clock, seen = clock_at("2026-01-01T10:59:59"), Seen()
    async with cabrank.Intake(seen.app, store=durable, clock=clock, settings=PATIENT) as intake:
        await passing(clock, 5, until=lambda: True)
        assert (await intake.engine.store.tally()).get("async") is None


async def test_a_tick_whose_turn_or_answer_is_lost_makes_one_job() -> None:
    clock, seen = clock_at("2026-01-01T10:59:59"), Seen()
    store = FaultyStore(MemoryStore(clock), clock=clock, rng=Random(1))
    async with cabrank.Dispatcher(seen.app, store=store, clock=clock, settings=PATIENT) as dispatcher:
        store.requests_to_lose = 3
        await passing(clock, 5, until=lambda: len(seen.ticks) == 1)
        store.replies_to_lose = 3
        await passing(clock, HOUR, until=lambda: len(seen.ticks) == 2)
        await passing(clock, 31, until=lambda: True)
        await dispatcher.join()
    assert seen.ticks == ["2026-01-01T11:00:00+00:00", "2026-01-01T12:00:00+00:00"]
