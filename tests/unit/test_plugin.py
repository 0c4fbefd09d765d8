"""The fixtures for users' tests, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = """
import asyncio, sys

def test_nothing_is_imported_for_who_asks_for_nothing():
    assert "cabrank" not in sys.modules

def test_a_dispatcher_on_a_clock(cabrank_dispatcher, cabrank_clock):
    async def main():
        async with cabrank_dispatcher as dispatcher:
            handle = await dispatcher.submit(int, "17", delay_s=60)
            await cabrank_clock.advance(59)
            assert not handle.settled
            await cabrank_clock.advance(2)
            return await handle.result()
    assert asyncio.run(main()) == 17

def test_a_job_that_waits_for_time_does_not_hold_up_the_end(cabrank_dispatcher, cabrank_clock):
    async def main():
        async with cabrank_dispatcher as dispatcher:
            await dispatcher.submit(cabrank_clock.sleep, 60)
            await cabrank_clock.advance(1)
    asyncio.run(main())

def test_inline(cabrank_inline):
    async def main():
        async with cabrank_inline as inline:
            return await (await inline.submit(int, "17")).result()
    assert asyncio.run(main()) == 17

def test_an_intake(cabrank_intake):
    from cabrank.testing import Recording
    async def main():
        async with cabrank_intake as intake:
            recording = Recording(intake)
            await intake.submit(int, "17")
            await recording.assert_submitted(int, "17", times=1)
    asyncio.run(main())
"""
OVERRIDE = """
import cabrank, pytest

@pytest.fixture
def cabrank_app():
    app = cabrank.App()
    app.job(name="own")(len)
    return app

def test_own_app(cabrank_inline):
    assert list(cabrank_inline.app.handlers) == ["own"]
"""


def run(folder: Path, text: str) -> str:
    (folder / "test_it.py").write_text(text, "utf-8")
    options = ["-p", "pytest_cabrank", "-p", "no:cacheprovider", "-p", "no:anyio", "-p", "no:faker", "-p", "no:schemathesis"]
    ran = subprocess.run([sys.executable, "-m", "pytest", "-q", *options], cwd=folder, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr


def test_the_fixtures_work_without_another_plugin_and_nothing_is_imported_before(tmp_path: Path) -> None:
    assert "5 passed" in (said := run(tmp_path, TESTS)), said


def test_the_app_is_overridden(tmp_path: Path) -> None:
    assert "1 passed" in (said := run(tmp_path, OVERRIDE)), said


def test_the_plugin_stands_apart_so_that_pytest_does_not_import_cabrank_for_it() -> None:
    spec = find_spec("pytest_cabrank")
    assert spec is not None
    assert spec.origin is not None
    done = subprocess.run([sys.executable, "-c", "import sys, pytest_cabrank; sys.exit('cabrank' in sys.modules)"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["cabrank_app", "cabrank_clock", "cabrank_dispatcher", "cabrank_intake", "cabrank_inline"])
def test_each_fixture_says_what_it_is(name: str) -> None:
    import pytest_cabrank  # noqa: PLC0415

    assert getattr(pytest_cabrank, name).__doc__
