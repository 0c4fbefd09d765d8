"""The invariants that are checked after every change of what the store shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from cabrank.states import UNFINISHED, State
from tests.simulation.floor import QUEUE
from tests.simulation.home import Home, Row, Shown
from tests.simulation.plan import Order
from tests.simulation.record import Record


class Seen(NamedTuple):
    """What the ledger said about one job."""

    state: State
    run: int
    failures: int
    crashes: int
    holder: int


class Watch:
    """Compares what a store shows with what it showed one change before, and its counters with its rows."""

    def __init__(self, ledger: Home, record: Record, *, bound: int) -> None:
        self.tokens: dict[str, int] = {}
        self.done: dict[int, int] = {}
        """The run that made each finished job done."""
        self._record = record
        self._bound = bound
        self.queues: dict[int, str] = {}
        """The queue of each job that there ever was."""
        self._seen: dict[int, Seen] = {}
        self._cancelling: set[int] = set()
        self._paused: Collection[str] = ()
        self._rows: Mapping[int, Row] = {}
        ledger.watchers.append(self.step)

    def step(self, shown: Shown) -> None:
        """Look at every row. Called when something has changed."""
        rows = self._rows = shown.rows
        self._paused = shown.paused
        before, now = self._seen, {id: Seen(*row[:5]) for id, row in rows.items()}
        self._seen = now
        admitted: set[str] = set()
        for id, seen in now.items():
            if id not in before:
                admitted.add(self._admitted(id, seen))
            elif seen != before[id]:
                self._changed(id, before[id], seen)
        for id in before.keys() - now.keys():
            self._finished(id, before[id])
        self._recount(admitted, shown)
        self._cancelling = set(shown.cancelling)

    def _admitted(self, id: int, seen: Seen) -> str:
        row = self._rows[id]
        self.queues[id] = row.queue
        token = msgspec.json.decode(row.payload, type=Order).token
        self._record.note(f"ledger: job {id} ({token}) is new and {seen.state}")
        if id in self.done:
            self._record.violated("I2", f"job {id} was done and is {seen.state} again")
        elif self.tokens.setdefault(token, id) != id:
            self._record.violated("I12", f"{token} is stored twice, as job {self.tokens[token]} and as job {id}")
        return row.queue

    def _changed(self, id: int, old: Seen, new: Seen) -> None:
        record = self._record
        record.note(f"ledger: job {id} {old} -> {new}")
        if old.state not in UNFINISHED and id not in record.reopened:
            record.violated("I2", f"job {id} was {old.state} and is {new.state}")
        if new.run < old.run or (new.run == old.run and new.holder not in {0, old.holder}):
            record.violated("I4", f"job {id} went from {old} to {new}")
        if new.state is State.RUNNING and new.run > old.run and self.queues[id] in self._paused:
            record.violated("I25", f"job {id} was claimed when {self.queues[id]!r} was paused")
        if id in record.reopened:
            return
        if id in self._cancelling and (new.state is State.WAITING or new.run > old.run):
            record.violated("I27", f"job {id} was cancelled while it ran, and went from {old} to {new}")
        if not 0 <= new.failures - old.failures <= 1 or not 0 <= new.crashes - old.crashes <= 1:
            record.violated("I14", f"job {id} went from {old} to {new}")
        if new.crashes > old.crashes and old.holder not in record.doomed and not self._is_apart(id):
            record.violated("I14", f"job {id} has one crash more, but its holder {old.holder} lived")
        if self._is_apart(id) and old.holder not in record.doomed:
            self._charged(id, old, new)

    def _is_apart(self, id: int) -> bool:
        return self.queues[id] == QUEUE

    def _charged(self, id: int, old: Seen, new: Seen) -> None:
        """What a worker process has not begun costs nothing."""
        record, fence = self._record, (id, old.run)
        crashed = new.crashes > old.crashes and fence not in record.lost
        failed = new.failures > old.failures and fence not in record.begun | record.lost
        if crashed or failed:
            record.excused -= 1
        if record.excused < 0:
            record.violated("I29", f"run {old.run} of job {id} never began, and it went from {old} to {new}")

    def _finished(self, id: int, old: Seen) -> None:
        run = self._record.done(id)
        self._record.note(f"ledger: job {id} {old} -> done by run {run}")
        if run is None:
            self._record.violated("I1", f"job {id} is gone")
            return
        run = run or old.run  # of a run without a result, as an item of a batch is, the run is not kept
        self.done[id] = run
        if old.state is not State.RUNNING or old.run != run:
            self._record.violated("I3", f"job {id} was finished by run {run} when it was {old}")
        if (id, run) not in self._record.returned:
            self._record.violated("I3", f"job {id} is done, but its run {run} did not return")

    def _recount(self, admitted: set[str], shown: Shown) -> None:
        violated = self._record.violated
        waiting = [row for row in self._rows.values() if row.state is State.WAITING]
        for queue, line in shown.tally.items():
            count = sum(row.queue == queue for row in waiting)
            size = sum(len(row.payload) for row in waiting if row.queue == queue)
            if (line.waiting, line.waiting_bytes) != (count, size):
                violated("I16", f"{queue!r} counts {line.waiting} jobs and {line.waiting_bytes} bytes, {count} and {size} wait")
            if queue in admitted and count > self._bound:
                violated("I9", f"{count} jobs wait in {queue!r}, its bound is {self._bound}")
        states = [seen.state for seen in self._seen.values()]
        counted = shown.tally.values()
        for state in (State.WAITING, State.RUNNING, State.DEAD, State.HELD):
            if sum(getattr(tally, state.value) for tally in counted) != states.count(state):
                violated("I16", f"the tally counts {[getattr(tally, state.value) for tally in counted]} {state}, not {states.count(state)}")
        running = {id for id, seen in self._seen.items() if seen.state is State.RUNNING}
        if not set(shown.cancelling) <= running:
            violated("I16", f"jobs {set(shown.cancelling) - running} are being cancelled and do not run")
        for what in shown.astray:
            violated("I16", what)

    @property
    def unfinished(self) -> list[int]:
        """The jobs that have not ended."""
        return [id for id, seen in self._seen.items() if seen.state in UNFINISHED]

    def state_of(self, id: int) -> State | None:
        """What the ledger said last."""
        return self._seen[id].state if id in self._seen else State.DONE if id in self.done else None
