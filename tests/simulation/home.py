"""Where the jobs of a run are kept, as the simulation sees it: what it shows after each change, and how processes come to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from cabrank.states import State
from cabrank.stores.contract import InspectedStore, Tally
from tests.simulation.clock import VirtualClock


class Kind(StrEnum):
    """What jobs are kept in."""

    MEMORY = "memory"
    SQLITE = "sqlite"


class Row(NamedTuple):
    """One job that is not done. `holder` is 0 if it does not run, `limit_key` None if its handler has no limit."""

    state: State
    run: int
    failures: int
    crashes: int
    holder: int
    queue: str
    payload: bytes
    limit_key: str | None


class Shown(NamedTuple):
    """Everything at one moment."""

    rows: Mapping[int, Row]
    cancelling: Collection[int]
    """Jobs that somebody cancelled while they ran."""
    paused: Collection[str]
    tally: Mapping[str, Tally]
    """What is counted of each queue, not recounted."""
    limits: Sequence[tuple[str, Collection[int]]]
    """What is counted as running of each key, where that is not recounted each time."""
    astray: Sequence[str]
    """What refers to something that is not there, in words."""


class Connection(InspectedStore, Protocol):
    """A process's own way to the jobs: one holder."""

    expire: Callable[[float], None] | None
    """How its lease is made to run out, where it does not by itself. See `FaultyStore`."""

    @property
    def holder(self) -> int:
        """Its number."""
        ...

    def kill(self) -> None:
        """Let go what the kernel lets go when a process dies; write nothing."""
        ...


class Home(Protocol):
    """Outlives every process."""

    clock: VirtualClock
    """The wall clock that the jobs' moments are written by."""
    watchers: list[Callable[[Shown], None]]
    """Told after every change."""
    folder: str
    """What is left out of traces, for it is another one each time. May be empty."""

    @property
    def prefix(self) -> str:
        """The random part of text ids."""
        ...

    def look(self) -> None:
        """Show the watchers everything."""
        ...

    def running(self, id: int) -> Row | None:
        """The job of that id, if it runs."""
        ...

    def knows(self, id: int) -> bool:
        """Whether the job is there, in whatever state but done."""
        ...

    def done(self, id: int) -> int | None:
        """The run that made the job done, 0 if that is not kept; None if it is not done."""
        ...

    def held_by(self, holder: int) -> Sequence[int] | None:
        """The jobs that a holder holds; None if it is none any more."""
        ...

    def connect(self, before_close: Callable[[], None]) -> Connection:
        """A new way to the jobs, not yet open."""
        ...

    async def cancel(self, id: int) -> bool:
        """Somebody beside all processes cancels a job."""
        ...

    async def reopen(self, id: int) -> bool:
        """Somebody beside all processes reopens a job."""
        ...

    def faults(self) -> Sequence[str]:
        """What a thorough look at the end finds, in words."""
        ...

    def close(self) -> None:
        """Tidy up."""
        ...
