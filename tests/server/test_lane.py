"""What the lane does with a connection: one test for each hook of uvicorn's protocol that it overrides, and the order of answers."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest

from cabrank.drafts import PLAIN, Options
from cabrank.server.backpressure import LINE_LIMIT
from cabrank.server.entrances import Entrance
from cabrank.server.lane import BODY_LIMIT, IDLE_TICKS
from cabrank.server.problems import Answer
from cabrank.server.reception import Answered
from cabrank.server.replies import LATE_TICKS
from cabrank.settings import MIB
from cabrank.testing import FaultyStore
from tests.server.app import make_app
from tests.server.serving import Served, chunked, frozen, get, number, post, serving, turning_store, until

NOTE = b'{"device":"a","count":7}'
JSON = "Content-Type: application/json"


@pytest.fixture
def store() -> FaultyStore:
    return turning_store()


@pytest.fixture
async def served(store: FaultyStore) -> AsyncGenerator[Served]:
    async with serving(make_app(), store=store) as served:
        yield served


# ------------------------------------------------------------------------------------------------------------- which way


@pytest.mark.parametrize("headers", [(), (JSON,), (f"{JSON}; charset=utf-8",), ("Connection: keep-alive",), ("Idempotency-Key: k",)])
async def test_a_hot_post_makes_no_asgi_request(served: Served, headers: tuple[str, ...]) -> None:
    assert (await served.ask(post("/jobs/note", NOTE, *headers))).status == 202
    assert served.ordinary == []


@pytest.mark.parametrize(
    "request_",
    [
        post("/jobs/note?", NOTE),
        post("/jobs/note", NOTE, "Content-Type: application/x-www-form-urlencoded"),
        post("/jobs/note", NOTE, "Connection: close"),
        post("/jobs/note", NOTE, version="1.0"),
        post("/jobs/note", NOTE, "Connection: keep-alive", version="1.0"),
        post("/jobs/note", NOTE, "X-Twice: 1", "X-Twice: 2"),
        post("/jobs/note", NOTE, "Origin: http://localhost"),
        post("/jobs/note", NOTE + b" " * BODY_LIMIT),
        chunked("/jobs/note", NOTE[:9], NOTE[9:]),
    ],
)
async def test_what_is_unusual_goes_the_ordinary_way_and_is_answered_alike(served: Served, request_: bytes) -> None:
    assert (await served.ask(request_)).status == 202
    assert served.ordinary == ["/jobs/note"]


async def test_a_request_may_arrive_byte_by_byte(served: Served) -> None:
    wire = await served.connect()
    for byte in post("/jobs/note", NOTE):
        await wire.send(bytes([byte]))
    assert (await wire.receive()).status == 202
    assert served.ordinary == []


async def test_expect_100_continue_is_answered_before_the_body(served: Served) -> None:
    wire = await served.connect()
    await wire.send(post("/jobs/note", b"", "Expect: 100-continue", length=len(NOTE)))
    assert (await wire.receive()).status == 100
    assert (await wire.ask(NOTE)).status == 202


@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
async def test_http_1_0_and_close_end_the_connection_behind_the_answer(served: Served, headers: tuple[str, ...]) -> None:
    wire = await served.connect()
    answer = await wire.ask(post("/jobs/note", NOTE, *headers, version="1.1" if headers else "1.0"))
    assert (answer.status, answer.headers["connection"]) == (202, "close")
    assert await wire.rest() == b""


async def test_a_connection_is_kept_alive(served: Served) -> None:
    wire = await served.connect()
    ids = [(await wire.ask(post("/jobs/note", NOTE))).json()["id"] for _ in range(3)]
    assert len(set(ids)) == 3


async def test_a_response_has_a_date_and_its_length(served: Served) -> None:
    answer = await served.ask(post("/jobs/note", NOTE))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["date"].endswith("GMT")


# ----------------------------------------------------------------------------------------------------------------- order


async def test_answers_keep_the_order_of_the_requests_whichever_way_they_went(served: Served, store: FaultyStore) -> None:
    """An ASGI request that could be answered at once stays behind lane requests that wait, and lane requests behind it."""
    wire = await served.connect()
    with frozen(store):
        await wire.send(post("/jobs/note", NOTE) * 2 + get("/healthz") + post("/jobs/note", NOTE) + get("/nowhere"))
        await until(lambda: served.lane.flow.read_paused)
        assert served.ordinary == []
    answers = [await wire.receive() for _ in range(5)]
    assert [answer.status for answer in answers] == [202, 202, 200, 202, 404]
    first, second, third = (number(answers[place].json()["id"]) for place in (0, 1, 3))
    assert first < second < third


async def test_a_lane_request_stays_behind_an_asgi_request_that_waits(served: Served, store: FaultyStore) -> None:
    wire = await served.connect()
    with frozen(store):
        await wire.send(post("/jobs/note?", NOTE))
        await until(lambda: len(served.ordinary) == 1)
        await wire.send(post("/nothing", NOTE) + post("/jobs/note", NOTE))
    assert [(await wire.receive()).status for _ in range(3)] == [202, 404, 202]


async def test_documents_of_one_turn_have_their_own_answers_where_not_all_find_room(store: FaultyStore) -> None:
    async with serving(make_app(), store=store, max_queue=3) as served:
        wire = await served.connect()
        with frozen(store):
            await wire.send(post("/telemetry", b"[%b,%b]" % (NOTE, NOTE)) * 3)
            await until(lambda: len(served.lane._owed) == 3)
        answers = [await wire.receive() for _ in range(3)]
        assert [(answer.status, len(answer.json().get("ids", ()))) for answer in answers] == [(202, 2), (429, 0), (429, 0)]


async def test_an_error_that_is_known_at_once_does_not_overtake(served: Served, store: FaultyStore) -> None:
    wire = await served.connect()
    with frozen(store):
        await wire.send(post("/jobs/note", NOTE) + post("/jobs/note", b"{"))
        await until(lambda: bool(served.lane._owed))
    assert [(await wire.receive()).status for _ in range(2)] == [202, 400]


async def test_answers_of_one_turn_leave_in_one_write(served: Served, store: FaultyStore) -> None:
    wire = await served.connect()
    with frozen(store):
        await wire.send(post("/jobs/note", NOTE) * 5)
        await until(lambda: len(served.lane._owed) == 5)
        recording = Recording(served.lane.transport)
        served.lane.transport = cast(asyncio.Transport, recording)
    answers = [await wire.receive() for _ in range(5)]
    assert [answer.status for answer in answers] == [202] * 5
    # The first turn may have been on its way with the first request alone.
    assert len(recording.writes) <= 2


class Recording:
    """A transport that notes what is written."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


