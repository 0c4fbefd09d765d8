"""In somebody else's application, and under other servers: the pages of docs/how-to, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import cabrank
from cabrank.server import asgi
from tests.server.serving import Response, Wire, get, post
from tests.server.test_answers import told

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
SERVERS = {
    "uvicorn": ("uvicorn", "main:app", "--port"),
    "hypercorn": ("hypercorn", "main:app", "--bind"),
    "granian": ("granian", "--interface", "asgi", "main:app", "--port"),
}
RUNS = re.compile(rb"Uvicorn running on|Running on http|Started worker-")


def code_of(page: str) -> str:
    """The program on a page."""
    [code] = re.findall(r"```python\n(.*?)```", (PAGES / page).read_text("utf-8"), re.DOTALL)
    return str(code)


def needs(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


class Running:
    """A server that runs."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def ask(self, data: bytes) -> Response:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self._port))
        try:
            return await wire.ask(data)
        finally:
            await wire.close()

    async def all_of(self, data: bytes) -> bytes:
        """What is answered until the connection ends: for answers that do not say how long they are."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self._port))
        try:
            await wire.send(data)
            return await wire.rest()
        finally:
            await wire.close()


async def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def running(folder: Path, code: str, server: str) -> AsyncGenerator[Running]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "main.py").write_text(code, "utf-8")
    command = [*SERVERS[server], f"127.0.0.1:{port}" if server == "hypercorn" else str(port)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        cwd=folder,
        env=dict(os.environ) | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # some have processes of their own, which end with them
    )
    assert process.stdout is not None
    log = b""
    try:
        while not RUNS.search(log):
            line = await process.stdout.readline()
            assert line, log.decode()
            log += line
        while not await accepts(port):  # granian says that it has started before it listens
            assert process.returncode is None
        yield Running(port)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def greeted(server: Running, root: str) -> None:
    """A job is taken on below `root`, waited for, and looked up."""
    answer = await server.ask(post(f"{root}/jobs/greet", b'"Ada"'))
    assert answer.status == 202, answer
    outcome: Any = (await server.ask(get(f"{root}/jobs/{answer.json()['id']}?wait_s=20"))).json()
    assert (outcome["state"], outcome["result"]) == ("done", "hello Ada")
    assert told(await server.ask(post(f"{root}/jobs/greet", b"1"))) == (422, "payload-invalid")
    assert told(await server.ask(post(f"{root}/jobs/nobody", b"1"))) == (404, "unknown-handler")
    assert (await server.ask(post(f"{root}/jobs/greet/batch", b'["a","b"]'))).status == 202
    description: Any = (await server.ask(get(f"{root}/openapi.json"))).json()
    assert "/jobs/greet" in description["paths"]
    assert (await server.ask(get(f"{root}/readyz"))).status == 200


@pytest.mark.parametrize("framework", ["fastapi", "starlette", "litestar", "django"])
async def test_it_is_mounted_as_its_page_says(tmp_path: Path, framework: str) -> None:
    needs(framework)
    async with running(tmp_path, code_of(f"mount-in-{framework}.md"), "uvicorn") as server:
        await greeted(server, "/work")
        mine = await server.all_of(b"POST /greetings/Ada HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        found = re.search(rb'"job": ?"([^"]+)"', mine)
        assert found is not None, mine
        id = found[1].decode()
        assert (await server.ask(get(f"/work/jobs/{id}?wait_s=20"))).json()["result"] == "hello Ada"


@pytest.mark.parametrize("server", SERVERS)
async def test_other_servers_serve_it_alone(tmp_path: Path, server: str) -> None:
    needs(server)
    async with running(tmp_path, code_of("serve-with-another-server.md"), server) as started:
        await greeted(started, "")


async def test_a_dispatcher_that_nobody_opened_is_told_of() -> None:
    app = asgi(cabrank.Dispatcher(cabrank.App(), store="memory://"))
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    await app({"type": "http", "method": "GET", "path": "/readyz", "headers": [], "query_string": b""}, receive, send)
    assert sent[0]["status"] == 503
    assert b"not-open" in sent[1]["body"]


async def test_a_store_that_cannot_be_opened_fails_the_start(tmp_path: Path) -> None:
    app = asgi(cabrank.Dispatcher(cabrank.App(), store=f"sqlite:///{tmp_path}/nowhere/jobs.db"))
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    await app({"type": "lifespan"}, receive, send)
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert "nowhere" in sent[0]["message"]
