"""What one process does with the file: it opens it, takes turns, and closes it. All of it in the writer's thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

import apsw

from cabrank.block import Leases, held, queue_of
from cabrank.clock import Clock
from cabrank.errors import StoreUnavailable, StoreUnusable
from cabrank.job import Lease
from cabrank.settings import Durability, Overflow
from cabrank.stores.contract import ID_BLOCK, Admission, Arrival, Submission, Terms, Turn, Verdict, Want
from cabrank.stores.sqlite import block_statements as block_sql
from cabrank.stores.sqlite import counts, kept, overflow, settle, ticks
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.admit import Admitter
from cabrank.stores.sqlite.at_once import AtOnce
from cabrank.stores.sqlite.bell import agreed_folder
from cabrank.stores.sqlite.blocks import Blocks, part_all
from cabrank.stores.sqlite.claim import Claimer, promote
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.holders import Holders, boot, does_any_live, made_folder
from cabrank.stores.sqlite.lines import Lines
from cabrank.stores.sqlite.locks import TurnLock
from cabrank.stores.sqlite.logsize import LogWatch
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.news import next_due_s, what_is_new
from cabrank.stores.sqlite.people import Change
from cabrank.stores.sqlite.pruning import prune
from cabrank.stores.sqlite.room import Space
from cabrank.stores.sqlite.schema import open_writer
from cabrank.stores.sqlite.settle import Ended
from cabrank.stores.sqlite.transactions import Transactions

T = TypeVar("T")

SYNCHRONOUS: Mapping[Durability, Literal["full", "normal"]] = {Durability.DISK: "full", Durability.PROCESS: "normal"}
PRUNE_S = 30.0  # how often what is kept is cut to its bounds; it looks at every receipt, so not at each sweep


class Ledger:
    """One holder of the file. A turn is one transaction under the turn lock; its number makes it repeatable."""

    def __init__(self, path: Path, clock: Clock, terms: Terms, rng: Random) -> None:
        self._path = path
        self._clock = clock
        self._rng = rng
        self._terms = terms
        self._folder = made_folder(path)
        self._lock = TurnLock(self._folder)
        self._space = Space(path, terms.settings.min_free, clock.monotonic)
        self._log = LogWatch(path, terms.settings.log_limit, terms.condition)
        self._last: tuple[int, Turn] | None = None
        self._unsure: tuple[int, Turn] | None = None
        self._sweep_at = 0.0
        self._prune_at = 0.0
        self._swept = False
        with self._lock.held_soon():
            self._connect()
            self._holders = Holders(self._connection, self._folder, terms, handlers=self._handlers, lines=self._lines, clock=clock)
            with self._holders.let_go_if_it_fails(), self._transactions.one():
                self._holders.register()
                self._given_up = self._holders.take_back(clock.now()).given_up  # told with the next turn
                prune(self._connection, self._lines, self._terms.settings, clock.now())
                self.bell_folder = agreed_folder(self._connection)
            self._holders.tidy()
        self.news = Arrival(work=False, cancelled=False, ended=())
        """What the last turn did that may concern other holders; the jobs that it ended are not in it, unless they may be any."""
        self.prefix = str(self._connection.execute(sql.PREFIX).get)

    @property
    def waits_for_another(self) -> bool:
        """Whether it stands behind another process's turn. Asked from other threads."""
        return self._lock.waiting

    def agree_on_folder(self) -> None:
        """Look again for the folder of the sockets by which processes wake each other."""
        with self._held(), self._transactions.one():
            self.bell_folder = agreed_folder(self._connection)

    def close(self) -> None:
        """Give back what is held and close the file."""
        try:
            with self._held(), self._transactions.one():
                self._holders.leave(self._clock.now())
        except StoreUnavailable:
            pass  # its leases come back when somebody finds the life lock free
        finally:
            self._holders.close()
            self._lock.close()
            self._connection.close()

    def rest(self) -> None:
        """Close the connection until something is to be done again, and stay a holder."""
        self._transactions.broken = True
        self._connection.close()

    def take_ids(self) -> int:
        """The first id of a block that nobody else gets."""
        with self._held(), self._transactions.one():
            first = self._connection.execute(sql.TAKE_IDS, (ID_BLOCK,)).get
            return int(str(first)) - ID_BLOCK

    def last_tick(self, schedule: str, spec: str) -> float:
        """See `Store.last_tick`."""
        with self._held(), self._transactions.one():
            return ticks.last(self._connection, schedule, spec, self._clock.now())

    def renew(self) -> None:
        """Hold the leases for longer. Called between turns; one that fails is made good by the next, or the next turn says why."""
        self._log.look()
        if not self._terms.condition.holds:
            self._holders.wake()
            self._holders.lapsed = True
            return
        with contextlib.suppress(StoreUnavailable, apsw.Error), self._held(), self._transactions.one():
            self._holders.wake()
            self._holders.renew()

    def turn(self, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want]) -> Turn:
        """See `Store.turn`."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        with self._held():
            done = self._done_after_all(number)
            turn = self._take(number, new, ended, want) if done is None else done
        self._last, self._unsure, self._given_up = (number, turn), None, []
        return turn

    def change(self, work: Callable[[Change], T]) -> T:
        """Do one of the things that people do with jobs."""
        with self._held(), self._transactions.one():
            return work(Change(self._connection, self._lines, self.prefix, self._clock.now()))

    def purge(self, ids: Collection[int]) -> int:
        """See `Inspector.purge`."""
        with self._held(), self._transactions.one():
            return settle.purge(self._connection, ids)

    def pause(self, queue: str, paused: bool) -> None:  # noqa: FBT001 -- what is written, not a choice of behaviour
        """Write whether a queue is paused."""
        with self._held(), self._transactions.one():
            self._connection.execute(sql.PAUSE, (int(paused), self._queues.number(queue)))

    # ------------------------------------------------------------------------------------------------------------- turn

    def _take(self, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want]) -> Turn:
        try:
            return self._try_all(number, new, ended, want)
        except StoreUnavailable as error:
            if not (new and isinstance(error.__cause__, apsw.FullError)):
                raise
        self._space.ran_out(self._connection)  # the new jobs are refused, so that what ended is recorded, if that finds space
        return self._try_all(number, new, ended, want)

    def _try_all(self, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want]) -> Turn:
        if (turn := self._try_at_once(number, new, ended, want)) is not None:
            return turn
        try:
            return self._try(number, new, ended, want, lost=())
        except settle.LeaseLost:
            self._blocks.forget()
            with self._transactions.one():
                part_all(self._connection, self._holders.id)
            standing, lost = settle.sort_out(self._connection, ended)
            return self._try(number, new, standing, want, lost=lost)

    def _try_at_once(self, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want]) -> Turn | None:
        """The turn, if it is one that is taken in one statement."""
        if self._given_up or self._holders.lapsed or self._clock.monotonic() >= self._sweep_at:
            return None
        self._blocks.begin(self._holders.id, number)
        plan = self._at_once.plan(number, new, ended, want, self._clock.now())
        if plan is None or (new and self._space.shortage(self._connection)):
            return None
        self._unsure, self._swept = (number, plan.turn), False
        with self._transactions.failing():
            if not self._at_once.carry_out(plan):
                return None
        self.news = Arrival(work=plan.came.wait > 0, cancelled=False, ended=())
        return plan.turn

    def _try(
        self,
        number: int,
        new: Sequence[Submission],
        ended: Ended,
        want: Mapping[str, Want],
        *,
        lost: Sequence[tuple[int, int]],
    ) -> Turn:
        with self._transactions.one() as transaction:
            turn = self._do(number, new, ended, want, lost)
            if new or ended or turn.claimed or self._swept or self._lines.changed:
                self._connection.execute(sql.TURN_DONE, (number, self._holders.id))
                self._unsure = (number, turn)
            else:
                transaction.idle = True
        return turn

    def _do(self, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want], lost: Sequence[tuple[int, int]]) -> Turn:
        connection, now = self._connection, self._clock.now()
        self._lines.begin()
        given_up = [*self._given_up, *self._sweep(now)]
        opening = counts.look(connection, self._holders.id, self._lines)
        opening.now = now
        if opening.turn is None:  # taken for dead meanwhile: its jobs are others' now
            self._holders.register()
            self._swept = True
        elif self._holders.lapsed:
            self._holders.renew()
            self._swept = True
        self._blocks.begin(self._holders.id, number)
        cancelled = settle.record(connection, ended, opening, self._keeping, self._blocks, now) if ended else []
        promote(connection, opening, self._lines, now)
        paused = [self._queues.name(number) for number, waiting in opening.queues.items() if waiting.paused]
        if paused:
            want = {queue: its for queue, its in want.items() if queue not in paused}
        if opening.lines is not None:
            for queue in opening.lines.look():
                opening.queue(queue).in_line = True
        admitted, leases = self._admit_and_claim(new, want, opening, now)
        spare = sum(its.jobs for its in want.values()) > held(leases)[0]
        self.news = Arrival() if self._swept else what_is_new(opening, self._queues, self._terms.settings, spare=spare)
        dropped = self._make_room(new, admitted, opening) if new else []
        counts.write(connection, opening)
        self._at_once.remember(opening, told=bool(ended.progress))
        return Turn(
            admitted=admitted,
            claimed=leases,
            dropped=dropped,
            lost=lost,
            cancels=[*cancelled, *self._cancels()] if opening.cancelling else (),
            next_due_s=next_due_s(opening, now, want),
            suspect=opening.suspect,
            paused=paused,
            given_up=given_up,
        )

    def _admit_and_claim(
        self, new: Sequence[Submission], want: Mapping[str, Want], opening: Opening, now: float
    ) -> tuple[Sequence[Admission], Sequence[Lease | Leases]]:
        """Take new jobs in, then lease ready ones; a suspect alone, if one is next."""
        suspect = self._is_suspect_next(want, opening)
        admitter = Admitter(
            self._connection,
            queues=self._queues,
            handlers=self._handlers,
            terms=self._terms,
            opening=opening,
            lines=self._lines,
            blocks=self._blocks,
            now=now,
            space=self._space.shortage(self._connection) if new else "",
        )
        admitted, started = admitter.admit(new, {} if suspect else want) if new else ([], [])
        leases = self._claim_suspect(want, opening) if suspect else []
        return admitted, leases or [*started, *self._claim(want, started, opening)]

    def _make_room(self, new: Sequence[Submission], admitted: Sequence[Admission], opening: Opening) -> Sequence[int]:
        """Drop what is above the bounds of queues whose policy that is."""
        if self._terms.settings.overflow is Overflow.WAIT:
            return ()
        stored = [submission for submission, admission in zip(new, admitted, strict=True) if admission.verdict is Verdict.STORED]
        return overflow.make_room(self._connection, self._queues, stored, opening, self._terms.settings)

    def _is_suspect_next(self, want: Mapping[str, Want], opening: Opening) -> bool:
        """Whether a suspect is next in one of the queues, and nothing runs here: then no new job starts with this turn."""
        return any(its.alone and self._claimer.is_suspect_next(self._queues.number(queue), opening) for queue, its in want.items())

    def _claim_suspect(self, want: Mapping[str, Want], opening: Opening) -> list[Lease]:
        for queue in (queue for queue, its in want.items() if its.alone):
            if leases := self._claimer.claim_suspect(queue, self._queues.number(queue), opening, self._holders.id):
                return leases
        return []

    def _claim(self, want: Mapping[str, Want], started: Sequence[Lease | Leases], opening: Opening) -> list[Lease]:
        leases: list[Lease] = []
        for queue, its in want.items():
            number = self._queues.number(queue)
            taken = held(lease for lease in started if queue_of(lease) == queue)
            waiting = opening.queue(number)
            if taken[0] < its.jobs and (waiting.ready or waiting.in_line):
                leases += self._claimer.claim(queue, number, its, opening, self._holders.id, taken)
        return leases

    def _cancels(self) -> list[tuple[int, int]]:
        return list(self._connection.execute(sql.CANCELS, (self._holders.id,)))

    def _sweep(self, now: float) -> Sequence[Lease]:
        """Look for holders that are gone, if it is time for that: the last runs of jobs that were given up."""
        self._swept = False
        if self._clock.monotonic() < self._sweep_at:
            return ()
        self._sweep_at = self._clock.monotonic() + self._terms.settings.sweep_s
        gone = self._holders.take_back(now)
        self._swept = gone.holders > 0
        if self._clock.monotonic() >= self._prune_at:
            self._lines.refresh()
            self._prune_at = self._clock.monotonic() + PRUNE_S
            self._swept = prune(self._connection, self._lines, self._terms.settings, now) > 0 or self._swept
        return gone.given_up

    # ------------------------------------------------------------------------------------------------------- connection

    def _connect(self) -> None:
        synchronous = SYNCHRONOUS[self._terms.settings.durability]
        self._connection = open_writer(self._path, synchronous=synchronous, rng=self._rng, is_shared=lambda: does_any_live(self._folder))
        self._handlers, self._queues = Names(self._connection, "handler"), Names(self._connection, "queue")
        self._lines = Lines(
            self._connection, queues=self._queues, handlers=self._handlers, terms=self._terms, monotonic=self._clock.monotonic
        )
        self._blocks = Blocks(self._connection)
        self._transactions = Transactions(self._path, self._connection, (self._queues, self._handlers, self._blocks))
        with self._transactions.one():
            self._lines.declare(boot())
            own = {self._handlers.number(name): keep_s for name, keep_s in self._terms.keep_done_s.items()}
            self._keeping = kept.Keeping(own, self._terms.settings.keep_done_s)
            self._claimer = Claimer(self._connection, handlers=self._handlers, terms=self._terms, lines=self._lines)
        self._at_once = AtOnce(
            self._connection,
            queues=self._queues,
            handlers=self._handlers,
            blocks=self._blocks,
            terms=self._terms,
            keeping=self._keeping,
        )
        self._transactions.broken = False

    @contextlib.contextmanager
    def _held(self) -> Generator[None, None, None]:
        """Hold the turn lock, over a connection that can be trusted."""
        with self._lock.held():
            if self._transactions.broken:
                self._reconnect()
            yield

    def _reconnect(self) -> None:
        """After a failed write nothing in memory is trusted: the file is opened again, and SQLite recovers it."""
        with contextlib.suppress(apsw.Error):
            self._connection.close()
        try:
            self._connect()
        except (apsw.Error, StoreUnusable) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        self._holders.use(self._connection, self._handlers, self._lines)

    def _done_after_all(self, number: int) -> Turn | None:
        """The answer of a turn whose commit seemed to fail, if it is in the file."""
        if self._unsure is None or self._unsure[0] != number:
            return None
        recorded = self._connection.execute(block_sql.LAST_TURN, (self._holders.id,)).get
        return self._unsure[1] if recorded == number else None
