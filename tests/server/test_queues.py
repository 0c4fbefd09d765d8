"""What is asked of queues, and done to them: counts, pause, resume, drain."""

from __future__ import annotations

from pathlib import Path

import pytest

from cabrank.server.access import Access
from cabrank.states import State
from tests.server.app import make_app
from tests.server.serving import Response, get, number, post, serving, until
from tests.server.test_answers import told
from tests.server.test_jobs import Held, held

__all__ = ["held"]  # a fixture

VERBS = ("pause", "resume", "drain")


async def change(held: Held, verb: str, *, name: str = "async", query: str = "") -> Response:
    return await held.served.ask(post(f"/queues/{name}/{verb}{query}", b""))


async def test_a_queue_is_shown_with_its_counts_and_bounds(held: Held) -> None:
    await held.submit()
    await held.busy()
    ids = [await held.submit() for _ in range(2)]
    assert len({number(id) for id in ids}) == 2
    queue = (await held.served.ask(get("/queues/async"))).json()
    expected = {"name": "async", "workers": 1, "idle": 0, "waiting": 2, "running": 1, "dead": 0, "held": 0, "bound_jobs": 10_000}
    assert expected.items() <= queue.items()
    queues = (await held.served.ask(get("/queues"))).json()["queues"]
    assert [each | {"oldest_s": 0} for each in queues if each["name"] == "async"] == [queue | {"oldest_s": 0}], "all but its age"
    assert [each["name"] for each in queues] == sorted(each["name"] for each in queues)
    assert {"async", "other"} <= {each["name"] for each in queues}


@pytest.mark.parametrize("name", ["nowhere", "%00", "a'; drop table job; --".replace(" ", "%20"), "..%2f..%2fetc"])
async def test_an_unknown_queue_is_404(held: Held, name: str) -> None:
    answer = await held.served.ask(get(f"/queues/{name}"))
    assert answer.status == 404


async def test_nothing_of_a_paused_queue_starts_until_it_is_resumed(held: Held) -> None:
    held.go.set()
    answer = await change(held, "pause")
    assert (answer.status, answer.json()["paused"]) == (200, True)
    id = await held.submit()
    assert (await held.served.ask(get(f"/jobs/{id}?wait_s=0.1"))).json()["state"] == "waiting"
    assert (await held.served.ask(get("/queues/async"))).json()["paused"]
    assert not (await held.served.ask(get("/queues/other"))).json()["paused"]
    assert not (await change(held, "resume")).json()["paused"]
    assert (await held.served.ask(get(f"/jobs/{id}?wait_s=60"))).json()["state"] == "done"


async def test_a_pause_survives_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jobs.db"
    async with serving(make_app(), store=store, grace_s=0) as served:
        await served.ask(post("/queues/async/pause", b""))
    async with serving(make_app(), store=store, grace_s=0) as served:
        assert (await served.ask(get("/queues/async"))).json()["paused"]


async def test_a_drained_queue_takes_nothing_new_and_says_when_it_is_empty(held: Held) -> None:
    id = await held.submit()
    await held.busy()
    answer = await change(held, "drain")
    assert answer.status == 200
    assert {"drained": True, "running": 1}.items() <= answer.json().items()
    refused = await held.served.ask(post("/jobs/hold", b'"a"'))
    assert told(refused) == (503, "queue-drained")
    assert int(refused.headers["retry-after"]) > 0
    assert (await held.served.ask(post("/jobs/other", b""))).status == 202
    wire = await held.served.connect()
    await wire.send(post("/queues/async/drain?wait_s=60", b""))
    await until(lambda: bool(held.served.dispatcher.engine._progress))
    held.go.set()
    empty = (await wire.receive()).json()
    assert (empty["waiting"], empty["running"]) == (0, 0)
    [record] = (await held.served.dispatcher.engine.store.find([number(id)])).values()
    assert record.state is State.DONE
    assert not (await change(held, "resume")).json()["drained"]
    assert (await held.served.ask(post("/jobs/hold", b'"a"'))).status == 202


async def test_readiness_says_which_queues_are_drained(held: Held) -> None:
    ready = await held.served.ask(get("/readyz"))
    assert "drained" not in ready.json()
    await change(held, "drain")
    ready = await held.served.ask(get("/readyz"))
    assert (ready.status, ready.json()["drained"]) == (200, ["async"])
    await held.served.dispatcher.drain()
    assert told(await held.served.ask(get("/readyz"))) == (503, "queue-drained")
    await held.served.dispatcher.resume()
    assert (await held.served.ask(get("/readyz"))).status == 200


async def test_a_paused_queue_is_not_drained(held: Held) -> None:
    await change(held, "pause")
    await held.submit()
    assert told(await change(held, "drain")) == (409, "queue-paused")
    assert (await held.served.ask(post("/jobs/hold", b'"a"'))).status == 202, "nothing was changed"


@pytest.mark.parametrize("verb", VERBS)
async def test_a_queue_is_changed_by_those_who_may(held: Held, verb: str) -> None:
    path = f"/queues/async/{verb}"
    assert told(await held.served.ask(post(path, b"", "Origin: https://evil.example"))) == (403, "foreign-origin")
    assert told(await held.served.ask(post(f"{path}?later=1", b""))) == (400, "parameter-unusable")
    assert told(await change(held, verb, name="nowhere")) == (404, "unknown-queue")
    assert (await held.served.ask(get(path))).status == 405
    async with serving(make_app(), access=Access(["t" * 32]), grace_s=0) as served:
        assert told(await served.ask(post(path, b""))) == (401, "unauthorized")
        assert (await served.ask(post(path, b"", f"Authorization: Bearer {'t' * 32}"))).status == 200


async def test_the_age_of_a_queue_is_that_of_its_oldest_ready_job(tmp_path: Path) -> None:
    async with serving(make_app(), store=f"sqlite:///{tmp_path}/jobs.db", grace_s=0) as served:
        await served.ask(post("/queues/async/pause", b""))
        await served.ask(post("/jobs/note?delay_s=1000", b'{"device":"a"}'))
        assert (await served.ask(get("/queues/async"))).json()["oldest_s"] is None
        before = served.dispatcher.clock.now()
        await served.ask(post("/jobs/note", b'{"device":"a"}'))
        age = (await served.ask(get("/queues/async"))).json()["oldest_s"]
        assert 0 <= age <= served.dispatcher.clock.now() - before


@pytest.mark.parametrize("later", [100, 1_500])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_the_oldest_ready_job_is_found_behind_many_that_come_later(tmp_path: Path, store: str, later: int) -> None:
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    async with serving(make_app(), store=url, grace_s=0) as served:
        await served.ask(post("/queues/async/pause", b""))
        await served.ask(post("/jobs/note/batch?delay_s=1000", b"[" + b",".join([b'{"device":"a"}'] * later) + b"]"))
        assert (await served.ask(get("/queues/async"))).json()["oldest_s"] is None
        await served.ask(post("/jobs/note", b'{"device":"a"}'))
        assert (await served.ask(get("/queues/async"))).json()["oldest_s"] >= 0