# -------------------------------------------------------------------------------------------------------- what is broken


async def test_what_cannot_be_parsed_is_answered_400(served: Served) -> None:
    wire = await served.connect()
    assert (await wire.ask(b"NONSENSE\r\n\r\n")).status == 400
    assert await wire.rest() == b""


@pytest.mark.parametrize("path", ["/jobs/note", "/jobs/note?"])
async def test_a_400_is_never_taken_for_the_answer_to_an_earlier_request(served: Served, store: FaultyStore, path: str) -> None:
    """The request before may be stored, and a 4xx says that nothing was."""
    wire = await served.connect()
    with frozen(store):
        await wire.send(post(path, NOTE))
        await until(lambda: served.lane._owes or served.lane._owes_ordinary)
        await wire.send(b"NONSENSE\r\n\r\n")
        await until(lambda: served.lane.flow.read_paused)
    answer = await wire.receive()
    assert (answer.status, answer.headers["connection"]) == (202, "close")
    assert await wire.rest() == b""


async def test_a_broken_body_behind_a_waiting_request_ends_the_connection_after_its_answer(served: Served, store: FaultyStore) -> None:
    wire = await served.connect()
    with frozen(store):
        await wire.send(
            post("/jobs/note", NOTE) + b"POST /jobs/note HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
        )
        await until(lambda: served.lane._last)
    assert (await wire.receive()).status == 202
    assert await wire.rest() == b""


