"""What `cabrank.blocking` takes is what the handler takes, and what comes back is what the handler returns, without an await."""

from collections.abc import Sequence
from typing import assert_type

import msgspec

import cabrank
from cabrank import blocking


class Payload(msgspec.Struct):
    device: str


app = cabrank.App()


@app.job
async def upload(payload: Payload) -> int:
    return len(payload.device)


@app.job
def several(name: str, count: int) -> list[str]:
    return [name] * count


def submitting(dispatcher: blocking.Dispatcher) -> None:
    assert_type(dispatcher.submit(upload, Payload("a")), blocking.JobHandle[int])
    assert_type(dispatcher.submit(several, "a", 2, priority=3, key="k").result(timeout_s=1), list[str])
    assert_type(dispatcher.try_submit(upload, Payload("a")), blocking.JobHandle[int])
    assert_type(dispatcher.submit_many(upload, [Payload("a")]), Sequence[blocking.JobHandle[int]])
    assert_type(dispatcher.submit_many(upload, [])[0].result(), int)
    with blocking.Intake(app) as intake:
        assert_type(intake.submit(upload, Payload("a")), blocking.JobHandle[int])


def refused(dispatcher: blocking.Dispatcher) -> None:
    dispatcher.submit(upload, 3)  # error: arg-type reportArgumentType reportCallIssue
    dispatcher.submit(several, "a")  # error: arg-type reportArgumentType reportCallIssue
    dispatcher.submit_many(upload, [3])  # error: arg-type reportArgumentType reportCallIssue
    dispatcher.submit(upload, Payload("a"), delay="soon")  # error: call-overload reportCallIssue
    number: str = dispatcher.submit(upload, Payload("a")).result()  # error: assignment reportAssignmentType
    print(number)
