"""What goes with the next turn and waits for no answer: new jobs that have room, settlements, runs that returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cabrank.block import Block
from cabrank.job import Job, Progress, Settlement
from cabrank.stores.contract import Returned

MERGED = 1_000  # jobs of several submits that go on as one block: what is kept of it goes only when all of them have ended
MERGED_BYTES = 1024 * 1024


class Pending:
    """Gathers for the committer while a turn is on its way. `tell` is called when something came."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell = tell
        self.before: list[Callable[[], bool]] = []
        """Called before a turn takes what is here: whoever holds something back brings it, and says whether more may come at once."""
        self.jobs: list[Sequence[Job]] = []
        self.open: Block | None = None
        """The last of `jobs`, if it can be added to."""
        self.beside: Any = None
        """What whoever adds to `open` keeps with it; it is let go of when nothing can be added any more."""
        self._settlements: list[Settlement] = []
        self._returned: dict[int, list[int]] = {1: []}  # see `Returned`
        self.first_runs = self._returned[1]
        """Where the ids of jobs go whose first run returned None; `tell` then. For whoever ends so many that a call each would count."""
        self.progress: dict[int, Progress] = {}
        """How far runs are that go on, by job; always the same object. Other threads add to it; it is no reason for a turn."""

    def __bool__(self) -> bool:
        return bool(self.jobs or self._settlements or any(self._returned.values()))

    def add(self, jobs: Sequence[Job]) -> None:
        """Take jobs to the store that were counted in by `Room.take`. There is nothing to wait for."""
        if isinstance(jobs, Block):
            if self.open is None or not self.open.absorb(jobs, MERGED, MERGED_BYTES):
                self.begin(jobs)
            return
        self.close()
        self.jobs.append(jobs)
        self.tell()

    def begin(self, block: Block) -> None:
        """Take a block to the store, as `add`. Jobs can be added to it as long as it is `open`."""
        self.jobs.append(block)
        self.open, self.beside = block, None
        self.tell()

    def bring(self) -> bool:
        """Have everything brought that others hold back. Whether more may come at once."""
        return True in [bring() for bring in self.before]

    def close(self) -> None:
        """Let nothing be added any more to what is here."""
        self.open = self.beside = None

    def returned(self, id: int, run: int) -> None:
        """Record that a run returned None."""
        self._returned.setdefault(run, []).append(id)
        self.tell()

    def settle(self, settlement: Settlement) -> None:
        """Record what became of a run."""
        self._settlements.append(settlement)
        self.tell()

    @property
    def ended(self) -> int:
        """How many runs have ended."""
        return len(self._settlements) + sum(map(len, self._returned.values()))

    @property
    def has_settlements(self) -> bool:
        """Whether runs have ended that did more than return None."""
        return bool(self._settlements)

    def take_jobs(self, fits: Callable[[Sequence[Job]], bool]) -> list[Sequence[Job]]:
        """Take the next jobs as long as they fit."""
        self.close()
        taken = next((place for place, jobs in enumerate(self.jobs) if not fits(jobs)), len(self.jobs))
        taken_jobs, self.jobs = self.jobs[:taken], self.jobs[taken:]
        return taken_jobs

    def take_progress(self) -> list[Progress]:
        """Take how far runs are."""
        return [self.progress.pop(id) for id in list(self.progress)] if self.progress else []

    def take_ended(self, most: int, size: int) -> tuple[list[Settlement], Returned]:
        """Take the next of what ended: at most so many, with so many bytes of results and errors, but for one that is larger."""
        taken = 0
        for settlement in self._settlements[: max(0, most)]:
            size -= len(settlement.result or b"") + len(settlement.error)
            if size < 0 and taken:
                break
            taken += 1
        settlements, self._settlements = self._settlements[:taken], self._settlements[taken:]
        most -= taken
        returned: dict[int, list[int]] = {}
        for run, ids in self._returned.items():
            if ids and most > 0:
                returned[run] = ids[:most]
                del ids[:most]
                most -= len(returned[run])
        return settlements, returned
