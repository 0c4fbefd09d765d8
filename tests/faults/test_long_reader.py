"""A program that reads the file without an end makes its log grow: it is said which one, and when it ends the log is short again."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cabrank
from cabrank.cli.commands import run
from cabrank.settings import MIB, Settings
from cabrank.stores.sqlite.logsize import log_of, readers_of, size_of

READER = Path(__file__).with_name("reading.py")
LIMIT = 36 * MIB  # above what a log is cut to
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the locks of others")


@contextmanager
def reader(path: Path) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, READER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "reads\n"
        try:
            yield started
        finally:
            started.kill()


@LINUX
async def test_a_long_reader_is_named_while_the_log_grows_and_it_is_short_again_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    app, path = cabrank.App(), tmp_path / "jobs.db"

    @app.job
    async def keep(text: str) -> None: ...

    async def said(words: str) -> None:
        while words not in caplog.text:
            await asyncio.sleep(0.02)

    settings = Settings(log_limit=LIMIT, renew_s=0.05)
    async with cabrank.Intake(app, store=f"sqlite:///{path}", settings=settings) as intake:
        await intake.submit(keep, "first")
        with reader(path) as reads:
            assert [words for words in readers_of(path) if f"process {reads.pid} (" in words]
            while size_of(log_of(path)) <= LIMIT:
                await intake.submit(keep, "x" * (MIB - 2))
            await said(f"the log of {path} has grown to ")
            assert f"process {reads.pid} (" in caplog.text
            assert READER.name in caplog.text
            assert caplog.text.count("has grown to") == 1, "not again and again"
            assert intake.engine.condition.log_bytes > LIMIT
            assert await asyncio.to_thread(run, ["store", "check", "--store", f"sqlite:///{path}"]) == 0
            assert f"process {reads.pid} (" in " ".join(capsys.readouterr().out.split())
        for _ in range(3):  # the first folds it back, the next begins it anew
            await intake.submit(keep, "small")
        await said(f"the log of {path} is short again")
        assert caplog.records[-1].levelno == logging.WARNING
        assert not readers_of(path)
