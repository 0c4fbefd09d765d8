"""`cabrank queues`: how each line of jobs stands, and pausing, resuming and draining it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from cyclopts import App
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cabrank.cli.looking import line, looking, span
from cabrank.cli.options import Config, Json, Queues, Store
from cabrank.clock import SystemClock
from cabrank.errors import SettingError
from cabrank.server.queues import oldest_s
from cabrank.stores.contract import InspectedStore, Tally

LOOK_S = 0.2  # how often a queue is looked at that is to be empty; a change of another process is heard of before

queues = App(name="queues", help="Look at queues, pause and resume them, and wait until they are empty.")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One queue, as `--json` prints it. `oldest_s` is since when the oldest of its jobs has been ready, null if none is."""

    queue: str
    waiting: int
    waiting_bytes: int
    running: int
    dead: int
    held: int
    oldest_s: float | None
    paused: bool


@queues.command(name="list")
async def list_queues(*, store: Store = None, config: Config = None, json: Json = False) -> None:
    """Show every queue of a store: what waits and runs, for how long the oldest has been ready, whether it is paused.

    For example:

        cabrank queues list --store sqlite:///jobs.db
    """
    async with looking(store, config) as opened:
        lines = [await _line(opened, queue, tally) for queue, tally in sorted((await opened.tally()).items())]
    if json:
        for one in lines:
            print(line(one))
        return
    table = Table("queue", box=SIMPLE_HEAD)
    for name in ("waiting", "bytes", "running", "dead", "held", "oldest"):
        table.add_column(name, justify="right")
    table.add_column()
    for one in lines:
        counts = (f"{count:,}" for count in (one.waiting, one.waiting_bytes, one.running, one.dead, one.held))
        oldest = "" if one.oldest_s is None else span(one.oldest_s)
        table.add_row(one.queue, *counts, oldest, "[yellow]paused[/]" if one.paused else "")
    Console().print(table)


@queues.command
async def pause(*names: Queues, store: Store = None, config: Config = None) -> None:
    """Start nothing more of these queues, in any process, until they are resumed. New jobs are still taken on; what runs goes on."""
    async with looking(store, config) as opened:
        await _check(opened, names)
        for name in names:
            await opened.pause(name)
            print(f"queue {name} is paused: `cabrank queues resume {name}` lets it go on")


@queues.command
async def resume(*names: Queues, store: Store = None, config: Config = None) -> None:
    """Let paused queues go on."""
    async with looking(store, config) as opened:
        await _check(opened, names)
        for name in names:
            await opened.resume(name)
            print(f"queue {name} goes on")


@queues.command
async def drain(*names: Queues, within: float | None = None, store: Store = None, config: Config = None) -> None:
    """Wait until nothing of these queues waits or runs, with a bar. Whoever still submits to them is not stopped.

    For example:

        cabrank queues drain uploads --within 60

    Parameters
    ----------
    within
        Seconds after which it is given up, with exit status 1. Default: none.
    """
    async with looking(store, config) as opened:
        await _check(opened, names)
        try:
            async with asyncio.timeout(within):
                await _empty(opened, names)
        except TimeoutError:
            left = sum(map(_left, _of(await opened.tally(), names)))
            raise SettingError(f"after {within:g} s {left:,} jobs of {', '.join(names)} still wait or run") from None
    print(f"{', '.join(names)}: nothing waits or runs")


async def _empty(store: InspectedStore, names: tuple[str, ...]) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar, most = progress.add_task(", ".join(names)), 0
        while True:
            tallies = _of(await store.tally(), names)
            paused = [name for name, tally in zip(names, tallies, strict=True) if tally.paused and tally.waiting]
            if paused:
                raise SettingError(f"queue {paused[0]} is paused, so this would wait for ever: `cabrank queues resume {paused[0]}`")
            left = sum(map(_left, tallies))
            most = max(most, left)
            progress.update(bar, total=most, completed=most - left)
            if not left:
                return
            try:
                async with asyncio.timeout(LOOK_S):
                    await store.arrival()
            except TimeoutError:
                pass


def _left(tally: Tally) -> int:
    return tally.waiting + tally.running


def _of(tallies: Mapping[str, Tally], names: tuple[str, ...]) -> list[Tally]:
    return [tallies[name] for name in names]


async def _check(store: InspectedStore, names: tuple[str, ...]) -> None:
    """Raise if a queue is not there.

    Raises:
        SettingError: none was named, or there is none of that name.
    """
    there = sorted(await store.tally())
    if not names:
        raise SettingError(f"say which queues: there are {', '.join(there) or 'none yet'}")
    for name in names:
        if name not in there:
            raise SettingError(f"no queue is named {name!r}: there are {', '.join(there) or 'none yet'}")


async def _line(store: InspectedStore, queue: str, tally: Tally) -> Line:
    return Line(
        queue=queue,
        waiting=tally.waiting,
        waiting_bytes=tally.waiting_bytes,
        running=tally.running,
        dead=tally.dead,
        held=tally.held,
        oldest_s=await oldest_s(store, queue, SystemClock.now()) if tally.waiting else None,
        paused=tally.paused,
    )
