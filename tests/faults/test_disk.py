"""A real small disk that really fills up."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import TypeVar

import pytest

import cabrank
from cabrank.settings import MIB, Settings

T = TypeVar("T")

SIZE = 24 * MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    options = ["-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if mount is None or umount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run([umount, "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all the space that there is."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return ballast


async def when_there_is_space(submit: Callable[[], Awaitable[T]]) -> T:
    """It is tried again once a second."""
    while True:
        with contextlib.suppress(cabrank.DiskFull):
            return await submit()
        await asyncio.sleep(0.05)


async def test_on_a_full_disk_new_jobs_are_refused_what_runs_is_recorded_and_it_recovers_by_itself(small_disk: Path) -> None:
    app = cabrank.App()
    go, ran = asyncio.Event(), 0

    @app.job
    async def work(text: str) -> None:
        nonlocal ran
        await go.wait()
        ran += 1

    text = "x" * 10_000  # more than what is left of a page
    acknowledged: list[cabrank.JobHandle[None]] = []
    settings = Settings(min_free=0, max_workers=5)
    async with cabrank.Dispatcher(app, store=f"sqlite:///{small_disk}/jobs.db", settings=settings) as dispatcher:
        acknowledged += [await dispatcher.submit(work, text) for _ in range(20)]
        ballast = fill(small_disk)
        for _ in range(SIZE // len(text)):
            try:
                acknowledged.append(await dispatcher.submit(work, text))
            except cabrank.DiskFull as full:
                assert "is full" in str(full)  # noqa: PT017 -- it is not known which of them
                break
        else:
            pytest.fail("more was acknowledged than there is space for")
        go.set()
        async with asyncio.timeout(60):
            await dispatcher.join()
        assert ran == len(acknowledged), "what had been acknowledged is run and recorded although nothing is free"
        ballast.unlink()
        last = await when_there_is_space(lambda: dispatcher.submit(work, text))
        await last.result(timeout_s=30)
    async with cabrank.Intake(app, store=f"sqlite:///{small_disk}/jobs.db") as later:
        assert (await later.engine.store.tally())["async"].waiting == 0


async def test_below_the_floor_of_a_real_disk_new_jobs_are_refused(small_disk: Path) -> None:
    app = cabrank.App()

    @app.job
    async def work() -> None: ...

    async with cabrank.Dispatcher(app, store=f"sqlite:///{small_disk}/jobs.db", settings=Settings(min_free=SIZE // 2)) as dispatcher:
        await (await dispatcher.submit(work)).result(timeout_s=30)
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * (SIZE * 3 // 4))
        said = ""
        while not said:
            try:
                await dispatcher.submit(work)
            except cabrank.DiskFull as full:
                said = str(full)
            await asyncio.sleep(0.05)  # a look at the disk counts for a moment
        assert "lies, min_free is 12.0 MiB" in said
        ballast.unlink()
        await when_there_is_space(lambda: dispatcher.submit(work))
