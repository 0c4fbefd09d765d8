"""Whether everything that a server acknowledged has been done, read from its `/metrics`."""

import time

import msgspec

from bench.errors import RoundNotClean
from bench.server import Server

DONE = "cabrank_jobs_done_total"
UNFINISHED = ("cabrank_jobs_waiting", "cabrank_jobs_running")
DRAIN_LIMIT_S = 120.0
POLL_S = 0.05


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """`done` may exceed what was acknowledged: when wrk stops, some documents are stored whose answers it no longer reads."""

    acknowledged: int
    done: int
    took_s: float


def drain(server: Server, *, acknowledged: int) -> Drain:
    """Wait until no job waits or runs, and see that at least as many were done as were acknowledged.

    Raises: RoundNotClean.
    """
    started_at = time.monotonic()
    while True:
        metrics = read_metrics(server)
        unfinished = sum(metrics[name] for name in UNFINISHED)
        took_s = time.monotonic() - started_at
        if not unfinished:
            break
        if took_s > DRAIN_LIMIT_S:
            raise RoundNotClean(f"{server.contender.title}: {unfinished:,.0f} jobs unfinished {DRAIN_LIMIT_S:.0f} s after the load ended")
        time.sleep(POLL_S)
    done = int(metrics[DONE])
    if done < acknowledged:
        raise RoundNotClean(f"{server.contender.title}: {acknowledged:,} jobs acknowledged, {done:,} done, none left")
    return Drain(acknowledged=acknowledged, done=done, took_s=took_s)


def read_metrics(server: Server) -> dict[str, float]:
    """Each metric that the check needs, summed over its labels.

    Raises: RoundNotClean, if one is not there.
    """
    status, text = server.get("/metrics")
    totals: dict[str, float] = {}
    for line in text.decode().splitlines():
        if line and not line.startswith("#"):
            sample, _, value = line.rpartition(" ")
            name = sample.partition("{")[0]
            totals[name] = totals.get(name, 0.0) + float(value)
    if absent := {DONE, *UNFINISHED} - totals.keys():
        raise RoundNotClean(f"{server.contender.title}: /metrics (status {status}) does not show {', '.join(sorted(absent))}")
    return totals
