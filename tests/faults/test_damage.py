"""A file that was damaged behind our back: it is refused in words, or what can be trusted of it is there. Never silently less."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

import cabrank
from cabrank.errors import StoreError, StoreUnusable

PAGE = 4096
JOBS = 300


def make_app(ran: list[int]) -> cabrank.App:
    app = cabrank.App()

    @app.job
    async def work(number: int) -> None:
        ran.append(number)

    return app


async def jobs_in(path: Path, *, closed: bool) -> None:
    """A store with jobs that wait; not `closed`: as a killed process leaves it, with what it wrote in its log."""
    app = make_app([])
    async with cabrank.Intake(app, store=f"sqlite:///{path}") as intake:
        for number in range(JOBS):
            await intake.submit(app.handler("work"), number)
        if not closed:
            for name in (path.name, f"{path.name}-wal"):
                shutil.copy(path.with_name(name), path.with_name(f"left-{name}"))


async def run_all(path: Path) -> list[int]:
    """Open it and run all that waits."""
    ran: list[int] = []
    async with cabrank.Dispatcher(make_app(ran), store=f"sqlite:///{path}", max_workers=10) as dispatcher:
        await dispatcher.join()
    return ran


@pytest.mark.parametrize("seed", range(8))
async def test_a_page_that_was_torn_is_told_in_words_or_was_of_no_use(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "jobs.db"
    await jobs_in(path, closed=True)
    torn = bytearray(path.read_bytes())
    page = seed if seed < 3 else Random(seed).randrange(3, len(torn) // PAGE)
    torn[page * PAGE : page * PAGE + PAGE // 2] = Random(seed).randbytes(PAGE // 2)
    path.write_bytes(torn)
    try:
        ran = await run_all(path)
    except (StoreError, cabrank.DispatcherFailed) as error:
        assert "jobs.db" in f"{error} {error.__cause__}"  # noqa: PT017 -- either is right
    else:
        assert ran == list(range(JOBS))


@pytest.mark.parametrize("seed", range(6))
async def test_a_log_that_was_cut_short_is_taken_up_to_where_it_is_whole(tmp_path: Path, seed: int) -> None:
    await jobs_in(tmp_path / "jobs.db", closed=False)
    path = tmp_path / "left-jobs.db"
    log = path.with_name(path.name + "-wal")
    whole = log.read_bytes()
    log.write_bytes(whole[: Random(seed).randrange(len(whole) // 4, len(whole))])
    try:
        ran = await run_all(path)
    except StoreUnusable as error:
        assert "left-jobs.db" in str(error)  # noqa: PT017 -- either is right
        return
    assert ran == list(range(len(ran))), "none is missing before the place where it was cut"


async def test_a_log_that_is_whole_is_taken_whole(tmp_path: Path) -> None:
    await jobs_in(tmp_path / "jobs.db", closed=False)
    assert await run_all(tmp_path / "left-jobs.db") == list(range(JOBS))
