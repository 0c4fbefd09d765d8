"""What each request is answered: the same by the lane and the ordinary way, and a 4xx stored nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

import cabrank
from cabrank.settings import MIB
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS
from cabrank.testing import FaultyStore
from tests.server.app import Later, make_app
from tests.server.serving import Response, Served, frozen, get, number, post, serving, turning_store, until

NOTE = b'{"device":"a","count":7}'


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app()) as served:
        yield served


@pytest.fixture(params=["lane", "ordinary"])
def way(request: pytest.FixtureRequest) -> str:
    """What makes a path go the one way or the other."""
    return "" if request.param == "lane" else "?"


def told(answer: Response) -> tuple[int, str]:
    """The status and the type of a problem, whose body must agree with the response."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == answer.status
    assert body["title"]
    assert body["detail"]
    return answer.status, body["type"].removeprefix("urn:cabrank:")


async def test_a_job_is_taken_on_under_its_id(served: Served, way: str) -> None:
    answer = await served.ask(post(f"/jobs/note{way}", NOTE))
    assert (answer.status, answer.headers["content-type"]) == (202, "application/json")
    assert await served.dispatcher.handle(answer.json()["id"]).result() == 7


async def test_a_document_becomes_jobs_in_its_order(served: Served, way: str) -> None:
    document = b'[{"device":"a","count":3},{"device":"b","count":1},{"device":"c","count":2}]'
    answer = await served.ask(post(f"/telemetry{way}", document))
    ids = answer.json()["ids"]
    assert [await served.dispatcher.handle(id).result() for id in ids] == [3, 1, 2]


async def test_an_empty_document_is_accepted_and_makes_nothing(served: Served, way: str) -> None:
    answer = await served.ask(post(f"/telemetry{way}", b"[]"))
    assert (answer.status, answer.json()) == (202, {"ids": []})


async def test_a_handler_without_parameters_takes_an_empty_body(served: Served, way: str) -> None:
    assert (await served.ask(post(f"/jobs/bare{way}", b""))).status == 202


@pytest.mark.parametrize(
    ("path", "body", "expected", "words"),
    [
        ("/jobs/note", b'{"device":', (400, "payload-malformed"), "not valid JSON"),
        ("/jobs/note", b"", (400, "payload-malformed"), "not valid JSON"),
        ("/telemetry", b"[{]", (400, "payload-malformed"), "not valid JSON"),
        ("/jobs/note", b'{"device":1}', (422, "payload-invalid"), "$.device"),
        ("/jobs/note", b'{"count":1}', (422, "payload-invalid"), "`device`"),
        ("/telemetry", b'[{"device":"a"},{"device":"a","count":"x"}]', (422, "payload-invalid"), "$[1].count"),
        ("/jobs/bare", b"1", (422, "payload-invalid"), "no parameter"),
        ("/jobs/nobody", NOTE, (404, "unknown-handler"), "note, bare"),
        ("/jobs/note", b'"' + b"x" * MIB + b'"', (413, "payload-too-large"), "1,048,576"),
        ("/telemetry", b'"' + b"x" * TURN_BYTES + b'"', (413, "document-too-large"), "in parts"),
        ("/telemetry", b"[" + b",".join([b'{"device":"a"}'] * (TURN_ROWS + 1)) + b"]", (413, "document-too-large"), "10,001 jobs"),
        ("/telemetry", b'[{"device":"' + b"x" * MIB + b'"}]', (413, "payload-too-large"), "1,048,576"),
        ("/broken", b"[]", (500, "document-failed"), "log"),
        ("/untyped", b"[]", (500, "document-failed"), "log"),
    ],
)
async def test_what_cannot_be_taken_is_explained_and_stores_nothing(
    served: Served, way: str, path: str, body: bytes, expected: tuple[int, str], words: str
) -> None:
    answer = await served.ask(post(path + way, body))
    assert told(answer) == expected
    assert words in answer.json()["detail"]
    assert served.dispatcher.engine.counters.admitted == 0


async def test_a_document_function_that_raises_is_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    await served.ask(post("/broken", b'[{"device":"a"}]'))
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Later)
    assert "/broken" in record.getMessage()


async def test_a_key_makes_a_request_repeatable(served: Served, way: str) -> None:
    once = await served.ask(post("/jobs/note", NOTE, "Idempotency-Key: k"))
    again = await served.ask(post(f"/jobs/note{way}", NOTE, "Idempotency-Key: k"))
    assert (again.status, again.json()) == (202, once.json())
    assert served.dispatcher.engine.counters.admitted == 1


