"""What one process does with the file: it opens it, takes turns, and closes it. All of it in the writer's thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from cabrank.clock import Clock
from cabrank.errors import StoreUnavailable
from cabrank.job import Lease, Settlement
from cabrank.stores.contract import ID_BLOCK, Submission, Terms, Turn, Want
from cabrank.stores.sqlite import counts, kept, settle
from cabrank.stores.sqlite.admit import Admitter
from cabrank.stores.sqlite.claim import Claimer, promote
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.holders import Holders
from cabrank.stores.sqlite.locks import TurnLock
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.schema import Phase, open_writer

FOREIGN = (apsw.BusyError, apsw.LockedError, apsw.FullError, apsw.IOError, apsw.NoMemError, apsw.ReadOnlyError, apsw.ProtocolError)


class Ledger:
    """One holder of the file. A turn is one transaction under the turn lock; its number makes it repeatable."""

    def __init__(self, path: Path, clock: Clock, terms: Terms) -> None:
        self._path = path
        self._clock = clock
        self._terms = terms
        folder = path.with_name(path.name + "-locks")
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._lock = TurnLock(folder)
        self._last: tuple[int, Turn] | None = None
        self._unsure: tuple[int, Turn] | None = None
        self._broken = False
        self._sweep_at = 0.0
        self._swept = False
        with self._lock.held():
            self._connect()
            self._holders = Holders(self._connection, folder, terms, self._handlers)
            with self._transaction():
                self._holders.register()
                self._holders.take_back(clock.now())
                self._prune()
            self._holders.tidy()
        self.prefix = str(self._connection.execute("select value from meta where name = 'prefix'").get)

    def close(self) -> None:
        """Give back what is held and close the file."""
        try:
            with self._lock.held(), self._transaction():
                self._holders.leave(self._clock.now())
        except StoreUnavailable:
            pass  # its leases come back when somebody finds the life lock free
        finally:
            self._holders.close()
            self._lock.close()
            self._connection.close()

    def take_ids(self) -> int:
        """The first id of a block that nobody else gets."""
        with self._lock.held(), self._transaction():
            first = self._connection.execute("update meta set value = value + ? where name = 'next_id' returning value", (ID_BLOCK,)).get
            return int(str(first)) - ID_BLOCK

    def renew(self) -> None:
        """Hold the leases for longer. Called between turns; one that fails is made good by the next."""
        with contextlib.suppress(StoreUnavailable), self._lock.held(), self._transaction():
            self._holders.renew()

    def turn(self, number: int, new: Sequence[Submission], settlements: Sequence[Settlement], want: Mapping[str, Want]) -> Turn:
        """See `Store.turn`."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        with self._lock.held():
            if self._broken:
                self._reconnect()
            done = self._done_after_all(number)
            turn = self._take(number, new, settlements, want) if done is None else done
        self._last, self._unsure = (number, turn), None
        return turn

    def change(self, work: str, id: int) -> int:
        """Do one of the things that people do with a job; how many rows changed."""
        statements = {"cancel": self._cancel, "reopen": self._reopen}
        with self._lock.held(), self._transaction():
            return statements[work](id)

    # ------------------------------------------------------------------------------------------------------------- turn

    def _take(self, number: int, new: Sequence[Submission], settlements: Sequence[Settlement], want: Mapping[str, Want]) -> Turn:
        lost: frozenset[tuple[int, int]] = frozenset()
        while True:
            try:
                with self._transaction() as transaction:
                    turn = self._do(new, [s for s in settlements if (s.id, s.run) not in lost] if lost else settlements, want)
                    turn = msgspec.structs.replace(turn, lost=tuple(lost)) if lost else turn
                    if not (new or settlements or turn.leases or self._swept):
                        transaction.idle = True
                        return turn
                    self._connection.execute("update holder set turn = ? where id = ?", (number, self._holders.id))
                    self._unsure = (number, turn)
                return turn
            except settle.LeaseLost:
                lost = settle.lost(self._connection, settlements)

    def _do(self, new: Sequence[Submission], settlements: Sequence[Settlement], want: Mapping[str, Want]) -> Turn:
        connection, now = self._connection, self._clock.now()
        self._sweep(now)
        opening = counts.look(connection, self._holders.id)
        if opening.turn is None:  # taken for dead meanwhile: its jobs are others' now
            self._holders.register()
        if settlements:
            settle.record(connection, settlements, opening, now)
        promote(connection, opening, now)
        admitter = Admitter(
            connection,
            queues=self._queues,
            handlers=self._handlers,
            settings=self._terms.settings,
            opening=opening,
            holder=self._holders.id,
            now=now,
        )
        admitted, leases = admitter.admit(new, want) if new else ([], [])
        leases = leases + self._claim(want, leases, opening)
        counts.write(connection, opening)
        return Turn(
            admitted=admitted,
            leases=leases,
            cancels=self._cancels() if opening.cancelling else (),
            next_due_s=None if opening.later_at is None else max(0.0, opening.later_at - now),
        )

    def _claim(self, want: Mapping[str, Want], started: Sequence[Lease], opening: Opening) -> list[Lease]:
        leases: list[Lease] = []
        for queue, its in want.items():
            number = self._queues.number(queue)
            taken = sum(lease.job.queue == queue for lease in started) if started else 0
            if taken < its.jobs and opening.queue(number).ready:
                left = Want(its.jobs - taken, its.bytes, max(0, its.idle - taken))
                leases += self._claimer.claim(queue, number, left, opening, self._holders.id)
        return leases

    def _cancels(self) -> list[tuple[int, int]]:
        rows: list[Any] = self._connection.execute(
            f"select id, run from cancelling natural join job where phase = {Phase.RUNNING:d} and holder = ?", (self._holders.id,)
        ).fetchall()
        return rows

    def _sweep(self, now: float) -> None:
        self._swept = False
        if self._clock.monotonic() >= self._sweep_at:
            self._sweep_at = self._clock.monotonic() + self._terms.settings.sweep_s
            self._swept = self._holders.take_back(now) > 0 or self._prune() > 0

    def _prune(self) -> int:
        now, settings, before = self._clock.now(), self._terms.settings, self._connection.total_changes()
        kept.prune(self._connection, settings, now)
        self._connection.execute("delete from receipt where until < ?", (now,))
        self._connection.execute(
            "delete from receipt where key in (select key from receipt order by until desc limit -1 offset ?)", (settings.receipts,)
        )
        old = f"select note.id from note join job using (id) where phase in ({Phase.DEAD:d}, {Phase.CANCELLED:d}, {Phase.EXPIRED:d}) and at < ?"
        for table in ("job", "note"):
            self._connection.execute(f"delete from {table} where id in ({old})", (now - settings.keep_dead_s,))
        return self._connection.total_changes() - before

    # ----------------------------------------------------------------------------------------------------------- people

    def _cancel(self, id: int) -> int:
        now = self._clock.now()
        self._uncount(id)
        waiting = f"id = ? and phase in ({Phase.READY:d}, {Phase.LATER:d}, {Phase.HELD:d})"
        self._connection.execute(f"update job set phase = {Phase.CANCELLED:d} where {waiting}", (id,))
        changed = self._connection.changes()
        if changed:
            self._connection.execute("insert or replace into note values (?, ?, '', '')", (id, now))
            return changed
        self._connection.execute(f"insert or ignore into cancelling select id from job where id = ? and phase = {Phase.RUNNING:d}", (id,))
        return int(bool(self._connection.execute(f"select count(*) from job where id = ? and phase = {Phase.RUNNING:d}", (id,)).get))

    def _uncount(self, id: int) -> None:
        self._connection.execute(
            "update queue set waiting = waiting - 1, waiting_bytes = waiting_bytes - length(job.payload) from job "
            f"where job.id = ? and job.queue = queue.id and job.phase in ({Phase.READY:d}, {Phase.LATER:d})",
            (id,),
        )

    def _reopen(self, id: int) -> int:
        shelved = f"id = ?1 and phase >= {Phase.DEAD:d}"
        self._connection.execute(
            "update queue set waiting = waiting + 1, waiting_bytes = waiting_bytes + length(job.payload) from job "
            f"where job.{shelved.replace(' and phase', ' and job.phase')} and job.queue = queue.id",
            (id,),
        )
        self._connection.execute(
            f"update job set phase = {Phase.READY:d}, due_at = ?2, failures = 0, crashes = 0 where {shelved}", (id, self._clock.now())
        )
        changed = self._connection.changes()
        self._connection.execute("delete from note where id = ?", (id,))
        return changed

    # ------------------------------------------------------------------------------------------------------- connection

    def _connect(self) -> None:
        self._connection = open_writer(self._path, synchronous="full")
        self._handlers = Names(self._connection, "handler")
        self._queues = Names(self._connection, "queue")
        with self._transaction():
            self._claimer = Claimer(self._connection, handlers=self._handlers, known=sorted(self._terms.handlers))

    def _reconnect(self) -> None:
        """After a failed write nothing in memory is trusted: the file is opened again, and SQLite recovers it."""
        with contextlib.suppress(apsw.Error):
            self._connection.close()
        try:
            self._connect()
        except apsw.Error as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        self._holders.use(self._connection, self._handlers)
        self._broken = False

    def _done_after_all(self, number: int) -> Turn | None:
        """The answer of a turn whose commit seemed to fail, if it is in the file."""
        if self._unsure is None or self._unsure[0] != number:
            return None
        recorded = self._connection.execute("select turn from holder where id = ?", (self._holders.id,)).get
        return self._unsure[1] if recorded == number else None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[_Transaction]:
        transaction = _Transaction()
        try:
            self._connection.execute("begin immediate")
            try:
                yield transaction
                self._connection.execute("rollback" if transaction.idle else "commit")
            except BaseException:
                self._queues.forget()
                self._handlers.forget()
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
        except FOREIGN as error:
            self._broken = isinstance(error, apsw.IOError)
            raise StoreUnavailable(f"{self._path}: {error}") from error


class _Transaction:
    idle = False
    """Set when there is nothing to write: then nothing is synced either."""
