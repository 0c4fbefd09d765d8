"""`cabrank jobs`, `queues` and `why` as real commands on a real file, also while others work on it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest

import cabrank
from cabrank import Intake, JobContext, Retry
from cabrank.cli.loading import load_app
from tests.server.process import Gate, command, gated

ONCE = Retry(attempts=1)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncGenerator[Gate]:
    async with gated(tmp_path) as gate:
        yield gate


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


class Ran(msgspec.Struct):
    """What a command came to."""

    status: int
    out: str
    err: str

    def lines(self) -> list[dict[str, object]]:
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


async def cabrank_command(folder: Path, *arguments: str, columns: int = 200) -> Ran:
    own = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cabrank", *arguments, "--store", "sqlite:///jobs.db"),
        cwd=folder,
        env=own | {"COLUMNS": str(columns)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


def made() -> cabrank.App:
    """An app whose jobs fail as they are told."""
    app = cabrank.App()

    @app.job(retry=ONCE)
    async def fail(word: str) -> None:
        raise ValueError(word)

    @app.job
    async def report(fraction: float, *, job: JobContext = cabrank.context()) -> None:
        job.progress(fraction, "chapter 3")
        await asyncio.get_running_loop().create_future()

    @app.job(queue="rest")
    async def rest(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @app.job(limit=cabrank.Limit(running=1))
    async def narrow(number: int, *, job: JobContext = cabrank.context()) -> None: ...

    return app


async def died(url: str, *words: str) -> list[str]:
    """Jobs that were given up."""
    app = made()
    async with cabrank.Dispatcher(app, store=url) as dispatcher:
        handles = [await dispatcher.submit(app.handlers["fail"], word) for word in words]
        for handle in handles:
            with pytest.raises(cabrank.JobFailed):
                await handle.result()
        return [handle.id for handle in handles]


async def waiting(url: str, handler: str, *items: object, delay_s: float = 0.0) -> list[str]:
    app = made()
    async with Intake(app, store=url) as intake:
        return [(await intake.submit(app.handlers[handler], item, delay_s=delay_s)).id for item in items]


@pytest.mark.timeout(180)  # a dozen commands, each a process
async def test_dead_jobs_are_listed_retried_and_purged(tmp_path: Path, url: str) -> None:
    first, second, third = await died(url, "one", "two", "three")
    listed = await cabrank_command(tmp_path, "jobs", "dead", "--json")
    assert [(job["id"], job["state"], job["handler"]) for job in listed.lines()] == [(id, "dead", "fail") for id in (first, second, third)]
    table = await cabrank_command(tmp_path, "jobs", "list", "--state", "dead", "--limit", "2")
    assert "ValueError: one" in table.out
    assert f"more may follow: --after {second}" in table.out
    after = await cabrank_command(tmp_path, "jobs", "list", "--state", "dead", "--after", second, "--json")
    assert [job["id"] for job in after.lines()] == [third]
    shown = await cabrank_command(tmp_path, "jobs", "show", first)
    assert "ValueError: one" in shown.out
    assert [what for what in ("submitted", "run 1 began", "run 1 failed: ValueError", "dead: failed") if what not in shown.out] == []
    told = (await cabrank_command(tmp_path, "jobs", "show", first, "--json")).lines()[0]["timeline"]
    assert isinstance(told, list)
    assert [one["what"] for one in told] == ["submitted", "began", "failed", "became"]
    retried = await cabrank_command(tmp_path, "jobs", "retry", first)
    assert f"job {first} of fail waits again" in retried.out
    again = await cabrank_command(tmp_path, "jobs", "retry", first)
    assert "cannot be retried: it is waiting" in again.out
    purged = await cabrank_command(tmp_path, "jobs", "purge", "--handler", "fail")
    assert "2 of 2 jobs" in purged.out
    assert [job["id"] for job in (await cabrank_command(tmp_path, "jobs", "list", "--json")).lines()] == [first]
    gone = await cabrank_command(tmp_path, "jobs", "show", second)
    assert (gone.status, "is not known" in gone.err, "Traceback" in gone.err) == (1, True, False)


async def test_how_far_a_running_job_is_is_shown(tmp_path: Path, url: str) -> None:
    app = made()
    async with cabrank.Dispatcher(app, store=url) as dispatcher:
        handle = await dispatcher.submit(app.handlers["report"], 0.25)
        while await handle.progress() is None:
            await asyncio.sleep(0.01)
        shown = await cabrank_command(tmp_path, "jobs", "show", handle.id)
        assert "25% chapter 3, " in shown.out
        as_json = await cabrank_command(tmp_path, "jobs", "show", handle.id, "--json")
        assert msgspec.json.decode(as_json.out)["progress"]["fraction"] == 0.25
        await handle.cancel()


async def test_a_retry_by_a_filter_leaves_out_a_job_whose_unique_key_is_taken_and_goes_on(tmp_path: Path, url: str) -> None:
    app = made()
    async with cabrank.Dispatcher(app, store=url) as dispatcher:
        for unique in ("same", "same", "other"):
            with pytest.raises(cabrank.JobFailed):
                await (await dispatcher.submit(app.handlers["fail"], unique, unique=unique)).result()
    assert "2 of 3 jobs: each waits again" in (await cabrank_command(tmp_path, "jobs", "retry", "--state", "dead")).out
    assert len((await cabrank_command(tmp_path, "jobs", "dead", "--json")).lines()) == 1


async def test_jobs_are_cancelled_by_a_filter_and_by_id(tmp_path: Path, url: str) -> None:
    one, *_ = await waiting(url, "rest", 1.0, 2.0, 3.0)
    [other] = await waiting(url, "narrow", 1)
    assert "is cancelled" in (await cabrank_command(tmp_path, "jobs", "cancel", one)).out
    assert "2 of 2 jobs" in (await cabrank_command(tmp_path, "jobs", "cancel", "--queue", "rest")).out
    left = await cabrank_command(tmp_path, "jobs", "list", "--state", "waiting", "--json")
    assert [job["id"] for job in left.lines()] == [other]
    assert "3 of 3 jobs" in (await cabrank_command(tmp_path, "jobs", "retry", "--state", "cancelled")).out


@pytest.mark.parametrize("deed", ["retry", "cancel", "purge"])
@pytest.mark.parametrize("which", [(), ("k7x2m9q4-1", "--queue", "rest")])
async def test_which_jobs_must_be_said_in_one_way(tmp_path: Path, url: str, deed: str, which: tuple[str, ...]) -> None:
    await waiting(url, "rest", 1.0)
    ran = await cabrank_command(tmp_path, "jobs", deed, *which)
    assert (ran.status, "say which jobs" in ran.err) == (1, True)


async def test_showing_no_job_asks_which(tmp_path: Path) -> None:
    ran = await cabrank_command(tmp_path, "jobs", "show")
    assert (ran.status, ran.err) == (1, "cabrank: say which jobs, by their ids: `cabrank jobs list` shows them\n")


async def test_a_list_without_jobs_says_so(tmp_path: Path, url: str) -> None:
    await waiting(url, "rest", 1.0)
    ran = await cabrank_command(tmp_path, "jobs", "list", "--state", "dead")
    assert (ran.status, ran.out.partition(";")[0]) == (0, "there are no such jobs")


async def test_a_long_error_cuts_no_name_off(tmp_path: Path, url: str) -> None:
    await died(url, "broken " * 40)
    listed = await cabrank_command(tmp_path, "jobs", "list", columns=80)
    assert (" fail " in listed.out, " async " in listed.out) == (True, True)


async def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for words in (("jobs", "list"), ("queues", "list"), ("why", "k7x2m9q4-1")):
        ran = await cabrank_command(tmp_path, *words)
        assert (ran.status, "there is no such file" in ran.err) == (1, True)
    assert [*await asyncio.to_thread(tmp_path.iterdir)] == []


@pytest.mark.timeout(180)  # a dozen commands, each a process
async def test_queues_are_shown_paused_and_resumed_while_a_worker_works(tmp_path: Path, url: str, gate: Gate) -> None:
    await waiting(url, "rest", 1.0, 2.0)
    id = await held(tmp_path, url)
    assert "queue async is paused" in (await cabrank_command(tmp_path, "queues", "pause", "async")).out
    async with command(tmp_path, "work", "gated.py:app", "--store", "sqlite:///jobs.db") as worker:
        await worker.logged(b"stop with")
        [line] = [line for line in (await cabrank_command(tmp_path, "queues", "list", "--json")).lines() if line["queue"] == "async"]
        assert (line["waiting"], line["running"], line["paused"]) == (1, 0, True)
        assert "queue async is paused" in (await cabrank_command(tmp_path, "why", id)).out
        assert "paused" in (await cabrank_command(tmp_path, "queues", "list")).out
        drained = await cabrank_command(tmp_path, "queues", "drain", "async")
        assert (drained.status, "would wait for ever" in drained.err) == (1, True)
        await cabrank_command(tmp_path, "queues", "resume", "async")
        assert await gate.came.get() == "a run 1"
        assert "run 1 began" in (await cabrank_command(tmp_path, "why", id)).out
        late = await cabrank_command(tmp_path, "queues", "drain", "async", "--within", "0.01")
        assert (late.status, "still wait or run" in late.err) == (1, True)
        gate.open()
        assert "nothing waits or runs" in (await cabrank_command(tmp_path, "queues", "drain", "async")).out
        assert "it returned" in (await cabrank_command(tmp_path, "why", id)).out
        worker.tell(signal.SIGTERM)
        assert await worker.ended() == 0


async def held(folder: Path, url: str) -> str:
    """Submit a job of the gated app."""
    app = load_app(f"{folder / 'gated.py'}:app")
    async with Intake(app, store=url) as intake:
        return (await intake.submit(app.handlers["hold"], "a")).id


async def test_an_unknown_queue_names_those_that_are(tmp_path: Path, url: str) -> None:
    await waiting(url, "rest", 1.0)
    ran = await cabrank_command(tmp_path, "queues", "pause", "upload")
    assert (ran.status, "there are rest" in ran.err) == (1, True)


async def test_why_a_job_waits(tmp_path: Path, url: str) -> None:
    [later] = await waiting(url, "rest", 1.0, delay_s=3600)
    answer = await cabrank_command(tmp_path, "why", later)
    assert "it is due at " in answer.out
    assert "no process that works on this store knows handler 'rest'" in answer.out
    [line] = (await cabrank_command(tmp_path, "why", later, "--json")).lines()
    assert (line["state"], line["id"]) == ("waiting", later)
    [dead] = await died(url, "broken")
    told = await cabrank_command(tmp_path, "why", dead)
    assert "ValueError: broken" in told.out
    assert f"cabrank jobs retry {dead}" in told.out


async def test_why_a_limit_holds_a_job(tmp_path: Path, url: str) -> None:
    app, began, go = cabrank.App(), asyncio.Event(), asyncio.Event()

    @app.job(limit=cabrank.Limit(running=1))
    async def narrow(number: int) -> None:
        began.set()
        await go.wait()

    async with cabrank.Dispatcher(app, store=url) as dispatcher:
        handles = [await dispatcher.submit(narrow, number) for number in range(2)]
        await began.wait()
        said = [(await cabrank_command(tmp_path, "why", handle.id)).out for handle in handles]
        assert any("limit on 'narrow': 1 of 1 run" in one for one in said)
        go.set()
        for handle in handles:
            await handle.result()