async def test_a_key_makes_a_document_repeatable(served: Served, way: str) -> None:
    document = b'[{"device":"a"},{"device":"b"}]'
    once = await served.ask(post("/telemetry", document, "Idempotency-Key: k"))
    again = await served.ask(post(f"/telemetry{way}", document, "Idempotency-Key: k"))
    assert again.json() == once.json()
    assert served.dispatcher.engine.counters.admitted == 2


@pytest.mark.parametrize(("path", "body"), [("/jobs/note", b'{"device":"b"}'), ("/jobs/bare", b""), ("/telemetry", b'[{"device":"a"}]')])
async def test_a_key_is_of_one_body_at_one_path(served: Served, way: str, path: str, body: bytes) -> None:
    await served.ask(post("/jobs/note", NOTE, "Idempotency-Key: k"))
    answer = await served.ask(post(path + way, body, "Idempotency-Key: k"))
    assert told(answer) == (422, "key-reused")
    assert served.dispatcher.engine.counters.admitted == 1


@pytest.mark.parametrize("key", ["", "k" * 257, "schlüssel", "tab\there"])
async def test_a_key_is_short_and_printable(served: Served, way: str, key: str) -> None:
    request = post(f"/jobs/note{way}", NOTE, "Idempotency-Key: KEY").replace(b"KEY", key.encode("latin-1"), 1)
    assert told(await served.ask(request)) == (400, "key-unusable")


async def test_a_full_queue_refuses_and_says_when_to_come_back(way: str) -> None:
    app, go = cabrank.App(), asyncio.Event()

    @app.job
    async def hold() -> None:
        await go.wait()

    async with serving(app, max_workers=1, max_queue=1) as served:
        request = post(f"/jobs/hold{way}", b"")
        await served.ask(request)
        await until(lambda: served.dispatcher.pools["async"].idle == 0)
        assert (await served.ask(request)).status == 202
        answer = await served.ask(request)
        assert told(answer) == (429, "queue-full")
        assert answer.headers["retry-after"] in {"1", "2"}
        assert "'async'" in answer.json()["detail"]
        go.set()


async def test_a_server_that_stops_refuses_work_and_still_answers_questions(served: Served, way: str) -> None:
    taken = await served.ask(post("/jobs/note", NOTE))
    served.dispatcher.engine.close_door()
    for request in (post(f"/jobs/note{way}", NOTE), post(f"/telemetry{way}", b'[{"device":"a"}]'), get("/readyz")):
        answer = await served.ask(request)
        assert told(answer) == (503, "stopping")
        assert answer.headers["retry-after"] in {"4", "5", "6"}
    for path in ("/healthz", "/metrics", f"/jobs/{taken.json()['id']}"):
        assert (await served.ask(get(path))).status == 200


async def test_an_unanswered_store_is_503_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabrank.server.posting.PATIENCE_S", 0.01)
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        with frozen(store):
            answer = await served.ask(post("/jobs/note?", NOTE))
        assert told(answer) == (503, "answer-late")


async def test_readiness_tells_of_a_store_that_is_away() -> None:
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        store.requests_to_lose = 1_000_000
        served.dispatcher.engine.committer.wake()
        await until(lambda: not served.dispatcher.engine.answering)
        assert told(await served.ask(get("/readyz"))) == (503, "store-unavailable")
        assert (await served.ask(get("/healthz"))).status == 200
        text = (await served.ask(get("/metrics"))).body.decode()
        assert "\ncabrank_ready 0\n" in text
        assert "cabrank_jobs_waiting" not in text
        store.requests_to_lose = 0


async def test_readiness_says_what_an_acknowledgement_means(served: Served) -> None:
    answer = await served.ask(get("/readyz"))
    assert answer.json() == {"ready": True, "durability": "memory", "acknowledged": served.dispatcher.engine.store.capabilities.promise}


