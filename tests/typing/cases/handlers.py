"""A handler stays the function that it was; what is put in does not count among what a submit takes."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import assert_type

import msgspec

import cabrank


class Payload(msgspec.Struct):
    device: str


class Bucket:
    def put(self, name: str) -> None: ...


class Document(msgspec.Struct):
    data: list[Payload]


def open_bucket() -> Bucket:
    return Bucket()


async def connect_bucket() -> Bucket:
    return Bucket()


@contextmanager
def bucket_in_a_with() -> Generator[Bucket, None, None]:
    yield Bucket()


@asynccontextmanager
async def bucket_in_an_async_with() -> AsyncGenerator[Bucket, None]:
    yield Bucket()


app = cabrank.App()

assert_type(cabrank.resource(open_bucket), Bucket)
assert_type(cabrank.resource(connect_bucket), Bucket)
assert_type(cabrank.resource(bucket_in_a_with), Bucket)
assert_type(cabrank.resource(bucket_in_an_async_with), Bucket)
assert_type(cabrank.context(), cabrank.JobContext)


@app.job
async def upload(payload: Payload, *, bucket: Bucket = cabrank.resource(open_bucket), job: cabrank.JobContext = cabrank.context()) -> str:
    bucket.put(job.id)
    return payload.device


@app.job
async def wrong(*, bucket: int = cabrank.resource(open_bucket)) -> None: ...  # error: assignment reportArgumentType


@app.job
async def needs(payload: Payload, *, bucket: Bucket) -> None: ...


@app.job
async def named(name: str) -> None: ...


@app.document("/telemetry")
def telemetry(document: Document) -> cabrank.Jobs:
    return upload.each(document.data)


@app.document("/names")
def names(document: Document) -> cabrank.Jobs:
    return upload.each(document.data) + named.each(payload.device for payload in document.data)


@app.document("/wrong")
def wrong_items(document: Document) -> cabrank.Jobs:
    return named.each(document.data)  # error: arg-type reportArgumentType


@app.document("/nothing")  # error: arg-type reportArgumentType
def wrong_return(document: Document) -> int:
    return len(document.data)


async def calling(dispatcher: cabrank.Dispatcher) -> None:
    assert_type(await upload(Payload("a")), str)
    assert_type(await upload(Payload("a"), bucket=Bucket()), str)
    assert_type(telemetry(Document([])), cabrank.Jobs)
    assert_type(await dispatcher.submit(upload, Payload("a")), cabrank.JobHandle[str])
    await upload("a")  # error: arg-type reportArgumentType
    await dispatcher.submit(needs, Payload("a"))  # error: arg-type reportArgumentType reportCallIssue
    upload.each([1, 2])  # error: list-item reportArgumentType
