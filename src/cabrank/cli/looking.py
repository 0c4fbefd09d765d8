"""The store that a command looks into, and how what it finds is shown."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from cabrank.cli.starting import DURABLE_STORE
from cabrank.errors import SettingError, StoreUnusable
from cabrank.intake import Intake
from cabrank.job import number_of, unknown_job
from cabrank.settings import Settings, load
from cabrank.states import State
from cabrank.stores import path_of
from cabrank.stores.contract import InspectedStore, JobFilter, JobRecord, Page

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
PAGE = 1_000  # jobs of one look where all that match are wanted


@asynccontextmanager
async def looking(store: str | None, config: str | None) -> AsyncGenerator[InspectedStore]:
    """The store that is named, else that of the settings, open beside whoever works with it. One that does not exist is not made.

    Raises:
        SettingError: its jobs are in the memory of another process.
        StoreUnusable: there is none.
        StoreUnavailable: it does not answer.
    """
    settings = _settings(store, config)
    check_exists(_file_of(settings))
    async with Intake(settings=settings) as intake:
        yield intake.engine.store


def file_of(store: str | None, config: str | None) -> Path:
    """The file of the store that is named, else of that of the settings; it need not be there.

    Raises:
        SettingError: the store is in the memory of another process.
    """
    return _file_of(_settings(store, config))


def _settings(store: str | None, config: str | None) -> Settings:
    return load(os.environ, config=config, otherwise={"store": DURABLE_STORE}, store=store)


def _file_of(settings: Settings) -> Path:
    path = path_of(settings.store)
    if path is None:
        raise SettingError(f"jobs of {settings.store} are in the memory of their process: ask its HTTP server, or give a store in a file")
    return path


def check_exists(path: Path) -> None:
    """Raise if there is no store.

    Raises:
        StoreUnusable: there is no such file.
    """
    if not path.exists():
        raise StoreUnusable(f"{path}: there is no such file; name the store with --store sqlite:///path/to/jobs.db, or CABRANK_STORE")


async def matching(store: InspectedStore, which: JobFilter, *, after: int = 0) -> AsyncIterator[Page]:
    """Page by page what a filter lets through, from behind `after` on."""
    page = Page(records=(), after=after)
    while page.after is not None:
        page = await store.browse(which, after=page.after, limit=PAGE)
        yield page


async def found(store: InspectedStore, id: str) -> JobRecord:
    """The job of a text id.

    Raises:
        UnknownJob: there is none.
    """
    number = number_of(store.prefix, id)
    records = await store.find([number])
    if number not in records:
        raise unknown_job(id)
    return records[number]


def span(seconds: float) -> str:
    """A duration for people: `340 ms`, `12 s`, `5 min`, `3.2 h`, `12 d`."""
    for unit, name, below in ((0.001, "ms", 1), (1, "s", 2 * MINUTE_S), (MINUTE_S, "min", 2 * HOUR_S), (HOUR_S, "h", 2 * DAY_S)):
        if seconds < below:
            return f"{seconds / unit:.2g} {name}" if seconds / unit < 10 else f"{seconds / unit:.0f} {name}"  # noqa: PLR2004 -- two digits
    return f"{seconds / DAY_S:.0f} d"


def moment(at: float) -> str:
    """A moment for people, in the zone of this machine; empty if it is not known."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else ""


def first_line(text: str) -> str:
    """What a text begins with; of a traceback, what it ends with."""
    lines = text.strip().splitlines()
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def line(value: object) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value).decode()


def style_of(state: State) -> str:
    """The colour that says whether somebody has to look."""
    return {State.DEAD: "red", State.HELD: "yellow", State.RUNNING: "green"}.get(state, "")
