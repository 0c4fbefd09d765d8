"""Who holds leases: one row and one locked file for each process that has the store open. Its leases live as long as it does."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from cabrank.clock import Clock
from cabrank.errors import StoreUnavailable, StoreUnusable
from cabrank.job import Job, Lease
from cabrank.stores.contract import Terms
from cabrank.stores.sqlite import past
from cabrank.stores.sqlite import past_statements as past_sql
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.blocks import part_all
from cabrank.stores.sqlite.lines import Lines
from cabrank.stores.sqlite.locks import FileLock, is_held
from cabrank.stores.sqlite.names import Names

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STOOD_STILL = 1.5  # times `renew_s` between two moments at which it had its turn: a lease of `3 * renew_s` lasts 2 beyond the last renewal


def boot() -> str:
    """What tells this run of the machine from others: a lease of an earlier one is void. Empty where the system has no such thing."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def folder_of(path: Path) -> Path:
    """Where the locks of a file are."""
    return path.with_name(path.name + "-locks")


def made_folder(path: Path) -> Path:
    """The same, made if it is not there.

    Raises:
        StoreUnusable: it cannot be made.
    """
    folder = folder_of(path)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreUnusable(f"{folder}: the folder for locks cannot be made ({error.strerror}): may this user write there?") from error
    return folder


def does_any_live(folder: Path) -> bool:
    """Whether a process has the file open."""
    return any(is_held(path) for path in folder.glob("life-*"))


def run_by_living(folder: Path) -> frozenset[str]:
    """The handlers of all processes that live, as their life locks say."""
    living = [path for path in folder.glob("life-*") if is_held(path)]
    return frozenset(handler for path in living for handler in _written(path))


def _written(path: Path) -> Collection[str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError):  # it has ended just now, or has locked its file and not written yet
        return ()


class Gone(NamedTuple):
    """Holders that were found dead or silent: how many, and the last runs of those of their jobs that are dead now."""

    holders: int
    given_up: list[Lease]