async def test_a_broken_chunked_body_alone_ends_its_connection(served: Served) -> None:
    wire = await served.connect()
    await wire.send(b"POST /jobs/note HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    await until(lambda: served.ordinary == ["/jobs/note"])
    answer = await wire.ask(b"nonsense\r\n")
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert await wire.rest() == b""
    assert served.dispatcher.engine.counters.admitted == 0


async def test_a_bug_in_the_server_is_no_400(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows what was stored then: the connection ends without an answer."""
    wire = await served.connect()
    await wire.ask(get("/healthz"))

    def fail(entrance: Entrance, body: bytes, key: bytes, owe: Callable[[], Answered], options: Options = PLAIN) -> Answer | None:
        raise RuntimeError("planted")

    served.lane._enter = fail
    await wire.send(post("/jobs/note", NOTE))
    assert await wire.rest() == b""
    assert "planted" in caplog.text


async def test_a_client_that_goes_away_costs_nothing_but_its_answer(served: Served, store: FaultyStore) -> None:
    wire = await served.connect()
    with frozen(store):
        await wire.send(post("/jobs/note", NOTE) * 3)
        await until(lambda: len(served.lane._owed) == 3)
        lane = served.lane
        await wire.close()
        await until(lambda: not served.http.server_state.connections)
        assert len(lane._owed) == 0
    await served.dispatcher.join()
    assert served.dispatcher.engine.counters.done == 3
    assert (await served.ask(post("/jobs/note", NOTE))).status == 202


async def test_a_connection_that_is_gone_leaves_nothing_to_be_collected(served: Served) -> None:
    """Else the collector frees hundreds of them at once, while requests wait."""
    gc.disable()
    try:
        wire = await served.connect()
        await wire.ask(post("/jobs/note", NOTE))
        await wire.ask(post("/jobs/note", NOTE))
        lane = weakref.ref(served.lane)
        await wire.close()
        await until(lambda: not served.http.server_state.connections)
        await served.dispatcher.join()
        await asyncio.sleep(0)
        assert lane() is None
    finally:
        gc.enable()


# -------------------------------------------------------------------------------------------------------------- too much


async def test_a_connection_with_many_waiting_requests_is_not_read_from(served: Served, store: FaultyStore) -> None:
    wire = await served.connect()
    with frozen(store):
        await wire.send(post("/jobs/note", NOTE) * (LINE_LIMIT * 2))
        await until(lambda: served.lane.flow.read_paused)
    ids = [number((await wire.receive()).json()["id"]) for _ in range(LINE_LIMIT * 2)]
    assert ids == sorted(ids)
    assert not served.lane.flow.read_paused


async def test_a_client_that_does_not_read_its_answers_is_not_read_from(served: Served) -> None:
    wire = await served.connect()
    await wire.ask(get("/healthz"))
    lane = served.lane
    paused = []
    for step in (lane.pause_writing, lane.resume_writing):
        step()
        paused.append(lane.flow.read_paused)
    assert paused == [True, False]
    assert (await wire.ask(post("/jobs/note", NOTE))).status == 202


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent_and_the_connection_goes_on(served: Served) -> None:
    wire = await served.connect()
    answer = await wire.ask(post("/jobs/note", b"", length=2 * MIB))
    assert (answer.status, answer.json()["type"]) == (413, "urn:cabrank:payload-too-large")
    await wire.send(b"x" * (2 * MIB))
    assert (await wire.ask(post("/jobs/note", NOTE))).status == 202


async def test_a_chunked_body_that_is_too_large_is_not_read_to_its_end(served: Served) -> None:
    wire = await served.connect()
    await wire.send(chunked("/jobs/note", b"x" * MIB, b"x")[: -len(b"0\r\n\r\n")])
    answer = await wire.receive()
    assert (answer.status, answer.headers["connection"]) == (413, "close")


# ------------------------------------------------------------------------------------------------------------------ life


async def test_a_request_whose_turn_does_not_come_is_answered_503_once(served: Served, store: FaultyStore) -> None:
    wire = await served.connect()
    with frozen(store):
        await wire.send(post("/jobs/note", NOTE))
        await until(lambda: bool(served.lane._owed))
        for _ in range(LATE_TICKS + 1):
            served.http._heads.renew(())
            served.lane.tick()
        answer = await wire.receive()
    assert (answer.status, answer.json()["type"]) == (503, "urn:cabrank:answer-late")
    assert answer.headers["retry-after"] in {"2", "3"}
    await served.dispatcher.join()  # it was stored all the same: 503 says that this is not known
    assert served.dispatcher.engine.counters.done == 1
    assert (await wire.ask(post("/jobs/note", NOTE))).status == 202


async def test_a_silent_connection_is_closed_and_one_that_waits_is_not(served: Served, store: FaultyStore) -> None:
    wire = await served.connect()
    with frozen(store):
        await wire.send(post("/jobs/note", NOTE))
        await until(lambda: bool(served.lane._owed))
        for _ in range(IDLE_TICKS + 1):
            served.lane.tick()
    assert (await wire.receive()).status == 202
    served.lane.tick()
    assert await wire.rest() == b""


async def test_the_end_of_the_server_waits_for_lane_requests(served: Served, store: FaultyStore) -> None:
    waiting, idle = await served.connect(), await served.connect()
    await idle.ask(get("/healthz"))
    with frozen(store):
        await waiting.send(post("/jobs/note", NOTE))
        await until(lambda: any(cast(Any, lane)._owes for lane in served.http.server_state.connections))
        served.http.should_exit = True
        assert await idle.rest() == b""
    answer = await waiting.receive()
    assert (answer.status, answer.headers["connection"]) == (202, "close")
    assert await waiting.rest() == b""


async def test_a_reply_is_fulfilled_once(served: Served) -> None:
    wire = await served.connect()
    await wire.ask(get("/healthz"))
    reply = served.lane._replies.owe()
    reply(Answer(202, b"first"))
    reply(Answer(202, b"second"))
    assert (await wire.receive()).body == b"first"
