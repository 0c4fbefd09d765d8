"""Power cuts at random moments of a store that takes jobs on and settles them: what each left of what was acknowledged."""

from __future__ import annotations

import shutil
from array import array
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec

from cabrank.clock import SystemClock
from cabrank.job import Job, Settlement
from cabrank.settings import Durability, Settings
from cabrank.states import Cause
from cabrank.stores.contract import Submission, Terms, Want
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.settle import Ended
from tests.faults.power import PowerDisk, power_disk

CHECKPOINT_PAGES = 60  # so that many of the cuts fall into checkpoints
WANT = {"line": Want(jobs=10, bytes=1 << 20, idle=10)}
TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})


class Cuts(msgspec.Struct, kw_only=True):
    """What came of them. `lost` counts, over all cuts, acknowledged jobs that were not there; `undone` settlements that were not."""

    cuts: int = 0
    acked: int = 0
    lost: int = 0
    undone: int = 0
    damaged: int = 0


class Life:
    """One store on a disk that is cut off now and then."""

    def __init__(self, folder: Path, durability: Durability, rng: Random, every: int) -> None:
        self.figures = Cuts()
        self._folder = folder
        self._rng = rng
        self._every = every
        self._next = rng.randrange(every)
        self._admitted: set[int] = set()
        self._settled: set[int] = set()
        self._durability = durability

    def run(self, turns: int) -> Cuts:
        """Take so many turns."""
        with power_disk() as disk:
            settings = Settings(durability=self._durability)
            ledger = Ledger(self._folder / "jobs.db", SystemClock(), msgspec.structs.replace(TERMS, settings=settings), Random(1))
            ledger._connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
            disk.on_change = lambda: self._perhaps_cut(disk)
            first = 1
            running: list[tuple[int, int]] = []
            for number in range(1, turns + 1):
                ids = range(first, first := first + self._rng.randint(1, 8))
                ending = [running.pop(self._rng.randrange(len(running))) for _ in range(len(running) // 2)]
                turn = ledger.turn(number, [_submission(ids)], Ended([Settlement(*one, Cause.RETURNED) for one in ending], {}), WANT)
                running += [(lease.job.id, lease.run) for lease in turn.leases]
                self._admitted.update(ids)
                self._settled.update(id for id, _ in ending)
            disk.on_change = lambda: None
            ledger.close()
        return self.figures

    def _perhaps_cut(self, disk: PowerDisk) -> None:
        self._next -= 1
        if self._next > 0:
            return
        self._next = self._rng.randrange(1, self._every)
        left = self._folder / f"cut-{self.figures.cuts}"
        left.mkdir()
        disk.cut(left, self._rng)
        self.figures.cuts += 1
        self.figures.acked += len(self._admitted)
        self._look(left / "jobs.db")
        shutil.rmtree(left)

    def _look(self, path: Path) -> None:
        """Open what is left as the next process would, on a disk that works."""
        figures = self.figures
        connection = apsw.Connection(str(path), vfs="unix")
        try:
            whole = connection.execute("pragma integrity_check").get == "ok"
        except apsw.CorruptError:
            whole = False
        if not whole:
            figures.damaged += 1
            return
        tables = connection.execute("select count(*) from sqlite_schema where name = 'job'").get
        rows: list[Any] = connection.execute("select id from job").fetchall() if tables else []
        packed: list[Any] = connection.execute("select ids from done").fetchall() if tables else []
        waiting, done = {id for (id,) in rows}, {id for (ids,) in packed for id in array("q", ids)}
        in_blocks = (("select first, jobs from block", waiting), ("select first, jobs from done_block", done))
        for statement, ids in in_blocks if tables else ():
            spans: list[Any] = connection.execute(statement).fetchall()
            ids.update(id for first, jobs in spans for id in range(first, first + jobs))
        figures.lost += len(self._admitted - waiting - done)
        figures.undone += len(self._settled & waiting)
        connection.close()


def _submission(ids: range) -> Submission:
    return Submission(jobs=[Job(id=id, handler="work", queue="line", payload=b'"' + b"x" * (id % 3000) + b'"') for id in ids])
