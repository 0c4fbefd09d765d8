"""The server under test: `cabrank serve` as a process that is started, killed and started again on the same store."""

import asyncio
import itertools
import os
import socket
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import aiohttp
import msgspec

from examples.demo.failure import DemoFailed
from examples.demo.scratch import PROJECT, Scratch, shown

HOST = "127.0.0.1"
READY_WITHIN_S = 30.0
READY_POLL_S = 0.02
STOP_WITHIN_S = 40.0  # the server's own grace is 25 s
LOG_TAIL_LINES = 15
# Below the ports that the system gives to outgoing connections: a client that tries one of those again and again while
# nobody listens can end up connected to itself, and the server then finds its port taken.
PORTS = range(20_000, 30_000)


class Life(msgspec.Struct, kw_only=True):
    """One process of the server, from its start to its end."""

    log: Path
    started_at: float
    ready_at: float | None = None
    ended_at: float | None = None
    peak_memory: int | None = None  # bytes; None where the system does not tell


class Server:
    """One server at a time, always on the same port and store. `ready` is set while it takes work."""

    def __init__(self, scratch: Scratch, *, bucket: str, environment: Mapping[str, str]) -> None:
        self._scratch = scratch
        self._bucket = bucket
        self._own_environment = environment
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()
        self.lives: list[Life] = []

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    async def start(self) -> None:
        """Return when the server takes work.

        Raises:
            DemoFailed: it ended or stayed silent instead; the message shows the end of its log.
        """
        log = self._scratch.server_log(len(self.lives) + 1)
        life = Life(log=log, started_at=time.time())
        with log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cabrank", "serve", "examples/telemetry.py:app"),
                *("--store", f"sqlite:///{shown(self._scratch.store)}"),
                *("--host", HOST, "--port", str(self._port)),
                stdout=output,
                stderr=output,
                cwd=PROJECT,
                env=self._environment(),
                process_group=0,  # Ctrl-C is for the demo, which then stops the server
                pass_fds=(self._scratch.lock_file,),
            )
        self.lives.append(life)
        await self._until_ready(self._process, life)
        life.ready_at = time.time()
        self.ready.set()

    async def kill(self) -> None:
        """End the server with SIGKILL."""
        self.ready.clear()
        if self._process is not None:
            self.lives[-1].peak_memory = _peak_memory(self._process.pid)
            self._process.kill()
            await self._process.wait()
            self.lives[-1].ended_at = time.time()

    async def stop(self) -> int | None:
        """End the server with SIGTERM, so that it finishes what runs, and return its exit status (None: none ran)."""
        self.ready.clear()
        if self._process is None or self._process.returncode is not None:
            return None
        self.lives[-1].peak_memory = _peak_memory(self._process.pid)
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                return await self._process.wait()
        except TimeoutError:
            raise DemoFailed(self.with_log(f"the server did not stop within {STOP_WITHIN_S:.0f} s of SIGTERM and was killed")) from None
        finally:
            if self._process.returncode is None:  # also when Ctrl-C came a second time
                self._process.kill()
            self.lives[-1].ended_at = time.time()

    def check_alive(self) -> None:
        """Raise `DemoFailed` when the server has ended and nobody killed it."""
        if self.ready.is_set() and self._process is not None and self._process.returncode is not None:
            raise DemoFailed(self.with_log(f"the server ended by itself, with status {self._process.returncode}"))

    def with_log(self, reason: str) -> str:
        """`reason`, and the end of the running server's log beneath it."""
        log = self.lives[-1].log
        lines = log.read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"{reason}. The end of {shown(log)}:", *(f"  {line}" for line in lines)])

    async def _until_ready(self, process: asyncio.subprocess.Process, life: Life) -> None:
        deadline_at = life.started_at + READY_WITHIN_S
        async with aiohttp.ClientSession(self.url) as session:
            while not await _answers_ready(session):
                if process.returncode is not None:
                    raise DemoFailed(self.with_log(f"the server ended while starting, with status {process.returncode}"))
                if time.time() > deadline_at:
                    raise DemoFailed(self.with_log(f"the server was not ready {READY_WITHIN_S:.0f} s after its start"))
                await asyncio.sleep(READY_POLL_S)

    def _environment(self) -> dict[str, str]:
        # What the person has set for servers of their own would change what is shown here.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")}
        return inherited | dict(self._own_environment) | {"TELEMETRY_BUCKET": self._bucket}


async def _answers_ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/readyz", timeout=aiohttp.ClientTimeout(total=1)) as answer:
            return answer.status == HTTPStatus.OK
    except (aiohttp.ClientError, TimeoutError):
        return False


def _free_port() -> int:
    first = os.getpid() % len(PORTS)  # two demos at once begin their search at different places
    for port in itertools.chain(PORTS[first:], PORTS[:first]):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise DemoFailed(f"no port of {HOST} from {PORTS.start} to {PORTS.stop - 1} is free")


def _peak_memory(pid: int) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
