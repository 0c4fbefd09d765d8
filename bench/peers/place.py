"""One peer at work: submitters, workers and what its handlers noted."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.peers import servers
from bench.peers.environment import OURS, Environment
from bench.peers.who import Needs, Peer
from bench.process import peak_memory

APPS = Path(__file__).with_name("apps")
RECORD = struct.Struct("<qqq")
BEGUN, DONE = 0, 1
SUBMIT_PATIENCE_S = 300.0
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 -- the records of the handlers, about 1.5 µs each there


class Place:
    """A peer with a fresh server, and its workers."""

    def __init__(self, peer: Peer, environment: Environment, folder: Path, variables: Mapping[str, str], records: Path) -> None:
        self.peer = peer
        self._environment = environment
        self._folder = folder
        self._records = records
        self._variables = {**os.environ, **variables, "BENCH_RECORDS": str(records), "BENCH_FILE": str(folder / "jobs.db")}
        self._variables["PYTHONPATH"] = os.pathsep.join(
            [str(APPS), os.environ.get("PYTHONPATH", "")] if environment is OURS else [str(APPS)]
        )
        self.worker: list[str] = []

    def submit(self, how: str, count: int) -> dict[str, Any]:
        """What a submitter measured, in a process of its own."""
        command = self._environment.command(["python", str(APPS / "submitter.py"), self.peer.name, how, str(count)])
        ended = subprocess.run(
            command, cwd=APPS, env=self._variables, check=False, capture_output=True, text=True, timeout=SUBMIT_PATIENCE_S
        )
        if ended.returncode:
            raise RuntimeError(ended.stderr.strip().splitlines()[-1])
        found: dict[str, Any] = msgspec.json.decode(ended.stdout.splitlines()[-1])
        self.worker = found.get("worker", self.worker)
        return found

    def start(self) -> subprocess.Popen[bytes]:
        """A worker, in a session of its own, so that it can be ended with its children."""
        command = self._environment.command(self.worker)
        log = (self._folder / "worker.log").open("ab")
        return subprocess.Popen(command, cwd=APPS, env=self._variables, start_new_session=True, stdout=log, stderr=log)

    @contextlib.contextmanager
    def working(self) -> Generator[subprocess.Popen[bytes], None, None]:
        """A worker, killed at the end."""
        worker = self.start()
        try:
            yield worker
        finally:
            kill(worker)

    def records(self) -> list[tuple[int, int, int]]:
        """What the handlers noted: number of the job, moment in ns, what."""
        return list(RECORD.iter_unpack(self._records.read_bytes()))

    def clear(self) -> None:
        """Forget what was noted."""
        os.truncate(self._records, 0)

    def wait(self, count: int, *, within_s: float, quiet_s: float) -> list[tuple[int, int, int]]:
        """The records, once there are so many; or what there is when the time is up, or nothing has come for `quiet_s`."""
        ends_at, seen, came_at = time.monotonic() + within_s, 0, time.monotonic()
        while (size := self._records.stat().st_size // RECORD.size) < count and time.monotonic() < ends_at:
            if size != seen:
                seen, came_at = size, time.monotonic()
            if time.monotonic() - came_at > quiet_s:
                break
            time.sleep(0.01)
        return self.records()


def family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text("ascii").split())
    return list(dict.fromkeys(found))


def memory(worker: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The peak of the largest process, and of all together, in bytes."""
    sizes: list[int] = []
    for pid in family(worker.pid):
        with contextlib.suppress(OSError):
            sizes.append(peak_memory(pid))
    return (max(sizes), sum(sizes)) if sizes else (0, 0)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the worker's whole tree, which we started."""
    for pid in family(worker.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    worker.wait()


@contextlib.contextmanager
def place(peer: Peer, environment: Environment, scratch: Path) -> Generator[Place, None, None]:
    """A fresh place for one peer."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch, prefix=f"{peer.name}-")))
        folder.chmod(0o755)
        memory_folder = stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else scratch))
        records = Path(memory_folder) / "records"
        records.touch()
        variables: dict[str, str] = {}
        if peer.needs is Needs.REDIS:
            variables["BENCH_REDIS_PORT"] = str(stack.enter_context(servers.redis(environment, folder)))
        if peer.needs is Needs.POSTGRES:
            variables["BENCH_POSTGRES_PORT"] = str(stack.enter_context(servers.postgres(environment, folder)))
        made = Place(peer, OURS if peer.name == "cabrank" else environment, folder, variables, records)
        made.submit("prepare", 0)
        yield made
