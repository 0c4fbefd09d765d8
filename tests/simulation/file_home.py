"""Jobs in a SQLite file, a real one: each process has a store of its own on it, all of them in one thread and in virtual time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import apsw

from cabrank.settings import Settings
from cabrank.stores.contract import Terms
from cabrank.stores.sqlite import SqliteStore, care
from cabrank.stores.sqlite.holders import folder_of
from cabrank.stores.sqlite.inspector import Reader
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.locks import is_held
from cabrank.stores.sqlite.schema import STATE_OF, Phase
from cabrank.testing import DoerInLoop
from tests.simulation.bells import Exchange
from tests.simulation.clock import VirtualClock
from tests.simulation.home import Row, Shown
from tests.simulation.loop import SimulatedLoop

IN_MEMORY = Path("/dev/shm")  # noqa: S108 -- where a sync costs nothing, if there is such a place
NOBODY = Terms(handlers=frozenset(), settings=Settings(min_free=0), max_crashes={})  # of somebody at a shell

ROWS = """
select job.id, phase, run, failures, crashes, coalesce(holder, 0), queue.name, payload, allowance.key
from job join queue on queue.id = job.queue left join allowance on allowance.id = job.allowance
"""
IN_BLOCKS = """
select first + key as id, 1, 1, 0, 0, holder, queue.name,
       substr(payloads, 1 + coalesce((select sum(value) from json_each(sizes) as before where before.key < its.key), 0), value), null
