"""`GET /running`: what the process that answers runs."""

from __future__ import annotations

import asyncio
import os
from random import Random

import msgspec

import cabrank
from cabrank.server.access import Access
from cabrank.server.running import RunningView
from tests.server.serving import get, post, serving


async def test_what_runs_is_shown_with_its_stack() -> None:
    app, started, go = cabrank.App(), asyncio.Event(), asyncio.Event()

    @app.job
    async def holds(secret: str) -> None:
        started.set()
        await go.wait()

    async with serving(app) as served:
        assert (await served.ask(get("/running"))).json() == {"jobs": []}
        id = (await served.ask(post("/jobs/holds", b'"do not show"'))).json()["id"]
        await started.wait()
        answer = await served.ask(get("/running"))
        [job] = msgspec.json.decode(answer.body, type=RunningView).jobs
        assert (job.id, job.handler, job.queue, job.run, job.stopping, job.process) == (id, "holds", "async", 1, "", os.getpid())
        assert "holds: await go.wait()" in job.stack[0]
        assert b"do not show" not in answer.body
        go.set()
        await served.ask(get(f"/jobs/{id}?wait_s=60"))
        assert (await served.ask(get("/running"))).json() == {"jobs": []}


async def test_a_run_that_was_told_to_stop_and_has_not_is_seen() -> None:
    app, started, go = cabrank.App(), asyncio.Event(), asyncio.Event()

    @app.job
    async def stubborn() -> None:
        started.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    async with serving(app) as served:
        id = (await served.ask(post("/jobs/stubborn", b""))).json()["id"]
        await started.wait()
        assert "cancelling" not in (await served.ask(get(f"/jobs/{id}"))).json()
        await served.dispatcher.handle(id).cancel()
        job = (await served.ask(get(f"/jobs/{id}"))).json()
        assert (job["state"], job["cancelling"]) == ("running", True)
        go.set()
        assert (await served.ask(get(f"/jobs/{id}?wait_s=60"))).json()["state"] == "done"


async def test_it_takes_no_parameters_and_asks_for_the_token() -> None:
    token = "".join(Random(1).choices("abcdefghij", k=32))
    async with serving(cabrank.App()) as served:
        assert (await served.ask(get("/running?deep=yes"))).status == 400
    async with serving(cabrank.App(), access=Access([token])) as served:
        assert (await served.ask(get("/running"))).status == 401
        assert (await served.ask(get("/running").replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n".encode()))).status == 200
