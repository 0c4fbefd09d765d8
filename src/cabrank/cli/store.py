"""`cabrank store`: a check, a vacuum, a copy, and all jobs as lines of text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from cyclopts import App
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cabrank.cli.looking import check_exists, file_of, line
from cabrank.cli.options import Config, Json, Store
from cabrank.clock import SystemClock
from cabrank.errors import SettingError
from cabrank.files import put_in_place
from cabrank.settings import KIB, MIB
from cabrank.stores.sqlite import care, moving

store = App(name="store", help="Check, shrink, copy, export and import a store in a file, also while others work with it.")


@store.command
def check(*, store: Store = None, config: Config = None, json: Json = False) -> int:
    """Read all of a store and say whether it is sound; the exit status is 1 if it is not.

    For example:

        cabrank store check --store sqlite:///jobs.db

    Parameters
    ----------
    store
        Where the jobs are: `sqlite:///relative.db` or `sqlite:////absolute.db`. Default: CABRANK_STORE, else `sqlite:///cabrank.db`.
    """
    health = care.check(_file(store, config))
    if json:
        print(line(health))
        return bool(health.faults)
    table = Table(box=SIMPLE_HEAD, show_header=False)
    table.add_row("file", health.path)
    table.add_row("schema", str(health.schema))
    table.add_row("size", f"{_size(health.bytes)}, of it free {_size(health.free_bytes)}; log {_size(health.log_bytes)}")
    table.add_row("processes", f"{health.processes} have it open")
    for reader in health.readers:
        table.add_row("reads", f"{reader}: while it goes on, the log grows")
    Console().print(table)
    for fault in health.faults:
        print(f"fault: {fault}")
    print("damaged: restore a backup, or recover what can be read with `sqlite3 .recover`" if health.faults else "sound")
    return bool(health.faults)


@store.command
def vacuum(*, store: Store = None, config: Config = None) -> None:
    """Give the disk back what the file does not use any more, in small steps between the work of others.

    Parameters
    ----------
    store
        Where the jobs are.
    """
    path = _file(store, config)
    with _bar("given back") as told:
        given_back = care.vacuum(path, told)
    print(f"{path}: {_size(given_back)} given back, {_size(path.stat().st_size)} in use")


@store.command
def backup(target: Path, /, *, store: Store = None, config: Config = None) -> None:
    """Copy a store as it is at this moment, while others go on with it. The copy can be used as a store.

    For example:

        cabrank store backup jobs-monday.db --store sqlite:///jobs.db

    Parameters
    ----------
    target
        The file to make; it must not be there.
    store
        Where the jobs are.
    """
    print(f"{target}: {_size(care.backup(_file(store, config), target))}")


@store.command
def export(target: Path | None = None, /, *, store: Store = None, config: Config = None) -> None:
    """Write all jobs that have not returned, and what belongs to them, as lines of JSON: to a file, else to the standard output.

    What runs at this moment is written as waiting: stop the workers first if nothing may run twice. Ids and idempotency keys are kept;
    results of finished jobs are not.

    For example:

        cabrank store export jobs.ndjson --store sqlite:///jobs.db
        cabrank store export --store sqlite:///jobs.db | grep '"handler":"upload"'

    Parameters
    ----------
    target
        The file to write; it must not be there.
    store
        Where the jobs are.
    """
    path = _file(store, config)
    if target is None:
        moving.export(path, sys.stdout.buffer.write, _silent)
        sys.stdout.flush()
        return
    if target.exists():
        raise SettingError(f"{target} is there already: name a file that is not")
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file, _bar("jobs") as told:
            jobs = moving.export(path, file.write, told)
        put_in_place(part, target)
    finally:
        part.unlink(missing_ok=True)
    print(f"{target}: {jobs:,} jobs")


@store.command(name="import")
def bring(source: Path, /, *, store: Store = None, config: Config = None) -> None:
    """Make a store out of an export. Jobs keep their ids; the file must not be there.

    For example:

        cabrank store import jobs.ndjson --store sqlite:///new.db

    Parameters
    ----------
    source
        What `cabrank store export` wrote.
    store
        The store to make.
    """
    path = file_of(store, config)
    try:
        lines = source.open("rb")
    except OSError as error:
        raise SettingError(f"{source} cannot be read: {error.strerror}") from None
    with lines, _bar("jobs") as told:
        jobs = moving.bring(lines, path, Random(), told, now=SystemClock.now())
    print(f"{path}: {jobs:,} jobs")


def _silent(done: int, whole: int) -> None:
    """Say nothing of it: what is printed is the export."""
    del done, whole


def _file(store: str | None, config: str | None) -> Path:
    path = file_of(store, config)
    check_exists(path)
    return path


@contextmanager
def _bar(what: str) -> Generator[Callable[[int, int], None]]:
    """A bar for what takes long, where somebody looks."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, whole: progress.update(bar, completed=done, total=whole)


def _size(count: int) -> str:
    return f"{count / MIB:,.1f} MiB" if count >= MIB else f"{count / KIB:,.1f} KiB"
