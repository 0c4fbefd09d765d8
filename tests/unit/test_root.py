from __future__ import annotations

import asyncio

import pytest

from cabrank.root import Root, outlast
from tests.unit.runs import for_ever


class Inside(Exception):
    """What a child raises."""


async def test_children_live_until_it_is_closed() -> None:
    failures: list[BaseException] = []
    root = Root("test", on_failure=failures.append)
    await root.open()
    child = root.start(for_ever(), name="child")
    assert child.get_name() == "test/child"
    await asyncio.sleep(0)
    assert not child.done()
    root.cancel()
    await root.close(patience_s=5)
    assert child.cancelled()
    assert failures == []
    assert root.failure is None


async def test_a_child_that_raises_ends_the_others_and_is_told() -> None:
    failures: list[BaseException] = []
    root = Root("test", on_failure=failures.append)
    await root.open()
    other = root.start(for_ever(), name="other")

    async def fail() -> None:
        raise Inside

    root.start(fail(), name="failing")
    await root.close(patience_s=5)
    assert other.cancelled()
    assert [type(failure) for failure in failures] == [Inside]
    assert root.failure is failures[0]


async def test_nothing_is_started_before_or_after() -> None:
    root = Root("test", on_failure=lambda _: None)
    with pytest.raises(RuntimeError, match="not open"):
        root.start(for_ever(), name="early")
    await root.open()
    await root.close(patience_s=5)
    with pytest.raises(RuntimeError, match="not open"):
        root.start(for_ever(), name="late")


async def test_it_may_be_closed_by_another_than_opened_it() -> None:
    root = Root("test", on_failure=lambda _: None)
    async with asyncio.TaskGroup() as group:
        group.create_task(root.open())
    child = root.start(for_ever(), name="child")
    root.cancel()
    async with asyncio.TaskGroup() as group:
        group.create_task(root.close(patience_s=5))
    assert child.cancelled()


async def test_a_child_that_does_not_end_is_left_behind() -> None:
    root = Root("test", on_failure=lambda _: None)
    await root.open()
    go = asyncio.Event()

    async def stubborn() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass

    child = root.start(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    root.cancel()
    await root.close(patience_s=0.001)
    assert not child.done()
    go.set()
    await child


async def test_outlasting_waits_whatever_cancels_come_and_raises_one_at_the_end() -> None:
    awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(outlast([awaited]))
        for _ in range(3):
            await asyncio.sleep(0)
            waiter.cancel()
        await asyncio.sleep(0)
        assert not waiter.done()
        awaited.set_result(None)
    assert waiter.cancelled()


async def test_outlasting_ends_with_the_time() -> None:
    await outlast([asyncio.get_running_loop().create_future()], timeout_s=0.001)
    await outlast([asyncio.get_running_loop().create_future()], timeout_s=-1)
    await outlast([])


async def test_outlasting_does_not_care_how_they_end() -> None:
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.set_exception(Inside())
    await outlast([failed])
    assert isinstance(failed.exception(), Inside)
