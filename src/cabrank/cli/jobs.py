"""`cabrank jobs`: what is in the store, and what people do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

import msgspec
from cyclopts import App
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cabrank.cli.looking import first_line, found, line, looking, matching, moment, span, style_of
from cabrank.cli.options import Config, Handler, Ids, IdsOrFilter, Json, Queue, Store
from cabrank.clock import SystemClock
from cabrank.errors import SettingError
from cabrank.job import number_of, text_id
from cabrank.server.views import job_view, whole_view
from cabrank.states import TRANSITIONS, Cause, State
from cabrank.stores.contract import InspectedStore, JobFilter, JobRecord
from cabrank.timeline import Happened, timeline_of

StateName = Literal["waiting", "running", "done", "dead", "cancelled", "expired", "held"]
Deed = Callable[[int], Awaitable[bool]]
Change = Callable[[JobFilter], AsyncIterator[tuple[int, int]]]
"""Changes the jobs that a filter lets through, page by page: how many of how many."""
TOLD_APART = {"progress", "failed_runs"}  # of a job's view, where it is shown to people
CANCELLED = "is cancelled, or asked to stop if it runs"

jobs = App(name="jobs", help="Look at jobs, and retry, cancel or purge them: one by its id, or many by a filter.")


@jobs.command(name="list")
async def list_jobs(
    *,
    state: StateName | None = None,
    queue: Queue = "",
    handler: Handler = "",
    limit: int = 100,
    after: str | None = None,
    store: Store = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """List jobs in the order of their submission. Finished ones are listed with `--state done` only.

    For example:

        cabrank jobs list --state waiting --queue uploads
        cabrank jobs list --state dead --json | jq -r .id

    Parameters
    ----------
    state
        Only jobs in this state.
    limit
        How many at most.
    after
        An id: only jobs that were submitted after it.
    """
    which = JobFilter(state=None if state is None else State(state), queue=queue, handler=handler)
    async with looking(store, config) as opened:
        first = 0 if after is None else number_of(opened.prefix, after)
        records = [record async for record in _records(opened, which, first, limit)]
        _show(opened, records, limit, as_json=json)


@jobs.command
async def dead(*, queue: Queue = "", handler: Handler = "", store: Store = None, config: Config = None, json: Json = False) -> None:
    """List the jobs that were given up, with their last error: `cabrank jobs list --state dead`."""
    await list_jobs(state="dead", queue=queue, handler=handler, store=store, config=config, json=json)


@jobs.command
async def held(*, queue: Queue = "", handler: Handler = "", store: Store = None, config: Config = None, json: Json = False) -> None:
    """List the jobs whose payload could not be read, and why: `cabrank jobs list --state held`."""
    await list_jobs(state="held", queue=queue, handler=handler, store=store, config=config, json=json)


@jobs.command
async def show(*ids: Ids, store: Store = None, config: Config = None, json: Json = False) -> None:
    """Show all that is known of jobs: where they stand, what they were given, what their runs failed of.

    For example:

        cabrank jobs show k7x2m9q4-1042 --store sqlite:///jobs.db
    """
    if not ids:
        raise SettingError("say which jobs, by their ids: `cabrank jobs list` shows them")
    async with looking(store, config) as opened:
        for id in ids:
            record = await found(opened, id)
            if json:
                print(line(whole_view(record, opened.prefix)))
            else:
                Console().print(_portrait(record, opened.prefix), _timeline(record))


@jobs.command
async def retry(
    *ids: IdsOrFilter,
    state: Literal["dead", "held", "cancelled", "expired"] | None = None,
    queue: Queue = "",
    handler: Handler = "",
    store: Store = None,
    config: Config = None,
) -> None:
    """Make dead, held, cancelled or expired jobs wait again, their failures forgotten: those of the ids, or all that a filter names.

    For example:

        cabrank jobs retry k7x2m9q4-1042
        cabrank jobs retry --state dead --handler upload

    Parameters
    ----------
    state
        Only jobs in this state. Default with a filter: dead ones.
    """
    chosen = _chosen(ids, state, queue, handler, instead=(State.DEAD,), may=Cause.REOPENED)
    async with looking(store, config) as opened:

        async def reopened(which: JobFilter) -> AsyncIterator[tuple[int, int]]:
            after: int | None = 0
            while after is not None:
                done = await opened.reopen_all(which, after=after)
                yield done.reopened, done.reopened + len(done.taken)
                after = done.after

        await _each(opened, ids, opened.reopen, "waits again", "cannot be retried")
        await _all(chosen, reopened, "waits again")


@jobs.command
async def cancel(
    *ids: IdsOrFilter,
    state: Literal["waiting", "running", "held"] | None = None,
    queue: Queue = "",
    handler: Handler = "",
    store: Store = None,
    config: Config = None,
) -> None:
    """Cancel jobs that have not ended: those of the ids, or all that a filter names. A running one is asked to stop.

    For example:

        cabrank jobs cancel k7x2m9q4-1042
        cabrank jobs cancel --queue uploads --handler upload

    Parameters
    ----------
    state
        Only jobs in this state. Default with a filter: waiting and running ones.
    """
    chosen = _chosen(ids, state, queue, handler, instead=(State.WAITING, State.RUNNING), may=Cause.CANCELLED)
    async with looking(store, config) as opened:

        async def cancelled(which: JobFilter) -> AsyncIterator[tuple[int, int]]:
            async for page in matching(opened, which):
                for record in page.records:
                    yield await opened.cancel(record.id), 1

        await _each(opened, ids, opened.cancel, CANCELLED, "cannot be cancelled")
        await _all(chosen, cancelled, CANCELLED)


@jobs.command
async def purge(
    *ids: IdsOrFilter,
    state: Literal["dead", "held", "cancelled", "expired"] | None = None,
    queue: Queue = "",
    handler: Handler = "",
    store: Store = None,
    config: Config = None,
) -> None:
    """Forget dead, held, cancelled or expired jobs for good: those of the ids, or all that a filter names.

    For example:

        cabrank jobs purge k7x2m9q4-1042
        cabrank jobs purge --state dead --handler upload

    Parameters
    ----------
    state
        Only jobs in this state. Default with a filter: dead ones.
    """
    chosen = _chosen(ids, state, queue, handler, instead=(State.DEAD,), may=Cause.REOPENED)
    async with looking(store, config) as opened:

        async def forget(id: int) -> bool:
            return await opened.purge([id]) > 0

        async def purged(which: JobFilter) -> AsyncIterator[tuple[int, int]]:
            async for page in matching(opened, which):
                yield await opened.purge([record.id for record in page.records]), len(page.records)

        await _each(opened, ids, forget, "is forgotten", "cannot be purged")
        await _all(chosen, purged, "is forgotten")


def _chosen(
    ids: Sequence[str], state: str | None, queue: str, handler: str, *, instead: Sequence[State], may: Cause
) -> Sequence[JobFilter]:
    """The filters by which jobs are chosen, none if they are named by their ids.

    Raises:
        SettingError: neither says which, or both do.
    """
    filtered = bool(state or queue or handler)
    if bool(ids) == filtered:
        ways = " or ".join(sorted({before.value for before, cause in TRANSITIONS if cause is may}))
        raise SettingError(f"say which jobs: their ids, or a filter such as --state, --queue and --handler, not both; they may be {ways}")
    states = [State(state)] if state else instead
    return [JobFilter(state=each, queue=queue, handler=handler) for each in states] if filtered else []


async def _each(store: InspectedStore, ids: Sequence[str], deed: Deed, done: str, refused: str) -> None:
    """Do it to each job that is named, and say what came of it."""
    for id in ids:
        record = await found(store, id)
        what = done if await deed(record.id) else f"{refused}: it is {record.state}"
        print(f"job {id} of {record.handler or 'an unknown handler'} {what}")


async def _all(chosen: Sequence[JobFilter], change: Change, done: str) -> None:
    """Change page by page what filters let through, and say how many of how many that were."""
    console, changed, whole = Console(stderr=True), 0, 0
    columns = (TextColumn("{task.completed:,.0f} jobs"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("jobs", total=None)
        for which in chosen:
            async for of_them, looked_at in change(which):
                changed, whole = changed + of_them, whole + looked_at
                progress.update(bar, completed=whole)
    if chosen:
        print(f"{changed:,} of {whole:,} jobs: each {done}")


async def _records(store: InspectedStore, which: JobFilter, after: int, limit: int) -> AsyncIterator[JobRecord]:
    async for page in matching(store, which, after=after):
        for record in page.records:
            if limit == 0:
                return
            limit -= 1
            yield record


def _show(store: InspectedStore, records: Sequence[JobRecord], limit: int, *, as_json: bool) -> None:
    if as_json:
        for record in records:
            print(line(job_view(record, store.prefix)))
        return
    if not records:
        print("there are no such jobs; those that returned are listed with --state done, and `cabrank queues list` counts the others")
        return
    table = Table(box=SIMPLE_HEAD, expand=True)
    for name, width in (("id", len(text_id(store.prefix, records[-1].id))), ("state", 9), ("when", 10), ("run", 3)):
        table.add_column(name, no_wrap=True, min_width=width)
    for name in ("handler", "queue"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    table.add_column("error", no_wrap=True, overflow="ellipsis", ratio=1)  # what the others leave: a long error cuts no name off
    for record in records:
        style, state = style_of(record.state), "cancelling" if record.cancelling else record.state.value
        table.add_row(
            text_id(store.prefix, record.id),
            f"[{style}]{state}[/]" if style else state,
            _when(record),
            str(record.run),
            record.handler or "?",
            record.queue or "?",
            Text(first_line(record.error or record.reason)),
        )
    Console().print(table)
    if len(records) == limit:
        print(f"more may follow: --after {text_id(store.prefix, records[-1].id)}")


def _when(record: JobRecord) -> str:
    """When a waiting job is due, or since when any other is as it is."""
    now = SystemClock.now()
    if record.state is State.WAITING and record.due_at > now:
        return f"in {span(record.due_at - now)}"
    at = record.due_at if record.state is State.WAITING else record.changed_at
    return f"{span(max(0.0, now - at))} ago" if at else ""


def _portrait(record: JobRecord, prefix: str) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in msgspec.to_builtins(job_view(record, prefix)).items():
        if value not in (None, "", [], 0) and name not in TOLD_APART:
            table.add_row(name, Text(moment(value) if name.endswith("_at") else str(value)))
    if record.progress is not None:
        note = f" {record.progress.note}" if record.progress.note else ""
        table.add_row("progress", Text(f"{record.progress.fraction:.0%}{note}, {span(SystemClock.now() - record.progress.at)} ago"))
    return table


def _timeline(record: JobRecord) -> Table:
    """Each moment that is kept, and what happened then; of a run that failed the end of its error."""
    errors = {one.run: first_line(one.error) for one in record.failed_runs}
    table = Table(box=SIMPLE_HEAD)
    for name in ("when", "what happened", "error"):
        table.add_column(name, overflow="fold")
    for one in timeline_of(record):
        failed = one.what in {Happened.FAILED, Happened.CRASHED}
        table.add_row(moment(one.at), Text(str(one)), Text(errors.get(one.run, "") if failed else ""))
    return table