class Holders:
    """This process's own row, and the look at those of others. All methods run inside a transaction of the writer."""

    def __init__(
        self,
        connection: apsw.Connection,
        folder: Path,
        terms: Terms,
        *,
        handlers: Names,
        lines: Lines,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._terms = terms
        self._handlers = handlers
        self._lines = lines
        self._monotonic = clock.monotonic
        self._boot = boot()
        self._awake_at = clock.monotonic()
        self._lenient_until = self._awake_at + terms.settings.lease_s  # whether all stood still before it came, it cannot know
        self.lapsed = False
        """Whether the lease was left to run out: it is taken up again with the next turn."""
        self._life: FileLock | None = None
        self.id = 0

    def use(self, connection: apsw.Connection, handlers: Names, lines: Lines) -> None:
        """Go on with another connection to the same file."""
        self._connection, self._handlers, self._lines = connection, handlers, lines

    def register(self) -> None:
        """Become a holder with a new number, which was never used before."""
        self._connection.execute(sql.REGISTER, (self._boot, self._expiry()))
        self.id = self._connection.last_insert_rowid()
        if self._life is not None:
            self._life.close()
        self._life = FileLock(self._path(self.id))
        self._life.take_if_free()
        self._life.write(msgspec.json.encode(sorted(self._terms.here)))  # for `Inspector.handlers`: it goes with the process

    @contextlib.contextmanager
    def let_go_if_it_fails(self) -> Generator[None, None, None]:
        """Whatever fails within, the number is free again with its lock: the next to register may be given the same one."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def renew(self) -> None:
        """Hold the leases for another `lease_s`."""
        self._connection.execute(sql.RENEW, (self._expiry(), self.id))
        self.lapsed = False

    def wake(self) -> float:
        """Notice it if this process stood still: others may have stood still with it, and get the time to renew their leases.

        So a machine that was suspended, or a container that was frozen, goes on where it was, instead of all taking from all. So do
        those who waited for a process that was stopped in its turn: this is called with the turn lock held, so that the wait counts.
        The moment from which on it knows that it is awake.
        """
        now = self._monotonic()
        if now - self._awake_at > STOOD_STILL * self._terms.settings.renew_s:
            self._lenient_until = now + self._terms.settings.lease_s
        self._awake_at = now
        return now

    def leave(self, now: float) -> None:
        """Give back what is still held, without a crash, and be no holder any more."""
        part_all(self._connection, self.id)
        self._lines.give_back(self.id)
        self._end_cancelled(self.id, crashed=0)
        self._put_back(self.id, now, crashed=0)
        self._connection.execute(past_sql.FORGET_OLD_PROGRESS)
        self._connection.execute(sql.LEAVE, (self.id,))

    def close(self) -> None:
        """Let the life lock go and remove its file."""
        if self._life is not None:
            self._life.path.unlink(missing_ok=True)
            self._life.close()
            self._life = None

    def take_back(self, now: float) -> Gone:
        """Make the jobs of holders that are dead or silent ready again, one crash more behind them."""
        awake_at = self.wake()
        others: list[Any] = self._connection.execute(sql.OTHERS, (self.id,)).fetchall()
        gone = [holder for holder, booted, expires_at in others if self._is_gone(holder, booted, expires_at, awake_at)]
        given_up: list[Lease] = []
        for holder in gone:
            part_all(self._connection, holder)
            self._lines.give_back(holder)
            past.crash(self._connection, holder, now)
            self._end_cancelled(holder, crashed=1)
            given_up += self._give_up_crashing(holder, now)
            self._put_back(holder, now, crashed=1)
            self._connection.execute(sql.LEAVE, (holder,))
        if gone:
            self._connection.execute(past_sql.FORGET_OLD_PROGRESS)
        return Gone(len(gone), given_up)

    def _is_gone(self, holder: int, booted: str, expires_at: float, awake_at: float) -> bool:
        """Judged by the moment at which it was known to be awake: this process may be stopped before this line, with the turn in hand."""
        if booted != self._boot or expires_at <= awake_at >= self._lenient_until:
            return True
        path = self._path(holder)
        try:
            return not path.exists() or not is_held(path)
        except StoreUnavailable:  # no file can be opened now: a later look tells
            return False

    def tidy(self) -> None:
        """Remove the files of holders that are no more."""
        known = {str(id) for (id,) in self._connection.execute(sql.HOLDERS)}
        for path in self._folder.glob("life-*"):
            if path.name.removeprefix("life-") not in known:
                path.unlink(missing_ok=True)

    def _end_cancelled(self, holder: int, *, crashed: int) -> None:
        """Jobs that somebody cancelled while they ran do not wait again."""
        self._connection.execute(sql.END_CANCELLED, (crashed, holder))
        self._connection.execute(sql.FORGET_ENDED_CANCELLING)

    def _give_up_crashing(self, holder: int, now: float) -> list[Lease]:
        """Jobs whose processes died too often are dead. Their last runs."""
        which, why, what = sql.crashed_out(self._limit())
        rows: list[Any] = self._connection.execute(which, (holder,)).fetchall()
        self._connection.execute(why, (holder, now))
        self._connection.execute(what, (holder,))
        return [
            Lease(Job(id, handler, queue, payload, None, None, priority, due_at, deadline_at), run, failures, crashes)
            for id, handler, queue, payload, priority, due_at, deadline_at, run, failures, crashes in rows
        ]

    def _limit(self) -> str:
        """The crashes that a job may have, as SQL."""
        own = "".join(f" when {self._handlers.number(name):d} then {limit:d}" for name, limit in self._terms.max_crashes.items())
        general = f"{self._terms.settings.max_crashes:d}"
        return f"case handler{own} else {general} end" if own else general

    def _put_back(self, holder: int, now: float, *, crashed: int) -> None:
        self._connection.execute(sql.COUNT_BACK, (holder,))
        self._connection.execute(sql.GIVE_BACK, (now, crashed, holder))

    def _expiry(self) -> float:
        return self._monotonic() + self._terms.settings.lease_s

    def _path(self, holder: int) -> Path:
        return self._folder / f"life-{holder}"
