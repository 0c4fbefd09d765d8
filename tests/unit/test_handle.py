from __future__ import annotations

import asyncio
import gc
from random import Random

import pytest

from cabrank.codec import PayloadCodec
from cabrank.errors import IntakeClosed, JobCancelled, JobExpired, JobFailed
from cabrank.handle import Handles, JobHandle, JobHandles
from cabrank.job import Settlement
from cabrank.states import Cause, State
from cabrank.stores.memory import MemoryStore
from cabrank.testing import FakeClock


async def number() -> int:
    return 1


CODEC = PayloadCodec(number)


async def at_once() -> None: ...


@pytest.fixture
def handles() -> Handles:
    handles = Handles(MemoryStore(FakeClock(), Random(1)), at_once)
    handles.prefix = "aaaaaaaa"
    return handles


def held(handles: Handles, number: int) -> JobHandle[object]:
    return handles.hold(number, CODEC, False)


async def test_a_handle_learns_its_jobs_outcome_when_it_is_recorded(handles: Handles) -> None:
    handle = held(handles, 7)
    assert (handle.id, repr(handle), handle.settled) == ("aaaaaaaa-7", "<job aaaaaaaa-7>", False)
    handles.settled({}, [Settlement(7, 1, Cause.RETRIED), Settlement(8, 1, Cause.RETURNED)])
    assert not handle.settled, "a retry is no end"
    handles.settled({}, [Settlement(7, 2, Cause.RETURNED, value=3)])
    assert (handle.settled, await handle.result()) == (True, 3)
    assert await handle.state() is State.DONE
    assert not await handle.cancel()


async def test_all_who_wait_for_one_job_are_told(handles: Handles) -> None:
    handle = held(handles, 7)
    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(handle.result()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        await asyncio.sleep(0)
        handles.settled({}, [Settlement(7, 1, Cause.RETURNED, value="x")])
    assert waiters[0].cancelled()
    assert not handles.new_waiters(), "nobody is left to be asked for"
    assert [waiter.result() for waiter in waiters[1:]] == ["x", "x"]


@pytest.mark.parametrize(
    ("cause", "error", "state"),
    [
        (Cause.GAVE_UP, JobFailed, State.DEAD),
        (Cause.WORKER_LOST, JobFailed, State.DEAD),
        (Cause.CANCELLED, JobCancelled, State.CANCELLED),
        (Cause.DROPPED, JobExpired, State.EXPIRED),
    ],
)
async def test_each_end_without_a_result_has_its_error(handles: Handles, cause: Cause, error: type[Exception], state: State) -> None:
    handle = held(handles, 7)
    handles.settled({}, [Settlement(7, 1, cause)])
    with pytest.raises(error, match="aaaaaaaa-7"):
        await handle.result()
    assert await handle.state() is state


async def test_a_failed_job_has_its_cause_and_a_bare_one_is_its_cause(handles: Handles) -> None:
    class Own(Exception): ...

    own = Own()
    registered, bare = held(handles, 1), handles.hold(2, CODEC, True)
    handles.settled({}, [Settlement(id, 1, Cause.GAVE_UP, reason="failed", error="Traceback\nOwn: x\n", failure=own) for id in (1, 2)])
    with pytest.raises(JobFailed, match=r"job aaaaaaaa-1 is dead \(failed\): Own: x") as caught:
        await registered.result()
    assert caught.value.__cause__ is own
    with pytest.raises(Own):
        await bare.result()


async def test_a_dropped_handle_costs_nothing(handles: Handles) -> None:
    held(handles, 7)
    kept = held(handles, 8)
    gc.collect()
    handles.prune()
    assert set(handles._live) == {kept.number}


async def test_nobody_waits_any_more_when_it_is_over(handles: Handles) -> None:
    handle = held(handles, 7)
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(refused(handle))
        await asyncio.sleep(0)
        handles.fail(IntakeClosed())
    assert waiter.result()
    assert await refused(handle), "nor does who comes later"
    assert handles._waiting == {}


async def refused(handle: JobHandle[object]) -> bool:
    try:
        await handle.result()
    except IntakeClosed:
        return True
    return False


def test_many_handles_are_a_sequence_that_builds_each_when_asked(handles: Handles) -> None:
    many: JobHandles[object] = JobHandles([range(10, 13), range(20, 22)], handles, codec=CODEC, bare=False)
    numbers = [10, 11, 12, 20, 21]
    assert len(many) == 5
    assert [handle.number for handle in many] == numbers
    assert [many[index].number for index in range(5)] == numbers
    assert [many[index].number for index in range(-5, 0)] == numbers
    assert [handle.number for handle in many[1:4]] == [11, 12, 20]
    for outside in (5, -6):
        with pytest.raises(IndexError, match="there are 5"):
            _ = many[outside]
