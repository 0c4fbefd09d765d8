"""What a caller may set beside the body: the options of `submit`, within what the app allows."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

import pytest

import cabrank
from cabrank.app import CALLER_OPTIONS
from cabrank.drafts import Options
from cabrank.events import Event, JobsAdmitted
from cabrank.server.parameters import OPTION_HEADERS, Submit, SubmitOne
from cabrank.states import State
from cabrank.stores.contract import JobRecord
from tests.server.app import make_app
from tests.server.serving import Response, Served, get, number, post, serving, until
from tests.server.test_answers import told

NOTE = b'{"device":"a","count":7}'
LATE = 4_102_444_800  # 2100-01-01


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app(), grace_s=0) as served:
        yield served


async def waiting(served: Served, answer: Response) -> JobRecord:
    """The job that was taken on, as it waits."""
    assert answer.status == 202
    id = number(answer.json()["id"])
    [record] = (await served.dispatcher.engine.store.find([id])).values()
    assert record.state is State.WAITING
    return record


def test_every_option_of_submit_is_one_that_callers_may_be_let_set() -> None:
    assert set(Options.__struct_fields__) == set(CALLER_OPTIONS)
    assert set(CALLER_OPTIONS) <= set(SubmitOne.__struct_fields__)
    assert set(CALLER_OPTIONS) - {"unique", "on_conflict", "unique_over"} <= set(Submit.__struct_fields__), "a unique key is of one job"
    assert set(OPTION_HEADERS.values()) == set(CALLER_OPTIONS)


@pytest.mark.parametrize("asked", ["query", "header"])
async def test_a_job_is_due_when_the_caller_says(served: Served, asked: str) -> None:
    for name, value in (("due_at", f"{LATE}"), ("due_at", "2100-01-01T00:00:00Z"), ("due_at", "2100-01-01T01:00:00%2B01:00")):
        header = f"Cabrank-Due-At: {value.replace('%2B', '+')}"
        request = post(f"/jobs/note?{name}={value}", NOTE) if asked == "query" else post("/jobs/note", NOTE, header)
        record = await waiting(served, await served.ask(request))
        assert record.due_at == LATE


async def test_all_options_reach_the_job(served: Served) -> None:
    seen: list[Event] = []
    served.dispatcher.engine.events.subscribe(seen.append)
    await served.ask(post("/jobs/note?delay_s=1000&priority=2", NOTE, "cabrank-deadline-s: 2000"))
    await until(lambda: any(isinstance(event, JobsAdmitted) for event in seen))
    [job] = [job for event in seen if isinstance(event, JobsAdmitted) for job in event.jobs]
    now = served.dispatcher.clock.now()
    assert job.priority == 2
    assert now < job.due_at <= now + 1000
    assert now + 1000 < job.deadline_at <= now + 2000


async def test_all_jobs_of_a_document_get_the_options(served: Served) -> None:
    answer = await served.ask(post("/telemetry?delay_s=1000&priority=9", b'[{"device":"a"},{"device":"b"}]'))
    found = await served.dispatcher.engine.store.find([number(id) for id in answer.json()["ids"]])
    assert [(record.state, record.priority) for record in found.values()] == [(State.WAITING, 9)] * 2


@pytest.mark.parametrize(
    ("query", "headers", "words"),
    [
        ("delay=5", (), "no parameter is named 'delay'"),
        ("delay_s=x", (), "$.delay_s"),
        ("delay_s=-1", (), "delay_s"),
        ("delay_s=nan", (), "delay_s"),
        ("delay_s=1e999", (), "delay_s"),
        ("priority=10", (), "priority"),
        ("priority=1.5", (), "priority"),
        ("priority=1&priority=2", (), "twice"),
        ("priority=1", ("Cabrank-Priority: 1",), "twice"),
        ("delay_s=1&due_at=5", (), "not both"),
        ("due_at=2100-01-01T00:00:00", (), "offset from UTC"),
        ("due_at=tomorrow", (), "due_at"),
        ("", ("Cabrank-Deadline-S: soon",), "deadline_s"),
        ("tags=a%20b", (), "tags"),
        ("tags=", (), "tags"),
        ("priority=null", (), "priority"),
        ("unique=null&tags=NULL&delay_s=Null", (), "delay_s"),
        ("tags=" + ",".join(f"t{place}" for place in range(17)), (), "at most 16 tags"),
        ("unique=", (), "unique"),
        ("unique=%C3%A4", (), "printable ASCII"),
        ("unique=" + "k" * 257, (), "unique"),
        ("on_conflict=skip", (), "give unique too"),
        ("unique=k&on_conflict=forget", (), "on_conflict"),
        ("unique_over=waiting", (), "give unique too"),
        ("unique=k&unique_over=", (), "waiting is among them"),
        ("unique=k&unique_over=waiting,done", (), "waiting is among them"),
    ],
)
async def test_what_cannot_be_meant_is_refused_and_stores_nothing(served: Served, query: str, headers: tuple[str, ...], words: str) -> None:
    answer = await served.ask(post(f"/jobs/note?{query}", NOTE, *headers))
    assert told(answer) == (400, "parameter-unusable")
    assert words in answer.json()["detail"]
    assert served.dispatcher.engine.counters.admitted == 0


async def test_a_moment_far_beyond_any_calendar_only_waits(served: Served) -> None:
    await waiting(served, await served.ask(post("/jobs/note?due_at=1e300", NOTE)))
    assert (await served.ask(post("/jobs/note", NOTE))).status == 202
    assert (await served.ask(get("/readyz"))).status == 200


async def test_an_app_says_what_callers_may_set() -> None:
    app = cabrank.App(caller_options=["delay_s"])

    @app.job
    async def note() -> None: ...

    async with serving(app, grace_s=0) as served:
        assert (await served.ask(post("/jobs/note?delay_s=1000", b""))).status == 202
        answer = await served.ask(post("/jobs/note?priority=0", b""))
        assert told(answer) == (400, "parameter-unusable")
        assert "they may set delay_s" in answer.json()["detail"]


def test_an_app_cannot_allow_what_is_no_option() -> None:
    with pytest.raises(cabrank.RegistrationError, match="'delay': there are delay_s"):
        cabrank.App(caller_options=["delay"])


async def test_a_key_is_of_one_body_with_one_set_of_options(served: Served) -> None:
    first = await served.ask(post("/jobs/note?delay_s=1000", NOTE, "Idempotency-Key: k"))
    again = await served.ask(post("/jobs/note", NOTE, "Idempotency-Key: k", "Cabrank-Delay-S: 1000"))
    assert again.json() == first.json()
    for path in ("/jobs/note", "/jobs/note?delay_s=999"):
        assert told(await served.ask(post(path, NOTE, "Idempotency-Key: k"))) == (422, "key-reused")


# ----------------------------------------------------------------------------------------------------- tags and unique


@pytest.mark.parametrize("asked", ["query", "header"])
async def test_tags_are_kept_with_the_job(served: Served, asked: str) -> None:
    request = (
        post("/jobs/note?delay_s=1000&tags=blue,eu-1,blue", NOTE)
        if asked == "query"
        else post("/jobs/note?delay_s=1000", NOTE, "Cabrank-Tags: blue, eu-1")
    )
    answer = await served.ask(request)
    assert list((await waiting(served, answer)).tags) == ["blue", "eu-1"]
    assert (await served.ask(get(f"/jobs/{answer.json()['id']}"))).json()["tags"] == ["blue", "eu-1"]


async def test_the_jobs_of_a_batch_a_stream_and_a_document_are_tagged(served: Served) -> None:
    body = b'[{"device":"a"},{"device":"b"}]'
    for path in ("/jobs/note/batch", "/telemetry"):
        for id in (await served.ask(post(f"{path}?delay_s=1000&tags=blue", body))).json()["ids"]:
            assert (await served.ask(get(f"/jobs/{id}"))).json()["tags"] == ["blue"]
    wire = await served.connect()
    await wire.send(post("/jobs/note/stream?delay_s=1000&tags=blue", NOTE, "Connection: close"))
    ids = re.findall(r'"id":"([^"]+)"', (await wire.rest()).decode())
    assert len(ids) == 1
    assert (await served.ask(get(f"/jobs/{ids[0]}"))).json()["tags"] == ["blue"]


async def test_of_a_unique_key_one_job_waits(served: Served) -> None:
    first = await served.ask(post("/jobs/note?delay_s=1000&unique=k", NOTE))
    again = await served.ask(post("/jobs/note?delay_s=5", b'{"device":"b"}', "Cabrank-Unique: k"))
    assert (again.status, again.json()) == (202, first.json())
    assert served.dispatcher.engine.counters.admitted == 1
    moved = await served.ask(post(f"/jobs/note?due_at={LATE}&unique=k&on_conflict=debounce", NOTE))
    assert moved.json() == first.json()
    assert (await waiting(served, moved)).due_at == LATE
    other = await served.ask(post("/jobs/note?delay_s=1000&unique=k", NOTE, "Cabrank-On-Conflict: replace"))
    assert other.json() != first.json()
    assert (await served.ask(get(f"/jobs/{first.json()['id']}"))).json()["state"] == "cancelled"
    over = await served.ask(post("/jobs/note?unique=k&unique_over=waiting,%20dead", NOTE))
    assert over.json() == other.json()


@pytest.mark.parametrize("path", ["/jobs/note/batch", "/jobs/note/stream", "/telemetry"])
@pytest.mark.parametrize("asked", ["query", "header"])
async def test_a_unique_key_is_of_one_job(served: Served, path: str, asked: str) -> None:
    request = post(f"{path}?unique=k", b"[]") if asked == "query" else post(path, b"[]", "Cabrank-Unique: k")
    answer = await served.ask(request)
    assert told(answer) == (400, "parameter-unusable")
    assert "no parameter is named 'unique'" in answer.json()["detail"]
