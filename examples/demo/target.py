"""Where one run puts its payloads: the document's path, the bucket, and how to see how far the server has come."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import aiohttp
import msgspec

from examples.demo.bucket import Bucket, RemoteBucket
from examples.demo.failure import DemoFailed
from examples.demo.plan import Plan
from examples.demo.scratch import Scratch
from examples.demo.weed import Weed, WeedFailed

ANSWER_WITHIN_S = 5.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """`place` is what `TELEMETRY_BUCKET` says, `environment` what the server needs to reach it."""

    path: str
    place: str
    environment: Mapping[str, str]
    bucket: Bucket | RemoteBucket

    @property
    def counted(self) -> Bucket | None:
        """The bucket whose payloads can be counted while it is written to: a folder, where each is a file."""
        return self.bucket if isinstance(self.bucket, Bucket) else None


@contextmanager
def open_target(plan: Plan, scratch: Scratch) -> Generator[Target, None, None]:
    """The bucket of `plan`. An S3 server of its own is started for a packed run that names none.

    Raises:
        DemoFailed: that server cannot be started, or the bucket not be reached.
    """
    path = "/telemetry/packed" if plan.packed else "/telemetry"
    if plan.bucket:
        yield _remote(path, f"{plan.bucket.rstrip('/')}/cabrank-demo-{time.time():.0f}", {})
    elif plan.packed:
        try:
            with Weed(scratch.folder / "s3") as weed:
                yield _remote(path, weed.url, weed.environment)
        except WeedFailed as failure:
            raise DemoFailed(str(failure)) from failure
    else:
        yield Target(path=path, place=str(scratch.bucket), environment={}, bucket=Bucket(scratch.bucket))


def _remote(path: str, place: str, environment: Mapping[str, str]) -> Target:
    bucket = RemoteBucket(place, environment)
    bucket.check()
    return Target(path=path, place=place, environment=environment, bucket=bucket)


class _Queue(msgspec.Struct):
    waiting: int
    running: int


class _Queues(msgspec.Struct):
    queues: list[_Queue]


async def left_at(url: str) -> int | None:
    """How many jobs wait or run at the server; None if it does not say."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    try:
        async with aiohttp.ClientSession(url, timeout=timeout) as session, session.get("/queues") as answer:
            told = msgspec.json.decode(await answer.read(), type=_Queues)
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
        return None
    return sum(queue.waiting + queue.running for queue in told.queues)
