"""Unique keys as a submitter sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

import cabrank

app = cabrank.App()


@app.job
async def work(number: int) -> int:
    return number


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db"


async def test_what_becomes_of_a_second_job_is_said_by_the_submitter(url: str) -> None:
    async with cabrank.Intake(app, store=url) as intake:
        first = await intake.submit(work, 1, unique="u", delay_s=60, tags=["a", "a", "b"])
        assert (await intake.submit(work, 2, unique="u")).id == first.id
        assert (await intake.try_submit(work, 2, unique="u", on_conflict="debounce", delay_s=90)).id == first.id
        third = await intake.submit(work, 3, unique="u", on_conflict="replace", delay_s=60)
        assert third.id != first.id
        with pytest.raises(cabrank.JobCancelled):
            await first.result(timeout_s=30)
        record = (await intake.engine.store.find([first.number]))[first.number]
        assert (record.reason, tuple(record.tags)) == ("replaced", ("a", "b"))
        assert await third.cancel()


async def test_which_states_count_is_said_by_the_submitter(url: str) -> None:
    fails = cabrank.App()

    @fails.job(name="work", retry=cabrank.Retry(attempts=1))
    async def work_(number: int) -> int:
        raise LookupError(number)

    async with cabrank.Dispatcher(fails, store=url) as dispatcher:
        dead = await dispatcher.submit(work_, 1, unique="u")
        with pytest.raises(cabrank.JobFailed):
            await dead.result(timeout_s=30)
        assert (await dispatcher.submit(work_, 2, unique="u", unique_over=("waiting", "dead"))).id == dead.id
        assert (await dispatcher.submit(work_, 3, unique="u")).id != dead.id


async def test_a_unique_job_runs(url: str) -> None:
    async with cabrank.Dispatcher(app, store=url) as dispatcher:
        assert await (await dispatcher.submit(work, 1, unique="u")).result(timeout_s=30) == 1
        assert await (await dispatcher.submit(work, 2, unique="u", on_conflict="replace")).result(timeout_s=30) == 2


async def test_options_that_cannot_be_meant_are_refused(url: str) -> None:
    async with cabrank.Intake(app, store=url) as intake:
        with pytest.raises(cabrank.SettingError, match="on_conflict is for jobs with a unique key"):
            await intake.submit(work, 1, on_conflict="skip")
        with pytest.raises(cabrank.SettingError, match="unique_over is for jobs with a unique key"):
            await intake.submit(work, 1, unique_over=("waiting",))
        with pytest.raises(cabrank.SettingError, match="unique_over is several of waiting, running, held, dead"):
            await intake.submit(work, 1, unique="u", unique_over=("running",))
        with pytest.raises(cabrank.SettingError, match="unique_over is several of waiting, running, held, dead"):
            await intake.submit(work, 1, unique="u", unique_over=("waiting", "done"))  # type: ignore[arg-type]
        with pytest.raises(cabrank.SettingError, match="skip, debounce, replace"):
            await intake.submit(work, 1, unique="u", on_conflict="drop")  # type: ignore[call-overload]
        with pytest.raises(cabrank.SettingError, match="a unique key is 1 to"):
            await intake.submit(work, 1, unique="")
        with pytest.raises(cabrank.SettingError, match="a tag is"):
            await intake.submit(work, 1, tags=["no spaces"])
        with pytest.raises(cabrank.SettingError, match="at most 16 tags"):
            await intake.submit(work, 1, tags=[f"t{number}" for number in range(17)])
        with pytest.raises(cabrank.SettingError, match="not one text"):
            await intake.submit(work, 1, tags="ab")
