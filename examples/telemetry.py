"""Telemetry over HTTP: every payload of a posted document becomes one object in a bucket."""

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


@app.document("/telemetry")
def telemetry(document: Document) -> cabrank.Jobs:
    """One job for each payload, all of them or none."""
    return upload.each(document.data)
