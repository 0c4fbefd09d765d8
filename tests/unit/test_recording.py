"""What was submitted can be asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

import cabrank
from cabrank.testing import FakeClock, Recording

app = cabrank.App()


@app.job
async def upload(device: str, number: int = 0) -> None: ...


@app.job
async def other() -> None: ...


@pytest.fixture
async def intake() -> AsyncGenerator[cabrank.Intake]:
    async with cabrank.Intake(app, store="memory://", clock=FakeClock(now=1000.0)) as intake:
        yield intake


async def test_each_job_is_there_with_its_options(intake: cabrank.Intake) -> None:
    recording = Recording(intake)
    await intake.submit(upload, "a", 1)
    await intake.submit(upload, "b", 2, delay_s=5, priority=1, tags=("x",))
    await intake.submit_many(upload, ["c", "d"])
    await intake.submit(upload, "e", 3, key="once")
    await intake.submit(upload, "e", 3, key="once")
    assert [job.args for job in await recording.jobs()] == [("a", 1), ("b", 2), ("c",), ("d",), ("e", 3)]
    [job] = await recording.assert_submitted(upload, "b", 2)
    assert (job.due_at, job.priority, job.tags) == (1005.0, 1, ("x",))


async def test_it_says_whether_and_how_often(intake: cabrank.Intake) -> None:
    recording = Recording(intake)
    await intake.submit(upload, "a", 1)
    await intake.submit(upload, "a", 1)
    assert await recording.was_submitted(upload)
    assert await recording.was_submitted(upload, "a", 1)
    assert await recording.was_submitted(upload, "a", 1, times=2)
    assert not await recording.was_submitted(upload, "a", 1, times=1)
    assert not await recording.was_submitted(upload, "a", 2)
    assert not await recording.was_submitted(other)
    assert await recording.was_submitted(other, times=0)


async def test_a_failed_assertion_says_what_was_submitted_instead(intake: cabrank.Intake) -> None:
    recording = Recording(intake)
    await recording.assert_nothing_submitted()
    await intake.submit(upload, "a", 1)
    with pytest.raises(AssertionError, match=r"upload\('b', 2\) was not submitted; of upload was:\n  upload\('a', 1\)"):
        await recording.assert_submitted(upload, "b", 2)
    with pytest.raises(AssertionError, match="was not submitted 3 times, but 1 times"):
        await recording.assert_submitted(upload, times=3)
    with pytest.raises(AssertionError, match=r"other\(…\) was not submitted; of other was:\n  nothing"):
        await recording.assert_submitted(other)
    with pytest.raises(AssertionError, match=r"something was submitted:\n  upload\('a', 1\)"):
        await recording.assert_nothing_submitted()


async def test_it_begins_when_it_is_made_and_works_for_a_dispatcher_and_bare_callables() -> None:
    async with cabrank.Dispatcher() as dispatcher:
        await dispatcher.submit(int, "1")
        await dispatcher.join()
        recording = Recording(dispatcher)
        await dispatcher.submit(int, "2")
        assert [job.args for job in await recording.jobs(int)] == [("2",)]
        assert not await recording.was_submitted(float)
