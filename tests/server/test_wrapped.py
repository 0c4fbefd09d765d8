"""Items that bring the options of their own jobs: a batch and a stream in which each has its tags, its time, its unique key."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import cabrank
from tests.server.app import Payload, make_app
from tests.server.serving import Response, Served, get, post, serving
from tests.server.test_answers import told
from tests.server.test_batch import LINES
from tests.server.test_stream import whole

BATCH, STREAM = "/jobs/note/batch?wrapped=true", "/jobs/note/stream?wrapped=true"
LATER = {"delay_s": 1000}


@pytest.fixture(params=["memory", "sqlite"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Served]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"
    async with serving(make_app(), store=store, grace_s=0) as served:
        yield served


def item(count: int = 0, **options: Any) -> dict[str, Any]:
    return {"payload": {"device": "a", "count": count}, **options}


def batch(*items: Any, query: str = "", headers: tuple[str, ...] = ()) -> bytes:
    return post(BATCH + query, msgspec.json.encode(items), *headers)


async def job(served: Served, id: str) -> Any:
    return (await served.ask(get(f"/jobs/{id}"))).json()


def pointers(answer: Response) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


async def test_each_job_of_a_batch_has_its_own_options(served: Served) -> None:
    items = item(1, **LATER), item(2, due_at="2200-01-01T00:00:00Z", tags=["blue", "eu"]), item(3, priority=1), item(4, deadline_s=99)
    answer = await served.ask(batch(*items, query="&delay_s=5000&tags=all"))
    assert answer.status == 202
    jobs = [await job(served, id) for id in answer.json()["ids"]]
    assert [one["tags"] for one in jobs] == [["all"], ["blue", "eu"], ["all"], ["all"]]
    assert jobs[1]["due_at"] == 7_258_118_400
    assert jobs[0]["due_at"] < jobs[2]["due_at"] < jobs[1]["due_at"], "what an item says goes before what is said for all"
    assert served.dispatcher.engine.counters.admitted == 4


async def test_items_come_by_line_too(served: Served) -> None:
    body = b'{"payload":{"device":"a","count":7}}\n{"payload":{"device":"b","count":8},"tags":["blue"]}\n'
    answer = await served.ask(post(BATCH, body, LINES))
    assert [await served.dispatcher.handle(id).result() for id in answer.json()["ids"]] == [7, 8]


async def test_a_handler_without_parameters_needs_no_payload(served: Served) -> None:
    answer = await served.ask(post("/jobs/bare/batch?wrapped=true", b'[{"tags":["blue"]},{}]'))
    assert len(answer.json()["ids"]) == 2


async def test_a_unique_key_in_a_batch_gives_the_job_that_waits(served: Served) -> None:
    first = await served.ask(post("/jobs/note?delay_s=1000&unique=k", b'{"device":"a"}'))
    items = item(1, **LATER), item(2, unique="k", **LATER), item(3, **LATER), item(4, unique="m", **LATER), item(5, unique="m", **LATER)
    answer = await served.ask(batch(*items, query="&partial=true"))
    ids = answer.json()["ids"]
    assert ids[1] == first.json()["id"]
    assert ids[3] == ids[4]
    assert len(set(ids)) == 4
    assert served.dispatcher.engine.counters.admitted == 4
    other = await served.ask(batch(item(6, unique="m", on_conflict="replace", **LATER), query="&partial=true"))
    assert (await job(served, ids[3]))["state"] == "cancelled"
    assert (await job(served, other.json()["ids"][0]))["state"] == "waiting"


async def test_a_batch_that_is_stored_whole_or_not_at_all_has_no_unique_keys(served: Served) -> None:
    answer = await served.ask(batch(item(1), item(2, unique="k")))
    assert told(answer) == (422, "payload-invalid")
    assert pointers(answer) == ["/1/unique"]
    assert "partial=true" in answer.json()["errors"][0]["reason"]
    assert served.dispatcher.engine.counters.admitted == 0


@pytest.mark.parametrize("unique", [{}, {"unique": "k"}])
async def test_a_key_makes_a_wrapped_batch_repeatable(served: Served, unique: dict[str, str]) -> None:
    items = item(1, **LATER), item(2, **unique, **LATER), item(3, **LATER)
    once = await served.ask(batch(*items, query="&partial=true", headers=("Idempotency-Key: once",)))
    again = await served.ask(batch(*items, query="&partial=true", headers=("Idempotency-Key: once",)))
    assert (once.status, again.json()) == (202, once.json())
    assert served.dispatcher.engine.counters.admitted == 3
    other = await served.ask(batch(item(9), query="&partial=true", headers=("Idempotency-Key: once",)))
    assert told(other) == (422, "key-reused")


async def test_what_finds_no_room_is_told_by_its_place_and_can_be_sent_again(tmp_path: Path) -> None:
    async with serving(make_app(), store=f"sqlite:///{tmp_path / 'jobs.db'}", max_queue=3, grace_s=0) as served:
        items = [item(place, unique=f"k{place}", **LATER) for place in range(5)]
        answer = await served.ask(batch(*items, query="&partial=true", headers=("Idempotency-Key: once",)))
        ids = answer.json()["ids"]
        assert ([id is None for id in ids], pointers(answer)) == ([False] * 3 + [True] * 2, ["/3", "/4"])
        assert "full" in answer.json()["errors"][0]["reason"]
        assert told(await served.ask(batch(*items[3:], query="&partial=true"))) == (429, "queue-full")
        for id in ids[:2]:
            await served.dispatcher.engine.store.cancel(int(id.partition("-")[2]))
        again = await served.ask(batch(*items, query="&partial=true", headers=("Idempotency-Key: once",)))
        assert again.json()["ids"][:3] == ids[:3]
        assert None not in again.json()["ids"]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        (item(priority=11), "/1/priority"),
        (item(delay_s=1, due_at=2), "/1"),
        (item(delay=1), "/1"),
        (item(tags=["no name!"]), "/1"),
        (item(on_conflict="skip"), "/1"),
        ({"payload": {"device": 3}}, "/1/payload/device"),
        ({"device": "a"}, "/1"),
        (7, "/1"),
    ],
)
async def test_what_is_wrong_with_an_item_is_told_with_its_place(served: Served, wrong: Any, pointer: str) -> None:
    answer = await served.ask(batch(item(1), wrong))
    assert told(answer) == (422, "payload-invalid")
    assert pointers(answer) == [pointer]
    assert served.dispatcher.engine.counters.admitted == 0


async def test_an_item_has_the_options_that_the_app_lets_callers_set() -> None:
    app = cabrank.App(caller_options=["tags"])

    @app.job
    async def note(payload: Payload) -> None: ...

    async with serving(app, grace_s=0) as served:
        answer = await served.ask(batch(item(1, unique="k"), query="&partial=true"))
        assert "does not let callers set unique" in answer.json()["errors"][0]["reason"]
        assert (await served.ask(batch(item(1, tags=["blue"])))).status == 202


async def test_the_lines_of_a_stream_have_their_own_options(served: Served) -> None:
    items = item(1, tags=["blue"], **LATER), item(2, unique="k", **LATER), {"payload": 1}, item(3, unique="k", **LATER), item(4, **LATER)
    lines = await whole(served, [msgspec.json.encode(one) + b"\n" for one in items], path=STREAM)
    assert [line.get("line") for line in lines] == [1, 2, 3, 4, 5, None]
    assert lines[1]["id"] == lines[3]["id"]
    assert lines[2]["problem"]["errors"][0]["pointer"] == "/payload"
    assert (await job(served, lines[0]["id"]))["tags"] == ["blue"]
    assert served.dispatcher.engine.counters.admitted == 3


async def test_with_a_key_a_wrapped_stream_is_repeatable(served: Served) -> None:
    pieces = [
        msgspec.json.encode(item(place, **({"unique": f"k{place % 20}"} if place % 3 else {}), **LATER)) + b"\n" for place in range(250)
    ]
    once = await whole(served, pieces, "Idempotency-Key: once", path=STREAM)
    admitted = served.dispatcher.engine.counters.admitted
    again = await whole(served, pieces, "Idempotency-Key: once", path=STREAM)
    assert again == once
    assert served.dispatcher.engine.counters.admitted == admitted
    assert len({line["id"] for line in once[:-1]}) == admitted == 84 + 20
