"""Requests that come in one round of the event loop are entered together, and nobody can tell but by the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import pytest

import cabrank
from cabrank.errors import StoreUnavailable
from cabrank.events import JobsAdmitted
from cabrank.server.lane import Lane
from cabrank.server.problems import Answer
from cabrank.server.reception import ACCEPTED
from cabrank.server.replies import LATE_TICKS, Accepted, Heads
from cabrank.server.round import FEW, MOST
from cabrank.stores.contract import InspectedStore
from tests.server.app import Payload, make_app
from tests.server.serving import Response, Served, Wire, frozen, get, number, post, serving, turning_store, until

NOTE = b'{"device":"a","count":7}'
JOB = post("/jobs/note", NOTE)
DOCUMENT = post("/telemetry", b"[%b,%b]" % (NOTE, NOTE))


@pytest.fixture(params=["memory", "turns"])
def store(request: pytest.FixtureRequest) -> str | InspectedStore:
    """One that judges room at once, and one that does in its turns."""
    return "memory://" if request.param == "memory" else turning_store()


@pytest.fixture
async def served(store: str | InspectedStore) -> AsyncGenerator[Served]:
    async with serving(make_app(), store=store) as served:
        yield served


class Many:
    """Connections whose next requests, if they are `request` again, join a round."""

    def __init__(self, served: Served, wires: Sequence[Wire], lanes: Sequence[Lane]) -> None:
        self.served = served
        self.wires = wires
        self.lanes = lanes

    def come(self, *requests: bytes) -> None:
        """One request on each connection, all in one round."""
        for lane, request in zip(self.lanes, requests, strict=True):
            lane.data_received(request)

    async def answers(self) -> list[Response]:
        return [await wire.receive() for wire in self.wires]


async def connected(served: Served, connections: int, *requests: bytes) -> Many:
    """So many, each of which has asked these before."""
    for _ in range(FEW):
        await (await served.connect()).ask(get("/healthz"))
    wires: list[Wire] = []
    lanes: list[Lane] = []
    for _ in range(connections):
        before = set(served.http.server_state.connections)
        wires.append(await served.connect())
        for request in requests:
            await wires[-1].ask(request)
        [lane] = set(served.http.server_state.connections) - before
        lanes.append(cast(Lane, lane))
    return Many(served, wires, lanes)


async def all_owe(many: Many) -> None:
    """Wait until each connection has a request that is not answered."""
    await until(lambda: all(lane._owed for lane in many.lanes))


def ids(answers: Sequence[Response]) -> list[int]:
    said = [answer.json() for answer in answers]
    return [number(id) for one in said for id in one.get("ids", [one.get("id")])]


@pytest.mark.parametrize("request_", [JOB, DOCUMENT])
async def test_requests_of_one_round_have_their_own_ids_in_a_row(served: Served, request_: bytes) -> None:
    many = await connected(served, 20, request_, request_)
    many.come(*[request_] * 20)
    assert all(lane.coming for lane in many.lanes)
    answers = await many.answers()
    assert [answer.status for answer in answers] == [202] * 20
    got = ids(answers)
    assert got == list(range(got[0], got[0] + len(got)))
    await served.dispatcher.join()
    counters = served.dispatcher.engine.counters
    assert counters.done == counters.admitted == 3 * len(got)


async def test_few_connections_wait_for_no_round(served: Served) -> None:
    wires = [await served.connect() for _ in range(FEW)]
    for wire in wires:
        await wire.ask(JOB)
    for lane in cast("set[Lane]", served.http.server_state.connections):
        lane.data_received(JOB)
        assert not lane.coming
    assert [(await wire.receive()).status for wire in wires] == [202] * FEW


async def test_a_turn_takes_along_what_came_before_it() -> None:
    """Else a request would wait for the turn behind it, where only few ask."""
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        many = await connected(served, 1, JOB)
        await served.dispatcher.join()
        engine, admitted = served.dispatcher.engine, list[int]()
        turns = engine.committer.number
        engine.events.subscribe(lambda event: admitted.append(engine.committer.number) if isinstance(event, JobsAdmitted) else None)
        engine.committer.wake()  # its turn begins before the event loop comes to the round
        many.come(JOB)
        await many.answers()
        assert admitted == [turns + 1]


@pytest.mark.parametrize("more_s", [60.0, 0.0])
async def test_a_turn_waits_while_each_look_of_the_loop_brings_more(monkeypatch: pytest.MonkeyPatch, more_s: float) -> None:
    """But not for long."""
    monkeypatch.setattr("cabrank.committer.MORE_S", more_s)
    async with serving(make_app(), store=turning_store()) as served:
        many = await connected(served, 8, JOB)
        await served.dispatcher.join()
        admitted = list[int]()
        served.dispatcher.engine.events.subscribe(
            lambda event: admitted.append(len(event.jobs)) if isinstance(event, JobsAdmitted) else None
        )
        for lane in many.lanes:
            lane.data_received(JOB)
            await asyncio.sleep(0)
        assert [answer.status for answer in await many.answers()] == [202] * 8
        assert sum(admitted) == 8
        assert (admitted == [8]) is (more_s > 0)


async def test_a_round_that_is_full_does_not_wait_for_the_loop(served: Served) -> None:
    many = await connected(served, MOST + 1, JOB)
    many.come(*[JOB] * (MOST + 1))
    assert [lane.coming for lane in many.lanes] == [False] * MOST + [True]
    assert len(set(ids(await many.answers()))) == MOST + 1


async def test_what_is_wrong_with_one_is_said_to_that_one(served: Served) -> None:
    broken = post("/jobs/note", NOTE.replace(b"}", b"("))
    many = await connected(served, 5, JOB)
    many.come(JOB, broken, JOB, broken, JOB)
    assert all(lane.coming for lane in many.lanes)
    answers = await many.answers()
    assert [answer.status for answer in answers] == [202, 400, 202, 400, 202]
    assert len(set(ids([answers[0], answers[2], answers[4]]))) == 3
    await served.dispatcher.join()
    assert served.dispatcher.engine.counters.admitted == 5 + 3


async def test_a_round_of_nothing_but_bad_requests_stores_nothing(served: Served) -> None:
    many = await connected(served, 3, JOB)
    many.come(*[post("/jobs/note", b"(" * len(NOTE))] * 3)
    assert [answer.status for answer in await many.answers()] == [400] * 3
    assert served.dispatcher.engine.counters.admitted == 3


async def test_a_bug_ends_the_connection_of_its_request_alone(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    many = await connected(served, 3, JOB, JOB)
    entrance = served.http._reception.entrances[b"/jobs/note"]
    made, bodies = entrance.made, []

    def fail_once(body: bytes) -> Any:
        bodies.append(body)
        if len(bodies) == 2:
            raise RuntimeError("planted")
        return made(body)

    monkeypatch.setattr(entrance, "made", fail_once)
    many.come(JOB, JOB, JOB)
    assert [(await many.wires[place].receive()).status for place in (0, 2)] == [202, 202]
    assert await _ended(many.wires[1]) == b""
    assert "planted" in caplog.text


async def test_a_bug_in_what_is_done_for_all_ends_them_all(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows what was stored."""
    many = await connected(served, 3, JOB)
    other = await served.connect()

    def fail(made: Sequence[Any]) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(served.http._reception.entrances[b"/jobs/note"], "together", fail)
    many.come(JOB, JOB, JOB)
    assert [await _ended(wire) for wire in many.wires] == [b""] * 3
    assert "planted" in caplog.text
    assert (await other.ask(get("/healthz"))).status == 200


