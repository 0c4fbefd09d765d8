"""`cabrank why`: what a job waits for, or why it ended as it did."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from cabrank.cli.looking import first_line, found, line, looking, moment, span
from cabrank.cli.options import Config, Json, Store
from cabrank.clock import SystemClock
from cabrank.job import text_id
from cabrank.states import State
from cabrank.stores.contract import InspectedStore, JobRecord

COUNTED = 10_000  # jobs before one in its queue; beyond that the number is no help


class Reasons(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    id: str
    state: State
    why: list[str]


async def why(id: str, /, *, store: Store = None, config: Config = None, json: Json = False) -> None:
    """Say what a job waits for, or why it is where it is.

    It may be due later, its queue paused, its limit used up, nobody there who knows its handler, others before it. A held job's payload
    could not be read, a dead one was given up, an expired one came too late or was dropped by a full queue.

    For example:

        cabrank why k7x2m9q4-1042 --store sqlite:///jobs.db

    Parameters
    ----------
    id
        The job's id.
    """
    async with looking(store, config) as opened:
        record = await found(opened, id)
        reasons = [reason async for reason in _reasons(opened, record)]
    if json:
        print(line(Reasons(id=id, state=record.state, why=reasons)))
        return
    what = f" of {record.handler} in queue {record.queue}" if record.handler else ""
    print(f"job {id}{what} is {'being cancelled' if record.cancelling else record.state.value}")
    for reason in reasons:
        print(f"  {reason}")


async def _reasons(store: InspectedStore, record: JobRecord) -> AsyncIterator[str]:
    if record.state is State.WAITING:
        async for reason in _waits_for(store, record):
            yield reason
    elif record.state is State.RUNNING:
        yield _since("run {run} began", record)
        if record.cancelling:
            yield "it was asked to stop, and has not ended yet: see where it stands with SIGUSR1 to its process"
    elif record.state is State.HELD:
        yield f"its payload does not fit its handler: {first_line(record.error or record.reason)}"
        yield f"deploy a handler that can read it, then `cabrank jobs retry {text_id(store.prefix, record.id)}`"
    elif record.state is not State.DONE:
        yield _since(record.reason.replace("_", " ") or "it ended so", record)
        if record.error:
            yield first_line(record.error)
        yield f"`cabrank jobs show` has all of it; `cabrank jobs retry {text_id(store.prefix, record.id)}` lets it run again"
    else:
        yield _since("it returned", record)


async def _waits_for(store: InspectedStore, record: JobRecord) -> AsyncIterator[str]:
    now, tally = SystemClock.now(), (await store.tally())[record.queue]
    if tally.paused:
        yield f"queue {record.queue} is paused: `cabrank queues resume {record.queue}`"
    if record.due_at > now:
        again = f", after {record.failures} failures" if record.failures else ""
        yield f"it is due at {moment(record.due_at)}, in {span(record.due_at - now)}{again}"
    standing = await store.standing(record.id)
    if standing is not None and standing.why:
        yield standing.why
    handlers = await store.handlers()
    if record.handler not in handlers:
        known = f"they know {', '.join(sorted(handlers))}" if handlers else "none works on it now"
        yield f"no process that works on this store knows handler {record.handler!r}: {known}; start one with `cabrank work`"
    elif record.due_at <= now and not tally.paused and not (standing and standing.why):
        ready = await store.ready(record.queue, COUNTED, priority=record.priority)
        before = f"{COUNTED:,} jobs or more" if ready == COUNTED else f"{ready:,} jobs, with it,"
        yield f"it waits for a worker: {tally.running:,} jobs of its queue run, and of its priority or before {before} are ready"


def _since(what: str, record: JobRecord) -> str:
    at = record.started_at if record.state is State.RUNNING else record.changed_at
    when = f" at {moment(at)}, {span(max(0.0, SystemClock.now() - at))} ago" if at else ""
    return what.format(run=record.run) + when