from block join queue on queue.id = block.queue join json_each(sizes) as its
"""
HELD = """
select id from job where phase = 1 and holder = ?1 union all select first + key from block, json_each(sizes) where holder = ?1 order by 1
"""
RUNS = int(Phase.RUNNING)
ASTRAY = f"""
select 'job ' || id || ' runs, and its holder ' || coalesce(holder, 'nobody') || ' is not there' from job
where phase = {RUNS} and (holder is null or holder not in (select id from holder))
union all
select 'job ' || id || ' does not run, and ' || holder || ' holds it' from job
where phase <> {RUNS} and holder is not null and holder in (select id from holder)
union all select 'a failure of job ' || job || ', which is not there' from failure where job not in (select id from job)
union all
select 'job ' || first || ' is in a block, and its holder ' || holder || ' is not there' from block
where holder not in (select id from holder)
union all
select 'job ' || job.id || ' is in a block too' from block join job on job.id >= first and job.id < first + jobs
"""  # noqa: S608 -- a number of ours


class FileHome:
    """See `Home`."""

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.clock = VirtualClock(loop)
        self.watchers: list[Callable[[Shown], None]] = []
        self._made = tempfile.TemporaryDirectory(prefix="simulated-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
        self.folder = self._made.name + "/"
        self.path = Path(self._made.name) / "jobs.db"
        self.rng = Random(f"{seed} file")
        self.exchange = Exchange(loop, Random(f"{seed} bells"))
        self._reader: Reader | None = None

    # ------------------------------------------------------------------------------------------------------------- looks

    def changed(self) -> None:
        """Show the watchers everything, if somebody has committed."""
        if self._reader is None:
            if not self._is_made():
                return
            self._reader = Reader(self.path)
        if self._reader.anything_new():
            self.look()

    @property
    def prefix(self) -> str:
        [(prefix,)] = self._ask("select value from meta where name = 'prefix'")
        return str(prefix)

    def look(self) -> None:
        if self._reader is None:
            return
        tally = self._reader.tally()
        shown = Shown(
            rows={id: Row(STATE_OF[Phase(phase)], *how) for id, phase, *how in self._ask(f"{ROWS} union all {IN_BLOCKS}")},
            cancelling={id for (id,) in self._ask("select id from cancelling")},
            paused={queue for queue, counted in tally.items() if counted.paused},
            tally=tally,
            limits=(),
            astray=[what for (what,) in self._ask(ASTRAY)],
        )
        for watcher in self.watchers:
            watcher(shown)

    def running(self, id: int) -> Row | None:
        one = f"{ROWS} where job.id = ?1 and phase = 1 union all {IN_BLOCKS} where first + key = ?1"
        found = [Row(STATE_OF[Phase(phase)], *how) for _, phase, *how in self._ask(one, id)]
        return found[0] if found else None

    def knows(self, id: int) -> bool:
        return bool(self._ask("select 1 from job where id = ?1 union all select 1 from block where first <= ?1 and ?1 < first + jobs", id))

    def done(self, id: int) -> int | None:
        record = None if self._reader is None else self._reader.find([id]).get(id)
        return None if record is None or self.knows(id) else record.run

    def held_by(self, holder: int) -> Sequence[int] | None:
        if not self._ask("select 1 from holder where id = ?", holder):
            return None
        return [id for (id,) in self._ask(HELD, holder)]

    def faults(self) -> Sequence[str]:
        left = [path.name for path in folder_of(self.path).glob("life-*") if is_held(path)]
        holders = [f"holder {id} is left" for (id,) in self._ask("select id from holder")]
        return [*care.check(self.path).faults, *(f"{name} is held" for name in left), *holders]

    def _ask(self, statement: str, *values: int) -> list[Any]:
        return [] if self._reader is None else self._reader._connection.execute(statement, values).fetchall()

    def _is_made(self) -> bool:
        """Whether the file has its tables."""
        if not self.path.exists():
            return False
        with apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY) as connection, suppress(apsw.Error):
            return bool(connection.execute("pragma user_version").get)
        return False

    # --------------------------------------------------------------------------------------------------------------- ways

    def connect(self, before_close: Callable[[], None]) -> FileConnection:
        return FileConnection(self, before_close)

    async def cancel(self, id: int) -> bool:
        store = self.connect(lambda: None)
        await store.open(NOBODY)
        try:
            return await store.cancel(id)
        finally:
            await store.close()

    async def reopen(self, id: int) -> bool:
        store = self.connect(lambda: None)
        await store.open(NOBODY)
        try:
            return await store.reopen(id)
        finally:
            await store.close()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._made.cleanup()


class FileConnection(SqliteStore):
    """The store of one process."""

    expire: Callable[[float], None] | None = None

    def __init__(self, home: FileHome, before_close: Callable[[], None]) -> None:
        super().__init__(home.path, home.clock, Random(home.rng.random()), doers=_Doers(home), bells=home.exchange.hang)
        self._before_close = before_close
        self._own: tuple[Ledger, Reader] | None = None

    @property
    def holder(self) -> int:
        """The number that it has now: another one after it was taken for dead."""
        return 0 if self._own is None else self._own[0]._holders.id

    async def open(self, terms: Terms) -> None:
        await super().open(terms)
        assert self._ledger is not None
        assert self._reader is not None
        self._own = self._ledger, self._reader

    async def close(self) -> None:
        self._before_close()
        await super().close()

    def kill(self) -> None:
        """Close its files, and with them its locks, as the kernel does."""
        if self._own is None:
            return
        ledger, reader = self._own
        for connection in (ledger._connection, reader._connection):
            with suppress(apsw.ConnectionClosedError):
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.close(True)
        if ledger._holders._life is not None:
            ledger._holders._life.close()
        ledger._lock.close()


class _Doers:
    def __init__(self, home: FileHome) -> None:
        self._home = home

    def __call__(self, name: str, *, between: Callable[[], None], every_s: float, now: Callable[[], float]) -> _Doer:
        return _Doer(self._home, between=between, every_s=every_s)


class _Doer(DoerInLoop):
    """After whatever it does the watchers look."""

    def __init__(self, home: FileHome, *, between: Callable[[], None], every_s: float) -> None:
        super().__init__(home.clock, between=between, every_s=every_s)
        self._home = home

    def do_next(self) -> None:
        super().do_next()
        self._home.changed()

    def come_between(self) -> None:
        super().come_between()
        self._home.changed()
