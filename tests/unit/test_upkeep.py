from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from cabrank.testing import FakeClock
from cabrank.upkeep import Duty, keep_up


@asynccontextmanager
async def kept_up(duties: Sequence[Duty], clock: FakeClock) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(keep_up(duties, clock))
        await asyncio.sleep(0)
        yield
        keeping.cancel()


async def test_each_duty_comes_round_at_its_own_pace() -> None:
    clock = FakeClock()
    often: list[float] = []
    seldom: list[float] = []
    duties = [Duty(1.0, lambda: often.append(clock.monotonic())), Duty(2.5, lambda: seldom.append(clock.monotonic()))]
    async with kept_up(duties, clock):
        await clock.advance(5.0)
    assert often == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert seldom == [2.5, 5.0]


async def test_a_duty_that_is_late_is_done_once() -> None:
    clock = FakeClock()
    done: list[float] = []

    async def do() -> None:
        done.append(clock.monotonic())
        if len(done) == 1:
            await clock.sleep(10.0)

    async with kept_up([Duty(1.0, do)], clock):
        await clock.advance(13.0)
    assert done == [1.0, 12.0, 13.0]


async def test_a_duty_that_raises_ends_it() -> None:
    clock = FakeClock()

    def do() -> None:
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 -- it is raised on leaving
        async with kept_up([Duty(1.0, do)], clock):
            await clock.advance(1.0)
            await asyncio.get_running_loop().create_future()
    assert isinstance(caught.value.exceptions[0], LookupError)
