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
    dispatcher.submit(upload, Payload("a"), unique="a", on_conflict="replace", unique_over=("waiting", "dead"), tags=["x"])
    with blocking.Intake(app) as intake:
        assert_type(intake.submit(upload, Payload("a")), blocking.JobHandle[int])


def mapping(dispatcher: blocking.Dispatcher) -> None:
    assert_type(list(dispatcher.map(upload, [Payload("a")])), list[int])
    assert_type(dispatcher.map_unordered(upload, [Payload("a")], ahead=8, priority=0), blocking.Results[Payload, int])
    for mapped in dispatcher.map(upload, [Payload("a")]).each():
        assert_type(mapped, blocking.Mapped[Payload, int])
        assert_type(mapped.result(), int)
        assert_type(mapped.handle, blocking.JobHandle[int])


def completing(dispatcher: blocking.Dispatcher) -> None:
    for handle in blocking.as_completed(dispatcher.submit_many(upload, [Payload("a")]), timeout_s=3):
        assert_type(handle, blocking.JobHandle[int])


def managing() -> None:
    with blocking.Dispatcher(app, max_workers=(2, 8), overflow="refuse") as dispatcher:
        dispatcher.resize("async", (1, 4))
        dispatcher.drain("async", timeout_s=3)
        assert_type(dispatcher.dump(), str)
        assert_type(dispatcher.running()[0].id, str)
    blocking.Intake(app, max_workers={"async": (2, 8)})


def refused(dispatcher: blocking.Dispatcher) -> None:
    dispatcher.submit(upload, 3)  # error: arg-type reportArgumentType reportCallIssue
    dispatcher.submit(several, "a")  # error: arg-type reportArgumentType reportCallIssue
    dispatcher.submit_many(upload, [3])  # error: arg-type reportArgumentType reportCallIssue
    dispatcher.submit(upload, Payload("a"), delay="soon")  # error: call-overload reportCallIssue
    dispatcher.map(upload, [3])  # error: arg-type reportArgumentType reportCallIssue
    dispatcher.submit(upload, Payload("a"), on_conflict="drop")  # error: call-overload reportArgumentType reportCallIssue
    number: str = dispatcher.submit(upload, Payload("a")).result()  # error: assignment reportAssignmentType
    print(number)
