"""`cabrank serve` as a process, and a gate that its jobs wait at, so that a test says when they end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.server.serving import Response, Wire

GATED_APP = """
import asyncio, os
import cabrank

app = cabrank.App()

async def pass_gate(word):
    reader, writer = await asyncio.open_unix_connection(os.environ["GATE"])
    writer.write(word.encode() + b"\\n")
    await reader.read()
    writer.close()

async def slow_resource():
    if "SLOW" in os.environ:
        await pass_gate("opening")

@app.job
async def hold(name: str, *, resource: None = cabrank.resource(slow_resource), job: cabrank.JobContext = cabrank.context()) -> None:
    job.logger.info("holding\\n%s", name)
    await pass_gate(f"{name} run {job.run}")
"""
ANSWERS = re.compile(rb" on http://127\.0\.0\.1:(\d+)\n")


class Gate:
    """Whoever comes says a word and waits until the test lets everybody pass."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.came: asyncio.Queue[str] = asyncio.Queue()
        self._open = asyncio.Event()

    def open(self) -> None:
        self._open.set()

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came.put_nowait((await reader.readline()).decode().strip())
        await self._open.wait()
        writer.close()


class Server:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log = b""
        self.port = 0

    async def listening(self) -> None:
        """Return when the start-up message names the port."""
        while not (found := ANSWERS.search(self.log)):
            line = await self._errors.readline()
            assert line, self.log.decode()
            self.log += line
        self.port = int(found[1])

    async def logged(self, words: bytes) -> None:
        """Return when a line with `words` has been written."""
        while words not in self.log:
            line = await self._errors.readline()
            assert line, self.log.decode()
            self.log += line

    async def connect(self) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, data: bytes) -> Response:
        wire = await self.connect()
        try:
            return await wire.ask(data)
        finally:
            await wire.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def ended(self) -> int:
        self.log += await self._errors.read()
        return await self._process.wait()

    @property
    def _errors(self) -> asyncio.StreamReader:
        assert self._process.stderr is not None
        return self._process.stderr


@asynccontextmanager
async def gated(tmp_path: Path) -> AsyncGenerator[Gate]:
    gate = Gate(tmp_path / "gate")
    (tmp_path / "gated.py").write_text(GATED_APP, "utf-8")
    async with await asyncio.start_unix_server(gate.receive, gate.path) as listener:
        try:
            yield gate
        finally:
            gate.open()
            listener.close()


@asynccontextmanager
async def server(folder: Path, *options: str, port: int = 0, **environment: str) -> AsyncGenerator[Server]:
    """`python -m cabrank serve gated.py:app` in `folder`, killed at the end if it still runs."""
    async with command(folder, "serve", "gated.py:app", "--port", str(port), *options, **environment) as started:
        yield started


@asynccontextmanager
async def command(folder: Path, *arguments: str, **environment: str) -> AsyncGenerator[Server]:
    """`python -m cabrank` with `arguments` in `folder`, killed at the end if it still runs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cabrank", *arguments),
        cwd=folder,
        env=own | {"GATE": str(folder / "gate")} | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    started = Server(process)
    try:
        yield started
    finally:
        started.kill()
        await started.ended()
