"""Many payloads of one handler in one request: all or none, or those that are good."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from cabrank.settings import MIB
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS
from tests.server.app import make_app
from tests.server.serving import Response, Served, number, post, serving
from tests.server.test_answers import told

LINES = "Content-Type: application/x-ndjson"
PATH = "/jobs/note/batch"


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app(), grace_s=0) as served:
        yield served


async def results(served: Served, answer: Response) -> list[object]:
    """What the jobs of an answer returned, None where there is no job."""
    return [None if id is None else await served.dispatcher.handle(id).result() for id in answer.json()["ids"]]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'[{"device":"a","count":3}, {"device":"b","count":1} ,{"device":"c","count":2}]', ()),
        (b'{"device":"a","count":3}\n\n{"device":"b","count":1}\r\n{"device":"c","count":2}', (LINES,)),
        (b'{"device":"a","count":3}\n{"device":"b","count":1}\n{"device":"c","count":2}\n', (f"{LINES}; charset=utf-8",)),
    ],
)
async def test_a_batch_becomes_jobs_in_its_order(served: Served, body: bytes, headers: tuple[str, ...]) -> None:
    answer = await served.ask(post(PATH, body, *headers))
    assert answer.status == 202
    assert set(answer.json()) == {"ids"}
    assert await results(served, answer) == [3, 1, 2]


@pytest.mark.parametrize("headers", [(), (LINES,)])
async def test_an_empty_batch_is_accepted_and_makes_nothing(served: Served, headers: tuple[str, ...]) -> None:
    answer = await served.ask(post(PATH, b"" if headers else b"[]", *headers))
    assert (answer.status, answer.json()) == (202, {"ids": []})


BAD = b'[{"device":"a","count":1},{"device":2},{"device":"c","count":3},{"device":"d","count":"x"}]'
BAD_LINES = b'{"device":"a","count":1}\n{"device":2}\n{"device":"c","count":3}\n{"device":'


async def test_one_bad_payload_spoils_the_batch_and_all_are_told(served: Served) -> None:
    answer = await served.ask(post(PATH, BAD))
    assert told(answer) == (422, "payload-invalid")
    assert answer.json()["detail"] == "2 of 4 payloads are not what note takes"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/1/device", "/3/count"]
    assert served.dispatcher.engine.counters.admitted == 0


@pytest.mark.parametrize(("body", "headers", "where"), [(BAD, (), "/3/count"), (BAD_LINES, (LINES,), "/3")])
async def test_a_partial_batch_stores_what_is_good_and_says_what_is_not(
    served: Served, body: bytes, headers: tuple[str, ...], where: str
) -> None:
    answer = await served.ask(post(f"{PATH}?partial=true", body, *headers))
    assert answer.status == 202
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/1/device", where]
    assert await results(served, answer) == [1, None, 3, None]


async def test_a_batch_of_nothing_good_stores_nothing(served: Served) -> None:
    answer = await served.ask(post(f"{PATH}?partial=true", b'[1,"a"]'))
    assert told(answer) == (422, "payload-invalid")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[{]", (400, "payload-malformed")),
        (b'{"device":"a"}', (422, "payload-invalid")),
        (b"[" + b",".join([b'{"device":"a"}'] * (TURN_ROWS + 1)) + b"]", (413, "document-too-large")),
        (b'"' + b"x" * TURN_BYTES + b'"', (413, "document-too-large")),
        (b'[{"device":"' + b"x" * MIB + b'"}]', (422, "payload-invalid")),
    ],
)
async def test_what_is_no_batch_is_refused(served: Served, body: bytes, expected: tuple[int, str]) -> None:
    assert told(await served.ask(post(PATH, body))) == expected
    assert served.dispatcher.engine.counters.admitted == 0


async def test_a_batch_for_nobody_is_refused(served: Served) -> None:
    assert told(await served.ask(post("/jobs/nobody/batch", b"[]"))) == (404, "unknown-handler")


async def test_a_batch_takes_options(served: Served) -> None:
    answer = await served.ask(post(f"{PATH}?delay_s=1000", b'[{"device":"a"}]'))
    [record] = (await served.dispatcher.engine.store.find([number(answer.json()["ids"][0])])).values()
    assert record.due_at > 0


@pytest.mark.parametrize("query", ["", "?partial=true"])
async def test_a_key_makes_a_batch_repeatable(served: Served, query: str) -> None:
    body = BAD if query else b'[{"device":"a"},{"device":"b"}]'
    once = await served.ask(post(PATH + query, body, "Idempotency-Key: k"))
    again = await served.ask(post(PATH + query, body, "Idempotency-Key: k"))
    assert (once.status, again.json()) == (202, once.json())
    assert served.dispatcher.engine.counters.admitted == 2