async def _ended(wire: Wire) -> bytes:
    try:
        return await wire.rest()
    except ConnectionError:
        return b""


async def test_what_comes_behind_a_request_of_a_round_stays_behind(served: Served) -> None:
    many = await connected(served, 2, JOB)
    first = many.lanes[0]
    many.come(JOB, JOB)
    first.data_received(JOB + get("/healthz"))
    assert not first.coming
    first.data_received(JOB)
    answers = [await many.wires[0].receive() for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 200, 202]
    placed = ids([answers[0], answers[1], answers[3]])
    assert placed == sorted(set(placed))
    assert (await many.wires[1].receive()).status == 202


async def test_a_fault_of_a_later_request_is_not_told_before_the_answer_to_an_earlier_one(served: Served) -> None:
    many = await connected(served, 1, JOB)
    for request in (JOB, post("/jobs/note", NOTE.replace(b"}", b"("))):
        many.come(request)
    assert [(await many.wires[0].receive()).status for _ in range(2)] == [202, 400]


async def test_a_request_behind_one_that_is_owed_waits_for_it() -> None:
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        many = await connected(served, 2, JOB)
        with frozen(store):
            many.come(JOB, JOB)
            await all_owe(many)
            many.lanes[0].data_received(JOB)
            assert not many.lanes[0].coming
        answers = [await many.wires[place].receive() for place in (0, 0, 1)]
        assert [answer.status for answer in answers] == [202] * 3
        assert len(set(ids(answers))) == 3