async def test_a_job_can_be_looked_up_while_it_runs_and_afterwards() -> None:
    app, go = cabrank.App(), asyncio.Event()

    @app.job
    async def hold() -> str:
        await go.wait()
        return "held"

    async with serving(app) as served:
        id = (await served.ask(post("/jobs/hold", b""))).json()["id"]
        await until(lambda: served.dispatcher.pools["async"].idle < 100)
        running = (await served.ask(get(f"/jobs/{id}"))).json()
        moments = [running.pop(name) for name in ("created_at", "started_at", "changed_at")]
        assert moments == sorted(moments)
        assert [(one["what"], one["at"]) for one in running.pop("timeline")] == [("submitted", moments[0]), ("began", moments[1])]
        assert running == {"id": id, "handler": "hold", "queue": "async", "state": "running", "run": 1}
        go.set()
        await served.dispatcher.join()
        done = (await served.ask(get(f"/jobs/{id}"))).json()
        assert {"id": id, "state": "done", "result": "held"}.items() <= done.items()
        assert "handler" in done


@pytest.mark.parametrize("id", ["nonsense", "aaaaaaaa-1", "OTHER"])
async def test_an_unknown_job_is_404(served: Served, id: str) -> None:
    id = f"{served.dispatcher.engine.handles.prefix}-999" if id == "OTHER" else id
    assert told(await served.ask(get(f"/jobs/{id}"))) == (404, "unknown-job")


@pytest.mark.parametrize("path", ["/", "/nothing", "/telemetry/", "/jobs/note/deep"])
async def test_an_unknown_path_is_404(served: Served, path: str) -> None:
    assert told(await served.ask(post(path, NOTE))) == (404, "unknown-path")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/telemetry", {"POST"}), ("PUT", "/jobs/note", {"DELETE", "GET", "HEAD", "POST"}), ("POST", "/readyz", {"GET", "HEAD"})],
)
async def test_a_wrong_method_is_told_the_right_ones(served: Served, method: str, path: str, allowed: set[str]) -> None:
    answer = await served.ask(post(path, b"").replace(b"POST", method.encode(), 1))
    assert told(answer) == (405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


async def test_a_web_page_of_another_origin_cannot_post(served: Served) -> None:
    """Any page in the user's browser reaches loopback; a simple request needs no consent."""
    answer = await served.ask(post("/jobs/note", NOTE, "Origin: https://evil.example", "Content-Type: text/plain"))
    assert told(answer) == (403, "foreign-origin")
    assert served.dispatcher.engine.counters.admitted == 0


async def test_a_compressed_body_is_refused_with_the_reason(served: Served) -> None:
    answer = await served.ask(post("/jobs/note", b"\x1f\x8b", "Content-Encoding: gzip"))
    assert told(answer) == (415, "body-encoded")


async def test_metrics_count_what_happened_and_print_zeros(served: Served) -> None:
    await served.ask(post("/telemetry", b'[{"device":"a"},{"device":"b"}]'))
    await served.dispatcher.join()
    answer = await served.ask(get("/metrics"))
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    expected = {
        "cabrank_jobs_admitted_total": "2",
        "cabrank_jobs_done_total": "2",
        "cabrank_jobs_dead_total": "0",
        'cabrank_jobs_waiting{queue="async"}': "0",
        'cabrank_jobs_running{queue="async"}': "0",
        'cabrank_workers{queue="async"}': "100",
        'cabrank_workers_idle{queue="async"}': "100",
        "cabrank_ready": "1",
    }
    assert expected.items() <= samples.items()
    assert int(samples["cabrank_turns_total"]) > 0
    assert float(samples["cabrank_turns_seconds_total"]) > 0


async def test_each_metric_has_its_help_and_type_once(served: Served) -> None:
    lines = (await served.ask(get("/metrics"))).body.decode().splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert {line.partition(" ")[0].partition("{")[0] for line in lines if not line.startswith("#")} == set(names)


@pytest.mark.parametrize("path", ["/readyz", "/metrics", "/healthz"])
async def test_a_document_cannot_take_a_path_of_the_server(path: str) -> None:
    app = make_app()

    @app.document(path)
    def taken(document: int) -> cabrank.Jobs:
        raise NotImplementedError

    with pytest.raises(cabrank.RegistrationError, match=path):
        async with serving(app):
            pass


async def test_a_stranger_on_the_line_breaks_nothing_for_others() -> None:
    store: FaultyStore = turning_store()
    async with serving(make_app(), store=store) as served:
        wire = await served.connect()
        await wire.send(post("/jobs/note?", b"", length=100))  # and the body never comes
        await until(lambda: served.ordinary == ["/jobs/note"])
        await wire.close()
        ids = [number((await served.ask(post("/jobs/note", NOTE))).json()["id"]) for _ in range(2)]
        assert ids[0] < ids[1]
