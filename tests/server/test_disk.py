"""Over HTTP: a disk without space is 507 and passes, and each 202 says what it survives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from cabrank import JobHandle
from cabrank.clock import SystemClock
from cabrank.stores.sqlite import SqliteStore
from tests.server.app import make_app
from tests.server.process import gated, server
from tests.server.serving import Response, Served, get, post, serving
from tests.server.test_answers import NOTE, told

HUGE = 1 << 60


@pytest.fixture(params=["lane", "ordinary"])
def way(request: pytest.FixtureRequest) -> str:
    """What makes a path go the one way or the other."""
    return "" if request.param == "lane" else "?"


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "jobs.db", SystemClock())


@pytest.fixture
async def crowded(store: SqliteStore) -> AsyncGenerator[Served]:
    async with serving(make_app(), store=store, min_free=HUGE) as served:
        yield served


async def test_without_space_new_work_is_507_until_there_is_some(crowded: Served, store: SqliteStore, way: str) -> None:
    answer = await crowded.ask(post(f"/jobs/note{way}", NOTE))
    assert told(answer) == (507, "disk-full")
    assert int(answer.headers["retry-after"]) > 0
    assert "min_free" in answer.json()["detail"]
    assert (await crowded.ask(get("/readyz"))).status == 200, "what is there is worked on"
    assert store._ledger is not None
    store._ledger._space._floor = 1  # somebody makes space; a look at the disk counts for a moment
    wire = await crowded.connect()
    while (answer := await wire.ask(post(f"/jobs/note{way}", NOTE))).status == 507:
        assert told(answer) == (507, "disk-full")
    assert answer.status == 202
    assert await crowded.dispatcher.handle(answer.json()["id"]).result() == 7


async def test_whole_documents_batches_and_streams_are_refused_too(crowded: Served) -> None:
    assert told(await crowded.ask(post("/telemetry", b"[" + NOTE + b"]"))) == (507, "disk-full")
    assert told(await crowded.ask(post("/jobs/note/batch", b"[" + NOTE + b"]"))) == (507, "disk-full")


@pytest.mark.parametrize(("durability", "words"), [("disk", "power loss"), ("process", "not always power loss")])
async def test_each_202_and_readyz_say_what_is_survived(store: SqliteStore, way: str, durability: str, words: str) -> None:
    async with serving(make_app(), store=store, durability=durability) as served:
        accepted = [
            await served.ask(post(f"/jobs/note{way}", NOTE)),
            await served.ask(post(f"/telemetry{way}", b"[" + NOTE + b"]")),
            await served.ask(post("/jobs/note/batch", b"[" + NOTE + b"]")),
            await served.ask(post(f"/jobs/bare{way}", b"", "Connection: close")),
        ]
        assert [(answer.status, answer.headers["cabrank-durability"]) for answer in accepted] == [(202, durability)] * 4
        ready: Response = await served.ask(get("/readyz"))
        assert ready.json()["durability"] == durability
        assert words in ready.json()["acknowledged"]
        handle: JobHandle[object] = served.dispatcher.handle(accepted[0].json()["id"])
        assert handle.durability == durability


async def test_a_store_in_memory_says_so(way: str) -> None:
    async with serving(make_app()) as served:
        answer = await served.ask(post(f"/jobs/note{way}", NOTE))
        assert answer.headers["cabrank-durability"] == served.dispatcher.handle(answer.json()["id"]).durability == "memory"
        refused = await served.ask(post(f"/jobs/note{way}", b"{"))
        assert "cabrank-durability" not in refused.headers


async def test_the_start_up_message_says_so(tmp_path: Path) -> None:
    options = ("--store", f"sqlite:///{tmp_path}/jobs.db", "--durability", "process")
    async with gated(tmp_path), server(tmp_path, *options) as started:
        await started.logged(b"a 202 means committed, and not fsynced yet: survives kill -9")
