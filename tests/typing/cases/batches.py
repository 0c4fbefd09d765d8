"""A batch handler is submitted to item by item, and is still the function that takes them all."""

from collections.abc import Sequence
from typing import assert_type

import msgspec

import cabrank


class Reading(msgspec.Struct):
    number: int


class Better(Reading): ...


app = cabrank.App()
batch = cabrank.Batch(jobs=64, wait_s=0.1)


@app.job(batch=batch)
async def pack(items: list[Reading], *, job: cabrank.JobContext = cabrank.context()) -> list[cabrank.Failure | None]:
    return [None if item.number else cabrank.Failure("none", retry=False) for item in items]


@app.job(batch=batch, queue="own", kind="process", timeout_s=3)
def pack_apart(items: Sequence[Reading]) -> None: ...


@app.job(batch=batch)  # error: arg-type reportArgumentType reportCallIssue reportUntypedFunctionDecorator
def takes_one(item: Reading) -> None: ...


@app.job(batch=batch)  # error: arg-type reportArgumentType reportCallIssue reportUntypedFunctionDecorator
def says_too_much(items: list[Reading]) -> list[int]:
    return []


@app.document("/readings")
def readings(items: list[Reading]) -> cabrank.Jobs:
    return pack.each(items) + pack_apart.each(items)


async def calling(dispatcher: cabrank.Dispatcher, blocking: cabrank.Intake) -> None:
    assert_type(await dispatcher.submit(pack, Reading(1)), cabrank.JobHandle[None])
    assert_type(await dispatcher.submit(pack_apart, Better(1)), cabrank.JobHandle[None])
    assert_type(await blocking.try_submit(pack, Reading(1)), cabrank.JobHandle[None])
    assert_type(await dispatcher.submit_many(pack, [Reading(1)]), Sequence[cabrank.JobHandle[None]])
    assert_type(dispatcher.map(pack_apart, [Reading(1)]), cabrank.Results[Reading, None])
    assert_type(await pack([Reading(1)]), list[cabrank.Failure | None])
    await pack(Reading(1))
    pack_apart([Reading(1)])
    await dispatcher.submit(pack, 3)  # error: arg-type reportArgumentType reportCallIssue
    await dispatcher.submit(pack)  # error: arg-type call-arg reportArgumentType reportCallIssue
    await dispatcher.submit(pack, Reading(1), Reading(2))  # error: arg-type call-arg reportArgumentType reportCallIssue
    await dispatcher.submit_many(pack, [3])  # error: arg-type reportArgumentType reportCallIssue
    pack.each([3])  # error: list-item reportArgumentType
    cabrank.Failure(3)  # error: arg-type reportArgumentType
