"""What is asked of jobs that are there, and done to them: waiting for an outcome, cancelling, listing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

import cabrank
from tests.server.serving import Served, get, post, serving, turning_store, until
from tests.server.test_answers import told


class Held:
    """A server with one worker whose jobs wait until they are let go."""

    def __init__(self, served: Served, go: asyncio.Event) -> None:
        self.served = served
        self.go = go

    async def submit(self, *, query: str = "") -> str:
        return str((await self.served.ask(post(f"/jobs/hold{query}", b'"a"'))).json()["id"])

    async def busy(self) -> None:
        """Return when the worker has a job."""
        await until(lambda: self.served.dispatcher.pools["async"].idle == 0)


@pytest.fixture
async def held() -> AsyncGenerator[Held]:
    app, go = cabrank.App(), asyncio.Event()

    @app.job(retry=cabrank.Retry(attempts=1))
    async def hold(name: str, *, job: cabrank.JobContext = cabrank.context()) -> str:
        job.progress(0.25, name)
        await go.wait()
        if name == "bad":
            raise ValueError(name)
        return name

    @app.job(queue="other")
    async def other() -> None: ...

    async with serving(app, store=turning_store(), max_workers=1, grace_s=0) as served:
        yield Held(served, go)
        go.set()


def request(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


# ----------------------------------------------------------------------------------------------------------- waiting


async def test_who_waits_is_told_as_soon_as_the_job_has_ended(held: Held) -> None:
    id = await held.submit()
    wire = await held.served.connect()
    await wire.send(get(f"/jobs/{id}?wait_s=60"))
    await until(lambda: bool(held.served.dispatcher.engine.handles._waiting))
    held.go.set()
    answer = (await wire.receive()).json()
    assert (answer["state"], answer["result"]) == ("done", "a")


async def test_who_has_waited_long_enough_is_told_what_it_is_now(held: Held) -> None:
    id = await held.submit()
    await held.busy()
    answer = await held.served.ask(get(f"/jobs/{id}?wait_s=0.01"))
    assert (answer.status, answer.json()["state"]) == (200, "running")
    assert not held.served.dispatcher.engine.handles._waiting


async def test_how_far_a_running_job_is_is_told(held: Held) -> None:
    id = await held.submit()
    while "progress" not in (answer := (await held.served.ask(get(f"/jobs/{id}"))).json()):
        await asyncio.sleep(0.01)
    assert answer["progress"] == {"fraction": 0.25, "note": "a", "at": answer["progress"]["at"]}
    held.go.set()
    answer = (await held.served.ask(get(f"/jobs/{id}?wait_s=60"))).json()
    assert (answer["state"], "progress" in answer) == ("done", False)


async def test_a_job_that_failed_is_an_outcome_too(held: Held) -> None:
    held.go.set()
    id = (await held.served.ask(post("/jobs/hold", b'"bad"'))).json()["id"]
    answer = (await held.served.ask(get(f"/jobs/{id}?wait_s=60"))).json()
    assert answer["state"] == "dead"
    assert "ValueError: bad" in answer["error"]
    told = [(one["what"], one.get("state"), one.get("run"), one.get("error_type"), one.get("reason")) for one in answer["timeline"]]
    assert told == [
        ("submitted", "waiting", None, None, None),
        ("began", "running", 1, None, None),
        ("failed", None, 1, "ValueError", None),
        ("became", "dead", None, None, "failed"),
    ]
    assert answer["created_at"] <= answer["timeline"][1]["at"] <= answer["timeline"][2]["at"] == answer["timeline"][3]["at"]
    [listed] = (await held.served.ask(get("/jobs?state=dead"))).json()["jobs"]
    assert "timeline" not in listed


async def test_who_waits_for_a_job_that_has_ended_does_not_wait(held: Held) -> None:
    held.go.set()
    id = await held.submit()
    await held.served.dispatcher.join()
    assert (await held.served.ask(get(f"/jobs/{id}?wait_s=60"))).json()["state"] == "done"


async def test_a_stop_ends_the_wait(held: Held) -> None:
    id = await held.submit()
    wire = await held.served.connect()
    await wire.send(get(f"/jobs/{id}?wait_s=60"))
    await until(lambda: bool(held.served.dispatcher.engine.handles._waiting))
    await held.served.dispatcher.stop(grace_s=0)
    assert told(await wire.receive()) == (503, "stopping")


@pytest.mark.parametrize("query", ["wait_s=-1", "wait_s=61", "wait_s=x", "wait=1"])
async def test_a_wait_has_its_bounds(held: Held, query: str) -> None:
    id = await held.submit()
    assert told(await held.served.ask(get(f"/jobs/{id}?{query}"))) == (400, "parameter-unusable")


# -------------------------------------------------------------------------------------------------------- cancelling


async def test_a_waiting_job_is_cancelled_with_the_answer(held: Held) -> None:
    await held.submit()
    await held.busy()
    id = await held.submit()
    answer = await held.served.ask(request("DELETE", f"/jobs/{id}"))
    assert (answer.status, answer.json()["state"]) == (200, "cancelled")
    assert told(await held.served.ask(request("DELETE", f"/jobs/{id}"))) == (409, "already-ended")


async def test_a_running_job_is_asked_to_stop(held: Held) -> None:
    id = await held.submit()
    await held.busy()
    assert (await held.served.ask(request("DELETE", f"/jobs/{id}"))).status == 200
    held.served.dispatcher.engine.committer.wake()
    assert (await held.served.ask(get(f"/jobs/{id}?wait_s=60"))).json()["state"] == "cancelled"


@pytest.mark.parametrize("id", ["nonsense", "aaaaaaaa-1", "OTHER"])
async def test_what_is_unknown_cannot_be_cancelled(held: Held, id: str) -> None:
    id = f"{held.served.dispatcher.engine.handles.prefix}-999" if id == "OTHER" else id
    assert told(await held.served.ask(request("DELETE", f"/jobs/{id}"))) == (404, "unknown-job")


async def test_a_web_page_of_another_origin_cannot_cancel(held: Held) -> None:
    id = await held.submit()
    assert told(await held.served.ask(request("DELETE", f"/jobs/{id}", "Origin: https://evil.example"))) == (403, "foreign-origin")


# ----------------------------------------------------------------------------------------------------------- listing


async def test_jobs_are_listed_page_by_page(held: Held) -> None:
    ids = [await held.submit() for _ in range(5)]
    found: list[str] = []
    after = ""
    while True:
        page = (await held.served.ask(get(f"/jobs?limit=2&after={after}"))).json()
        found += [job["id"] for job in page["jobs"]]
        after = page["after"]
        if after is None:
            break
    assert found == ids


async def test_jobs_are_listed_by_state_queue_and_handler(held: Held) -> None:
    running = await held.submit()
    await held.busy()
    waiting = await held.submit()
    other = (await held.served.ask(post("/jobs/other?delay_s=1000", b""))).json()["id"]
    for query, expected in (
        ("state=running", [running]),
        ("state=waiting", [waiting, other]),
        ("state=waiting&queue=async", [waiting]),
        ("handler=other", [other]),
        ("queue=nowhere", []),
        ("state=done", []),
    ):
        page = (await held.served.ask(get(f"/jobs?{query}"))).json()
        assert [job["id"] for job in page["jobs"]] == expected
    held.go.set()
    await held.served.ask(get(f"/jobs/{waiting}?wait_s=60"))
    assert [job["id"] for job in (await held.served.ask(get("/jobs?state=done"))).json()["jobs"]] == [running, waiting]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "state=lost", "colour=red", "state=done&state=dead"])
async def test_a_listing_that_cannot_be_meant_is_refused(held: Held, query: str) -> None:
    assert told(await held.served.ask(get(f"/jobs?{query}"))) == (400, "parameter-unusable")


async def test_a_page_begins_behind_a_job_of_this_store(held: Held) -> None:
    assert told(await held.served.ask(get("/jobs?after=aaaaaaaa-1"))) == (404, "unknown-job")
