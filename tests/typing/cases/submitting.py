"""What a submit takes is what the handler takes, and what comes back is what the handler returns."""

from collections.abc import AsyncIterator, Sequence
from typing import assert_type

import msgspec

import cabrank


class Payload(msgspec.Struct):
    device: str


app = cabrank.App()


@app.job(queue="uploads", timeout_s=30, retry=cabrank.Retry(attempts=5))
async def upload(payload: Payload) -> int:
    return len(payload.device)


@app.job
async def several(name: str, count: int) -> list[str]:
    return [name] * count


@app.job
def blocking(number: int) -> float:
    return number / 2


async def bare(text: str) -> bytes:
    return text.encode()


async def submitting(dispatcher: cabrank.Dispatcher) -> None:
    assert_type(await dispatcher.submit(upload, Payload("a")), cabrank.JobHandle[int])
    assert_type(await dispatcher.submit(several, "a", 2, priority=3, key="k"), cabrank.JobHandle[list[str]])
    assert_type(await dispatcher.submit(blocking, 3), cabrank.JobHandle[float])
    assert_type(await dispatcher.submit(bare, "x"), cabrank.JobHandle[bytes])
    assert_type(await (await dispatcher.submit(upload, Payload("a"))).result(), int)
    assert_type(await dispatcher.try_submit(upload, Payload("a")), cabrank.JobHandle[int])
    assert_type(await dispatcher.submit_many(upload, [Payload("a")]), Sequence[cabrank.JobHandle[int]])
    assert_type(await dispatcher.submit_many(blocking, (number for number in range(3))), Sequence[cabrank.JobHandle[float]])
    assert_type((await dispatcher.submit_many(upload, []))[0], cabrank.JobHandle[int])


async def mapping(dispatcher: cabrank.Dispatcher, payloads: AsyncIterator[Payload]) -> None:
    assert_type([length async for length in dispatcher.map(upload, [Payload("a")])], list[int])
    assert_type([half async for half in dispatcher.map_unordered(blocking, range(3), ahead=8, priority=0)], list[float])
    assert_type([length async for length in dispatcher.map(upload, payloads)], list[int])
    assert_type(dispatcher.map(bare, ["x"]), cabrank.Results[str, bytes])
    async for mapped in dispatcher.map(upload, [Payload("a")]).each():
        assert_type(mapped, cabrank.Mapped[Payload, int])
        assert_type(await mapped.result(), int)
    async for handle in cabrank.as_completed(await dispatcher.submit_many(upload, [Payload("a")])):
        assert_type(handle, cabrank.JobHandle[int])
    dispatcher.map(upload, [3])  # error: arg-type reportArgumentType reportCallIssue
    dispatcher.map(upload, [Payload("a")], ordered=True)  # error: call-overload reportCallIssue


async def refused(dispatcher: cabrank.Dispatcher) -> None:
    await dispatcher.submit(upload, 3)  # error: arg-type reportArgumentType reportCallIssue
    await dispatcher.submit(upload)  # error: arg-type call-arg reportArgumentType reportCallIssue
    await dispatcher.submit(several, "a")  # error: arg-type reportArgumentType reportCallIssue
    await dispatcher.submit(several, "a", "b")  # error: arg-type call-arg reportArgumentType reportCallIssue
    await dispatcher.submit(bare, 3)  # error: arg-type reportArgumentType reportCallIssue
    await dispatcher.try_submit(upload, 3)  # error: arg-type reportArgumentType reportCallIssue
    await dispatcher.submit_many(upload, [3])  # error: arg-type reportArgumentType reportCallIssue
    await dispatcher.submit(upload, Payload("a"), delay="soon")  # error: call-overload reportCallIssue
    await dispatcher.submit(upload, Payload("a"), priority="high")  # error: call-overload reportArgumentType reportCallIssue
    number: str = await (await dispatcher.submit(upload, Payload("a"))).result()  # error: assignment reportAssignmentType
    print(number)


async def an_intake_takes_the_same(intake: cabrank.Intake) -> None:
    assert_type(await intake.submit(upload, Payload("a")), cabrank.JobHandle[int])
    await intake.submit(upload, 3)  # error: arg-type reportArgumentType reportCallIssue
