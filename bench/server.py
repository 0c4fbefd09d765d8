"""One contender, running: started in an empty folder, ready when the block begins, stopped in order when it ends."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.contender import HOST, ROOT, Contender
from bench.document import MALFORMED
from bench.errors import ServerFailed

ROUTE = "/telemetry"
START_LIMIT_S = 20.0
STOP_LIMIT_S = 40.0  # longer than cabrank's grace of 25 s
ANSWER_LIMIT_S = 10.0
POLL_S = 0.02


class Server(msgspec.Struct, frozen=True, kw_only=True):
    contender: Contender
    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}{ROUTE}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of one GET on a connection of its own."""
        return self._answer("GET", path, None)

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of one POST of a document on a connection of its own."""
        return self._answer("POST", ROUTE, body)

    def _answer(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_LIMIT_S)
        try:
            connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def serving(contender: Contender, *, folder: Path) -> Generator[Server]:
    """Run a contender with its data and its log in that folder.

    Raises: ServerFailed, if it does not get ready or does not stop as it must.
    """
    port = free_port()
    command = [part.format(port=port, folder=folder) for part in contender.command]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | contender.environment, stdout=output, stderr=output)
    try:
        server = Server(contender=contender, pid=process.pid, port=port)
        wait_until_ready(server, process, log)
        yield server
        stop(contender, process, log)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_at = time.monotonic() + START_LIMIT_S
    while not is_ready(server):
        if process.poll() is not None:
            raise ServerFailed(f"{server.contender.title} ended with status {process.returncode} at its start; {tail(log)}")
        if time.monotonic() > deadline_at:
            raise ServerFailed(f"{server.contender.title} was not ready after {START_LIMIT_S:.0f} s; {tail(log)}")
        time.sleep(POLL_S)


def is_ready(server: Server) -> bool:
    try:
        status, _ = server.get("/readyz" if server.contender.ours else "/")
    except (OSError, http.client.HTTPException):
        return False
    return status == http.HTTPStatus.OK or not server.contender.ours


def verify(server: Server, document: bytes) -> None:
    """See that it takes the document, and that it reads what it is sent: malformed JSON must be refused.

    Raises: ServerFailed.
    """
    for body, expected in ((document, server.contender.accepts_with), (MALFORMED, server.contender.refuses_with)):
        status, answer = server.post(body)
        if status != expected:
            raise ServerFailed(f"{server.contender.title} answered {status}, not {expected:d}, to {body[:60]!r}: {answer[:200]!r}")


def stop(contender: Contender, process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise ServerFailed(f"{contender.title} still ran {STOP_LIMIT_S:.0f} s after SIGTERM; {tail(log)}") from None
    if status != contender.stops_with:
        raise ServerFailed(f"{contender.title} stopped with status {status}, not {contender.stops_with}; {tail(log)}")


def tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    return "the end of its log:\n" + "\n".join(lines)
