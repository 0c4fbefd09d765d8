from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

import cabrank
from cabrank.inject import JobContext, Marker, Resources, markers

life: list[str] = []


@asynccontextmanager
async def in_an_async_with() -> AsyncIterator[str]:
    life.append("async opened")
    yield "async"
    life.append("async closed")


@contextmanager
def in_a_with() -> Iterator[str]:
    life.append("plain opened")
    try:
        yield "plain"
    finally:
        life.append("plain closed")


async def awaited() -> str:
    return "awaited"


def called() -> str:
    return "called"


@pytest.fixture(autouse=True)
def no_life() -> None:
    life.clear()


async def test_an_opener_may_be_any_of_four() -> None:
    resources = Resources()
    opened = [await resources.open(opener) for opener in (in_an_async_with, in_a_with, awaited, called)]
    assert opened == ["async", "plain", "awaited", "called"]
    assert life == ["async opened", "plain opened"]
    await resources.close()
    assert life[2:] == ["plain closed", "async closed"], "the last one first"


async def test_a_resource_is_opened_once_until_it_is_closed() -> None:
    resources = Resources()
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    assert await resources.open(make) is await resources.open(make)
    await resources.close()
    await resources.close()
    await resources.open(make)
    assert len(made) == 2


async def test_one_that_fails_to_close_does_not_keep_others_open() -> None:
    @contextmanager
    def breaks() -> Iterator[None]:
        yield
        raise LookupError

    resources = Resources()
    await resources.open(in_a_with)
    await resources.open(breaks)
    with pytest.raises(LookupError):
        await resources.close()
    assert life == ["plain opened", "plain closed"]


def test_markers_are_found_by_name() -> None:
    def handler(number: int, *, bucket: str = cabrank.resource(called), job: JobContext = cabrank.context(), plain: int = 3) -> None: ...

    assert set(markers(handler)) == {"bucket", "job"}
    assert all(isinstance(marker, Marker) for marker in markers(handler).values())


def test_the_logger_of_a_run_names_its_job(caplog: pytest.LogCaptureFixture) -> None:
    context = JobContext(id="aaaaaaaa-7", handler="upload", run=2, attempt=1, deadline_at=0.0)
    with caplog.at_level(logging.INFO):
        context.logger.info("stored %d bytes", 3)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("cabrank.job.upload", "aaaaaaaa-7: stored 3 bytes")
