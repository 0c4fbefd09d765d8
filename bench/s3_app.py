"""The app of `bench.s3`: payloads of 1 KiB into a bucket, one object each or packed."""

import hashlib
import os

import msgspec
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore, from_url

import cabrank

app = cabrank.App()
encoder = msgspec.json.Encoder()


class Payload(msgspec.Struct):
    device: str
    body: str


class Line(msgspec.Struct):
    id: str
    payload: Payload


class Document(msgspec.Struct):
    data: list[Payload]


def open_bucket() -> ObjectStore:
    """The bucket that S3_BENCH_BUCKET names; a put that fails is the handler's to retry."""
    return from_url(os.environ["S3_BENCH_BUCKET"], retry_config={"max_retries": 0})


@app.job(queue="single", timeout_s=60)
async def put(
    payload: Payload, *, bucket: ObjectStore = cabrank.resource(open_bucket), job: cabrank.JobContext = cabrank.context()
) -> None:
    """One object, under the id of its job."""
    await _create(bucket, job.id, [Line(job.id, payload)])


@app.job(queue="packed", batch=cabrank.Batch(jobs=512, wait_s=0.2), timeout_s=60)
async def pack(
    payloads: list[Payload], *, bucket: ObjectStore = cabrank.resource(open_bucket), job: cabrank.JobContext = cabrank.context()
) -> None:
    """One object with a line each, under a name that only these jobs together have."""
    digest = hashlib.blake2b(" ".join(job.ids).encode(), digest_size=8).hexdigest()
    await _create(bucket, f"{job.id}-{digest}", [Line(id, payload) for id, payload in zip(job.ids, payloads, strict=True)])


async def _create(bucket: ObjectStore, name: str, lines: list[Line]) -> None:
    try:
        await bucket.put_async(name, encoder.encode_lines(lines), mode="create", use_multipart=False)
    except AlreadyExistsError:
        return  # an earlier run wrote it


@app.document("/single")
def single(document: Document) -> cabrank.Jobs:
    """One job for each payload."""
    return put.each(document.data)


@app.document("/packed")
def packed(document: Document) -> cabrank.Jobs:
    """One job for each payload."""
    return pack.each(document.data)
