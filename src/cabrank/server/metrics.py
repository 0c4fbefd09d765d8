"""`GET /metrics` in Prometheus' text format.

Written here: the counters are plain attributes already, so a client library with a registry of its own would hold every figure
twice to save these few lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cabrank.dispatcher import Dispatcher
from cabrank.errors import StoreError
from cabrank.stores.contract import Tally

MEDIA = "text/plain; version=0.0.4; charset=utf-8"

COUNTERS = {
    "cabrank_jobs_admitted_total": ("admitted", "Jobs taken on."),
    "cabrank_submissions_refused_total": ("refused", "Submissions refused: full, or their key was used with another body."),
    "cabrank_jobs_done_total": ("done", "Jobs whose handler returned."),
    "cabrank_jobs_retried_total": ("retried", "Runs after which the job waits for another try."),
    "cabrank_jobs_dead_total": (
        "dead",
        "Jobs given up by their handler or policy; those whose processes died too often are among cabrank_dead_jobs.",
    ),
    "cabrank_jobs_cancelled_total": ("cancelled", "Jobs cancelled while they ran."),
    "cabrank_jobs_expired_total": ("expired", "Jobs whose deadline had passed before they started, or that a full queue dropped."),
    "cabrank_jobs_dropped_total": ("dropped", "Jobs that a full queue dropped, as its overflow policy says."),
    "cabrank_jobs_held_total": ("held", "Jobs whose payload did not decode."),
    "cabrank_jobs_released_total": ("released", "Runs handed back at a stop."),
    "cabrank_jobs_lost_total": ("lost", "Runs whose lease was lost: what they did is not recorded."),
    "cabrank_runs_left_behind_total": ("left_behind", "Runs that did not stop when they were told, and were left behind."),
    "cabrank_loop_blocks_total": ("loop_blocks", "Times that a handler blocked the event loop for longer than loop_block_s."),
    "cabrank_leases_let_go_total": (
        "leases_let_go",
        "Times that the leases were not renewed, for the event loop was blocked for longer than max_loop_block_s.",
    ),
    "cabrank_turns_total": ("turns", "Turns of the store."),
    "cabrank_turns_seconds_total": ("turns_s", "Seconds that turns took, from the event loop to the store and back, until it answered."),
    "cabrank_turns_failed_total": ("turns_failed", "Turns that the store did not answer at first."),
}
TALLIED = {
    "cabrank_jobs_waiting": ("waiting", "Jobs that wait, those that are due later included."),
    "cabrank_jobs_waiting_bytes": ("waiting_bytes", "Bytes of the payloads of jobs that wait."),
    "cabrank_jobs_running": ("running", "Jobs that are leased to a process."),
    "cabrank_dead_jobs": ("dead", "Jobs that were given up and wait for a person."),
    "cabrank_held_jobs": ("held", "Jobs that do not decode and wait for a fix."),
    "cabrank_queue_paused": ("paused", "Whether the queue is paused: nothing of it starts."),
}


async def metrics_text(dispatcher: Dispatcher) -> str:
    """Everything that is counted, since the start of this process or in the store. A store that does not answer is left out."""
    counters = dispatcher.engine.counters
    lines = [
        line
        for name, (attribute, what) in COUNTERS.items()
        for line in _family(name, "counter", what, [("", getattr(counters, attribute))])
    ]
    pools = dispatcher.pools
    lines += _gauge("cabrank_workers", "Workers of this process.", {queue: pool.size for queue, pool in pools.items()})
    lines += _gauge("cabrank_workers_idle", "Workers that run nothing.", {queue: pool.idle for queue, pool in pools.items()})
    log_bytes = dispatcher.engine.condition.log_bytes
    lines += _family("cabrank_store_log_bytes", "gauge", "Bytes of the log of changes beside the store's file.", [("", log_bytes)])
    try:
        tally = await dispatcher.engine.store.tally()
    except StoreError:
        up = 0
    else:
        up = int(dispatcher.engine.answering)
        tally = {queue: Tally() for queue in pools} | dict(tally)
        for name, (attribute, what) in TALLIED.items():
            lines += _gauge(name, what, {queue: int(getattr(counted, attribute)) for queue, counted in tally.items()})
    lines += _family("cabrank_ready", "gauge", "Whether it takes work, the store answers, and its event loop turns.", [("", up)])
    return "\n".join([*lines, ""])


def _gauge(name: str, what: str, by_queue: Mapping[str, int]) -> Iterator[str]:
    return _family(name, "gauge", what, ((f'{{queue="{queue}"}}', value) for queue, value in sorted(by_queue.items())))


def _family(name: str, kind: str, what: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{labels} {value}"