async def test_an_answer_that_comes_too_late_is_not_given_to_the_next_request() -> None:
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        many = await connected(served, 1, JOB)
        [lane] = many.lanes
        with frozen(store):
            many.come(JOB)
            await until(lambda: bool(lane._owed))
            for _ in range(LATE_TICKS + 1):
                served.http._heads.renew(())
                lane.tick()
            assert [answer.status for answer in await many.answers()] == [503]
            many.come(JOB)
            await until(lambda: bool(lane._owed))
        [answer] = await many.answers()
        await served.dispatcher.join()
        assert served.dispatcher.engine.counters.admitted == ids([answer])[0] == 3


async def test_the_end_of_the_server_waits_for_a_round() -> None:
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        many = await connected(served, 2, JOB)
        with frozen(store):
            many.come(JOB, JOB)
            await all_owe(many)
            many.lanes[0].shutdown()
        answers = await many.answers()
        assert [(answer.status, answer.headers.get("connection")) for answer in answers] == [(202, "close"), (202, None)]
        assert await many.wires[0].rest() == b""


@pytest.mark.parametrize("end", ["eof_received", "shutdown"])
async def test_the_end_of_a_connection_enters_what_came(served: Served, end: str) -> None:
    many = await connected(served, 1, JOB)
    many.come(JOB)
    getattr(many.lanes[0], end)()
    assert not many.lanes[0].coming
    await served.dispatcher.join()
    assert served.dispatcher.engine.counters.admitted == 2


async def test_a_client_that_is_gone_before_its_round_ends_costs_the_others_nothing(served: Served) -> None:
    many = await connected(served, 3, JOB)
    many.come(JOB, JOB, JOB)
    many.lanes[1].transport.abort()
    assert [(await many.wires[place].receive()).status for place in (0, 2)] == [202, 202]
    await served.dispatcher.join()
    assert served.dispatcher.engine.counters.done == 6


async def test_what_finds_no_room_in_a_round_is_refused_by_itself(store: str | InspectedStore) -> None:
    release = asyncio.Event()
    app = cabrank.App()

    @app.job
    async def note(payload: Payload) -> None:
        await release.wait()

    @app.document("/telemetry")
    def telemetry(document: list[Payload]) -> cabrank.Jobs:
        return note.each(document)

    async with serving(app, store=store, max_queue=10, max_workers=1) as served:
        many = await connected(served, 4, get("/healthz"), post("/telemetry", b"[]   "))
        await served.ask(JOB)
        await until(lambda: bool(served.dispatcher.running()))
        document = post("/telemetry", b"[%b,%b]" % (NOTE, NOTE))
        for _ in range(2):
            await served.ask(document)
        for lane in many.lanes:
            lane.data_received(document)
        answers = await many.answers()
        assert [answer.status for answer in answers] == [202, 202, 202, 429]
        release.set()
        await served.dispatcher.join()
        assert served.dispatcher.engine.counters.done == 1 + 5 * 2


async def test_a_full_queue_tells_each_of_a_round() -> None:
    store = turning_store()
    async with serving(make_app(), store=store, max_queue=3) as served:
        many = await connected(served, 5, JOB)
        with frozen(store):
            many.come(*[JOB] * 5)
            await all_owe(many)
        answers = await many.answers()
        assert sorted(answer.status for answer in answers) == [202, 202, 202, 429, 429]
        assert all(answer.headers["retry-after"] for answer in answers if answer.status == 429)
        stored = [answer for answer in answers if answer.status == 202]
        assert len(set(ids(stored))) == 3


async def test_a_store_that_is_away_is_told_to_each_of_a_round() -> None:
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        many = await connected(served, 3, JOB)
        with frozen(store):
            many.come(JOB, JOB, JOB)
            await all_owe(many)
            served.dispatcher.engine.committer.refuse_all(StoreUnavailable("planted"))
            answers = await many.answers()
        assert [answer.status for answer in answers] == [503] * 3


