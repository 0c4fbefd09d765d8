"""Clients: they send a request until it is answered, as somebody on the other side of a network does."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from cabrank import IntakeClosed, JobCancelled, JobExpired, JobFailed, JobHandle, QueueFull, StoreUnavailable
from cabrank.drafts import Options
from cabrank.errors import CabrankError
from cabrank.states import State
from cabrank.stores.contract import Admission, Submission, Verdict
from tests.simulation.plan import Request
from tests.simulation.process import Process
from tests.simulation.program import limited, packed, work
from tests.simulation.program_apart import apart, packed_apart
from tests.simulation.record import Record

Processes = list[Process]


async def client(request: Request, processes: Processes, record: Record, rng: Random) -> None:
    """Send `request` until it is answered. Without a key an unknown outcome ends it: sending again could do it twice."""
    await asyncio.sleep(request.at_s)
    may_be_stored = False
    while True:
        process = rng.choice(processes)
        if not process.up:
            await asyncio.sleep(rng.uniform(0.05, 0.3))
            continue
        asked = process.spawn(_submit(process, request))
        await asyncio.wait({asked}, timeout=rng.uniform(0.2, 4.0))
        if asked.done() and not asked.cancelled() and asked.exception() is None:
            for order, id in zip(request.orders, asked.result(), strict=True):
                record.acknowledged(order.token, id)
            if request.meddles:
                soon_s = 0.02 if request.apart else 1.0
                for id in asked.result()[::3] if request.apart else asked.result()[:1]:
                    await _meddle(id, record, rng, soon_s=soon_s)
            return
        error = asked.exception() if asked.done() else TimeoutError("no answer")
        record.note(f"client: {request.token} got {error!r} from {process.life.name}")
        if not isinstance(error, QueueFull | IntakeClosed):
            may_be_stored = True
            if not isinstance(error, StoreUnavailable | TimeoutError):
                record.violated("I20", f"{request.token} got {error!r}")
                return
        if may_be_stored and not request.key:
            record.unknown.add(request.token)
            return
        if not may_be_stored and rng.random() < 0.1:
            record.refused.add(request.token)
            return
        await asyncio.sleep(rng.uniform(0.05, 0.5))


async def _submit(process: Process, request: Request) -> list[int]:
    queue = _handler(request).queue
    shut = queue in process.told.shut
    ids = await _sent(process, request)
    if shut:
        process.record.violated("I26", f"{request.token} came when {process.life.name} drained {queue!r}, and was taken on as {ids}")
    return ids


async def _sent(process: Process, request: Request) -> list[int]:
    dispatcher = process.dispatcher
    order, *more = request.orders
    if more:
        return await _submit_together(process, request)
    submit = dispatcher.submit if request.patient else dispatcher.try_submit
    handler = _handler(request)
    handle: JobHandle[Any] = await submit(handler, order, key=request.key, priority=request.priority, delay_s=request.delay_s)
    if request.wants_result:
        process.spawn(_learn(process, handle))
    return [handle.number]


def _handler(request: Request) -> Any:
    if request.apart:
        return packed_apart if request.packed else apart
    return packed if request.packed else limited if request.limited else work


async def _submit_together(process: Process, request: Request) -> list[int]:
    """As a front does that answers by callback."""
    dispatcher = process.dispatcher
    jobs = dispatcher.drafts.together(_handler(request).each(request.orders), Options(priority=request.priority))
    answered: asyncio.Future[Admission | CabrankError] = asyncio.get_running_loop().create_future()
    dispatcher.enter(Submission(jobs=jobs, key=request.key, digest=request.token.encode()), answered.set_result)
    answer = await answered
    if isinstance(answer, CabrankError):
        raise answer
    if answer.verdict is Verdict.FULL:
        raise QueueFull(answer.queue, answer.bound)
    first = answer.first_id if answer.verdict is Verdict.REPEATED else jobs[0].id
    return [first + position for position in range(len(jobs))]


async def _learn(process: Process, handle: JobHandle[Any]) -> None:
    """Wait for a result and note what came."""
    state = State.DONE
    try:
        value = await handle.result()
    except JobFailed:
        state = State.DEAD
    except JobCancelled:
        state = State.CANCELLED
    except JobExpired:
        state = State.EXPIRED
    except IntakeClosed:
        return  # the process stops
    except CabrankError as error:
        process.record.violated("I20", f"the handle of job {handle.number} says {error!r}")
        return
    else:
        its = {run for id, run in process.record.returned if id == handle.number}
        if value not in its and not (value is None and its):  # a batch gives no results
            process.record.violated("I3", f"the handle of job {handle.number} says {value!r}, which no run returned")
    process.record.note(f"{process.life.name}: the handle of job {handle.number} says {state}")
    process.record.outcomes.append((handle.number, state))


async def _meddle(id: int, record: Record, rng: Random, *, soon_s: float) -> None:
    """Somebody cancels the job within `soon_s`, and perhaps lets it wait again."""
    await asyncio.sleep(rng.uniform(0.0, soon_s))
    store = record.ledger
    record.cancels.add(id)
    record.note(f"person: job {id} is to be cancelled: {await store.cancel(id)}")
    if rng.random() < 0.5:
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        record.reopened.add(id)
        record.note(f"person: job {id} is to be reopened: {await store.reopen(id)}")
