"""What a full queue does is said for each queue, and whoever loses by it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import cabrank
from cabrank.events import Event, JobsSettled
from cabrank.settings import Settings
from cabrank.states import Cause
from cabrank.stores.contract import OVERFLOW


class Feed:
    """An app whose first job waits at a gate while others come."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.open = asyncio.Event()
        self.arrived = asyncio.Event()
        self.ran: list[int] = []

        @self.app.job(queue="feed")
        async def show(number: int) -> int:
            self.arrived.set()
            await self.open.wait()
            self.ran.append(number)
            return number

        self.show = show


@pytest.fixture
async def feed() -> Feed:
    return Feed()


async def busy(dispatcher: cabrank.Dispatcher, feed: Feed) -> None:
    """Let the only worker have its job."""
    await dispatcher.submit(feed.show, 0)
    await feed.arrived.wait()


@pytest.mark.parametrize("bulk", [False, True])
async def test_the_oldest_makes_room_and_its_handle_says_so(store: str, feed: Feed, *, bulk: bool) -> None:
    heard: list[Event] = []
    async with cabrank.Dispatcher(
        feed.app, store=store, max_workers=1, max_queue={"feed": 2}, overflow={"feed": "drop_oldest"}
    ) as dispatcher:
        dispatcher.engine.events.subscribe(heard.append)
        await busy(dispatcher, feed)
        if bulk:
            handles = list(await dispatcher.submit_many(feed.show, [1, 2, 3, 4]))
        else:
            handles = [await dispatcher.submit(feed.show, number) for number in (1, 2, 3, 4)]
        for handle in handles[:2]:
            with pytest.raises(cabrank.JobExpired, match="its queue was full and dropped it"):
                await handle.result()
            assert await handle.state() is cabrank.State.EXPIRED
        feed.open.set()
        assert [await handle.result() for handle in handles[2:]] == [3, 4]
        assert (dispatcher.engine.counters.dropped, dispatcher.engine.counters.expired) == (2, 2)
    assert feed.ran == [0, 3, 4]
    settled = [settlement for event in heard if isinstance(event, JobsSettled) for settlement in event.settlements]
    assert [(s.cause, s.reason) for s in settled if s.cause is not Cause.RETURNED] == [(Cause.DROPPED, OVERFLOW)] * 2


async def test_who_waits_for_a_job_that_is_dropped_is_told_at_once(store: str, feed: Feed) -> None:
    async with cabrank.Dispatcher(feed.app, store=store, max_workers=1, max_queue=1, overflow="drop_oldest") as dispatcher:
        await busy(dispatcher, feed)
        waiting = asyncio.create_task((await dispatcher.submit(feed.show, 1)).result())
        await asyncio.sleep(0)
        await dispatcher.submit(feed.show, 2)
        with pytest.raises(cabrank.JobExpired):
            await waiting
        feed.open.set()


async def test_the_lowest_priority_makes_room(store: str, feed: Feed) -> None:
    async with cabrank.Dispatcher(feed.app, store=store, max_workers=1, max_queue=2, overflow="drop_lowest") as dispatcher:
        await busy(dispatcher, feed)
        for number, priority in ((1, 9), (2, 5), (3, 0), (4, 9)):
            await dispatcher.submit(feed.show, number, priority=priority)
        feed.open.set()
        await dispatcher.join()
    assert feed.ran == [0, 3, 2]


async def test_a_queue_that_refuses_refuses_whoever_submits(store: str, feed: Feed) -> None:
    async with cabrank.Dispatcher(feed.app, store=store, max_workers=1, max_queue=1, overflow="refuse") as dispatcher:
        await busy(dispatcher, feed)
        await dispatcher.submit(feed.show, 1)
        for submit in (dispatcher.submit, dispatcher.try_submit):
            with pytest.raises(cabrank.QueueFull, match=r"1 of 1 jobs wait.*refuses rather than lets wait"):
                await submit(feed.show, 2)
        with pytest.raises(cabrank.QueueFull):
            await dispatcher.submit_many(feed.show, [2, 3])
        feed.open.set()
        await dispatcher.join()
    assert feed.ran[:2] == [0, 1]


async def test_memory_stays_flat_when_a_burst_meets_a_queue_that_drops(feed: Feed) -> None:
    settings = Settings(keep_done_jobs=20, max_queue=50)
    async with cabrank.Dispatcher(feed.app, max_workers=1, overflow="drop_oldest", settings=settings) as dispatcher:
        await busy(dispatcher, feed)
        await dispatcher.submit_many(feed.show, range(1_000))
        tally = await dispatcher.engine.store.tally()
        assert tally["feed"].waiting == 50
        assert dispatcher.engine.counters.dropped == 950
        ledger = dispatcher.engine.store.ledger  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
        assert len(ledger.shelved) == 20  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        feed.open.set()


async def test_another_process_that_waits_for_a_dropped_job_is_told(tmp_path: Path, feed: Feed) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with (
        cabrank.Intake(feed.app, store=url, max_queue=1, overflow="drop_oldest") as one,
        cabrank.Intake(feed.app, store=url, max_queue=1, overflow="drop_oldest") as other,
    ):
        handle = await one.submit(feed.show, 1)
        await other.submit(feed.show, 2)
        with pytest.raises(cabrank.JobExpired, match="full"):
            await handle.result(timeout_s=30)


@pytest.mark.parametrize("overflow", ["drop", {"feed": "drop"}, {"fed": "refuse"}])
def test_a_policy_that_is_none_or_of_no_queue_is_refused(feed: Feed, overflow: str | dict[str, str]) -> None:
    with pytest.raises(cabrank.SettingError, match="overflow"):
        cabrank.Dispatcher(feed.app, overflow=overflow)
    with pytest.raises(cabrank.SettingError, match="overflow"):
        cabrank.Dispatcher(feed.app, overflow=overflow, settings=Settings())