async def test_a_server_that_stops_refuses_each_of_a_round(served: Served) -> None:
    many = await connected(served, 3, JOB)
    many.come(JOB, JOB, post("/jobs/note", NOTE.replace(b"}", b"(")))
    served.dispatcher.engine.close_door()
    answers = await many.answers()
    assert [answer.status for answer in answers] == [503] * 3
    assert served.dispatcher.engine.counters.admitted == 3


async def test_documents_that_cannot_go_as_one_are_entered_one_by_one(store: str | InspectedStore) -> None:
    app = cabrank.App()
    others: list[str] = []

    @app.job
    async def note(payload: Payload) -> None: ...

    @app.job(queue="others")
    async def other(payload: Payload) -> None:
        others.append(payload.device)

    @app.job(limit=cabrank.Limit(running=1))
    async def limited(payload: Payload) -> None: ...

    @app.document("/telemetry")
    def telemetry(document: list[Payload]) -> cabrank.Jobs:
        match document[0].device:
            case "both":
                return note.each(document) + other.each(document)
            case "none":
                return note.each([])
            case "othr":
                return other.each(document)
            case "lims":
                return limited.each(document)
            case _:
                return note.each(document)

    async with serving(app, store=store) as served:
        documents = [post("/telemetry", b'[{"device":"%b"}]' % device) for device in (b"note", b"both", b"othr", b"lims", b"none", b"note")]
        many = await connected(served, len(documents), documents[0])
        many.come(*documents)
        assert all(lane.coming for lane in many.lanes)
        answers = await many.answers()
        assert [len(answer.json()["ids"]) for answer in answers] == [1, 2, 1, 1, 0, 1]
        many.lanes[0].data_received(documents[0])
        many.lanes[1].data_received(documents[2])
        answers += [await many.wires[place].receive() for place in (0, 1)]
        limits = await connected(served, 3, documents[3])
        limits.come(*[documents[3]] * 3)
        answers += await limits.answers()
        assert len(set(ids(answers))) == 6 + 2 + 3
        await served.dispatcher.join()
        assert served.dispatcher.engine.counters.done == len(documents) + 6 + 2 + 3 + 3
        assert sorted(others) == ["both", "othr", "othr"]


async def test_what_is_too_much_together_is_not_too_much_by_itself(store: str | InspectedStore) -> None:
    async with serving(make_app(), store=store, payload_limit=100) as served:
        many = await connected(served, 10, DOCUMENT)
        many.come(*[DOCUMENT] * 10)
        assert [answer.status for answer in await many.answers()] == [202] * 10


async def test_two_heads_on_one_connection_are_told_apart(served: Served) -> None:
    many = await connected(served, 1, JOB, DOCUMENT)
    for request, jobs in ((JOB, 1), (DOCUMENT, 2), (DOCUMENT, 2), (JOB, 1), (JOB, 1)):
        many.come(request)
        assert many.lanes[0].coming
        assert len(ids(await many.answers())) == jobs


async def test_a_202_is_the_same_either_way(served: Served) -> None:
    many = await connected(served, 1, JOB)
    many.come(JOB)
    [hot] = await many.answers()
    first = await served.ask(JOB)
    ordinary = await served.ask(post("/jobs/note?", NOTE))
    assert served.ordinary.count("/jobs/note") == 1
    assert hot.headers.keys() == first.headers.keys() == ordinary.headers.keys()
    assert hot.headers["x-content-type-options"] == first.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("counts", [[1] * 12, [3, 1, 0, 2, 9], [200]])
@pytest.mark.parametrize("path", [b"/jobs/note", b"/telemetry"])
async def test_a_202_is_put_together_as_it_would_be_alone(served: Served, path: bytes, counts: list[int]) -> None:
    entrance = served.http._reception.entrances[path]
    heads = Heads("100% sure")
    accepted = Accepted(heads, entrance)
    for first in (1, 8, 95, 99_999_999, 1_000):
        heads.renew([(b"date", b"%d%% of a day" % first)])
        expected, at = [], first
        for count in [1] * len(counts) if path == b"/jobs/note" else counts:
            expected.append(heads.response(Answer(ACCEPTED, entrance.accepted(at, count)), closes=False))
            at += count
        assert accepted.each(first, [1] * len(counts) if path == b"/jobs/note" else counts) == expected
