"""Telemetry over HTTP: the payloads of a posted document go into a bucket, one object each or packed.

`POST /telemetry` writes one object a payload, `POST /telemetry/packed` one for as many as are ready, a line each.
"""

import hashlib
import os

import msgspec
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, ObjectStore, from_url

import cabrank

app = cabrank.App()


class Payload(msgspec.Struct):
    device: str
    recorded_at: str
    carrier: str
    flight: int
    origin: str
    destination: str
    departure_delay_min: int | None
    arrival_delay_min: int | None
    air_time_min: int | None
    distance_miles: int


class Line(msgspec.Struct):
    """A payload in a packed object: `id` is its job's, and tells two runs of one job from two payloads that are alike."""

    id: str
    payload: Payload


class Document(msgspec.Struct):
    version: str
    token: str
    data: list[Payload]


def open_bucket() -> ObjectStore:
    """The bucket that TELEMETRY_BUCKET names: a local folder, or a URL such as s3://name."""
    place = os.environ.get("TELEMETRY_BUCKET", "var/bucket")
    if "://" in place:
        return from_url(place, retry_config={"max_retries": 0})  # a put that fails is the handler's to retry
    return LocalStore(place, mkdir=True)


@app.job(queue="uploads", timeout_s=30, retry=cabrank.Retry(attempts=5))
async def upload(
    payload: Payload,
    *,
    bucket: ObjectStore = cabrank.resource(open_bucket),
    job: cabrank.JobContext = cabrank.context(),
) -> None:
    """Write `payload` once, under its job id."""
    try:
        await bucket.put_async(job.id, msgspec.json.encode(payload), mode="create")
    except AlreadyExistsError:  # an earlier run wrote it and died before that was recorded
        job.logger.info("already there: %s", job.id)


@app.job(queue="packs", batch=cabrank.Batch(jobs=256, wait_s=0.2), timeout_s=60, retry=cabrank.Retry(attempts=5))
async def pack(
    payloads: list[Payload],
    *,
    bucket: ObjectStore = cabrank.resource(open_bucket),
    job: cabrank.JobContext = cabrank.context(),
) -> None:
    """Write `payloads` as one object, a line each, under a name that only these jobs together have."""
    lines = [Line(id, payload) for id, payload in zip(job.ids, payloads, strict=True)]
    digest = hashlib.blake2b(" ".join(job.ids).encode(), digest_size=8).hexdigest()
    name = f"{job.id}-{len(lines)}-{digest}.ndjson"
    try:
        await bucket.put_async(name, msgspec.json.Encoder().encode_lines(lines), mode="create")
    except AlreadyExistsError:  # as above, and the same jobs were together again
        job.logger.info("already there: %s", name)


@app.document("/telemetry")
def telemetry(document: Document) -> cabrank.Jobs:
    """One job for each payload, all of them or none; each becomes an object."""
    return upload.each(document.data)


@app.document("/telemetry/packed")
def packed(document: Document) -> cabrank.Jobs:
    """One job for each payload, all of them or none; many become one object."""
    return pack.each(document.data)
