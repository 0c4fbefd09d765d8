"""One measurement: one contender, one document size, one number of connections, on a fresh server and a fresh store."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.contender import Contender, Name
from bench.document import document
from bench.drain import Drain, drain
from bench.process import cpu_s, family, peak_memory
from bench.server import Server, serving, verify
from bench.wrk import Load, post

WARM_UP_S = 1
RUNNING = "running"  # the folder of the server that is measured now, with its store and its log


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of every contender in turn."""

    payloads: int
    connections: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one contender did with one case in one round. `drain` is None for those that cannot say."""

    round: int
    contender: Name
    case: Case
    load: Load
    cpu_us: float
    """Server CPU, user and system, for one request; with the work that is still to do when the load ends."""
    peak_memory: int
    drain: Drain | None

    @property
    def payloads_per_s(self) -> float:
        return self.load.requests_per_s * self.case.payloads


def measure(contender: Contender, case: Case, *, number: int, seconds: int, scratch: Path) -> Sample:
    """Start the contender, check it, warm it up, load it, see that it finished its work, and stop it.

    Raises: ServerFailed, RoundNotClean.
    """
    folder = empty_folder(scratch / RUNNING)
    body = folder / "document.json"
    body.write_bytes(document(payloads=case.payloads))
    with serving(contender, folder=folder) as server:
        verify(server, body.read_bytes())
        warm_up = post(server.url, body=body, connections=case.connections, seconds=WARM_UP_S)
        before = 1 + warm_up.requests
        finish(server, case, (before,))
        processes = family(server.pid)
        cpu_at_start_s = sum(map(cpu_s, processes))
        load = post(server.url, body=body, connections=case.connections, seconds=seconds)
        finished = finish(server, case, (before, load.requests))
        return Sample(
            round=number,
            contender=contender.name,
            case=case,
            load=load,
            cpu_us=(sum(map(cpu_s, processes)) - cpu_at_start_s) / load.requests * 1e6,
            peak_memory=sum(map(peak_memory, processes)),
            drain=finished,
        )


def finish(server: Server, case: Case, requests: Sequence[int]) -> Drain | None:
    """Wait until the jobs of those requests are done, where the server can tell."""
    if not server.contender.ours:
        return None
    return drain(server, acknowledged=sum(requests) * case.payloads)


def empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
