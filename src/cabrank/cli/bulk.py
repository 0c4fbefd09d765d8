"""One bulk run: chunks of the input go to the store, each once by its key; what became of each item goes to the files, once.

At most `WINDOW` chunks are in memory. What a killed process had submitted is not submitted again: the key of its chunk gives the same
ids, and the store says what became of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto

import msgspec

from cabrank.cli.items import Chunk, Item
from cabrank.cli.journal import Journal, Record, RunUnusable
from cabrank.cli.reading import Reading
from cabrank.dispatcher import Dispatcher
from cabrank.drafts import limit_key
from cabrank.errors import CabrankError, KeyReused, PayloadInvalid
from cabrank.events import Event, JobsSettled
from cabrank.handler import AnyHandler
from cabrank.job import Job, Settlement, digest_of
from cabrank.states import TRANSITIONS, UNFINISHED, Cause, State
from cabrank.stores.contract import Admission, JobRecord, Submission, Verdict

WINDOW = 32  # chunks of which not all is written
WRITE_S = 0.25  # how often the files are synced; while that is done, workers go on
LOOK_S = 5.0  # how often the store is asked about jobs that others may run
NO_RESULT = b"null"


class Written(Enum):
    """The outcome of an item that stands in a file."""

    WRITTEN = auto()


WRITTEN = Written.WRITTEN


class Failure(msgspec.Struct, frozen=True):
    """Why an item has no result: one word, and what was raised."""

    reason: str
    error: str


Outcome = bytes | Failure | Written | None


class Tracked:
    """A chunk with what became of its items."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.outcomes: list[Outcome] = [None] * len(chunk.items)
        self.places: list[int] = []  # of the items that are jobs, in the order of their ids
        self.first = 0
        """The id of the first of these."""
        self.unwritten = len(chunk.items)
        self.sought = 0  # where the next to be written may be

    @property
    def ids(self) -> range:
        """The ids of its jobs."""
        return range(self.first, self.first + len(self.places))


class Bulk:
    """The run over one input with one handler."""

    def __init__(self, dispatcher: Dispatcher, handler: AnyHandler, journal: Journal, *, ordered: bool) -> None:
        self._dispatcher = dispatcher
        self._handler = handler
        self._journal = journal
        self._ordered = ordered
        self._tracked: deque[Tracked] = deque()
        self._whose: dict[int, tuple[Tracked, int]] = {}
        self._news = asyncio.Event()
        self._submitting: asyncio.Future[Admission] | None = None
        self._ready = 0  # outcomes that are not written
        self.done, self.failed = journal.record.done, journal.record.failed
        self._passed = journal.record.start
        self._before = journal.record.is_written
        self._began = time.monotonic()
        self._spent_s = journal.record.spent_s
        dispatcher.engine.events.subscribe(self._heard)

    @property
    def offset(self) -> int:
        """How many bytes of the input are behind it."""
        return self._passed.offset

    @property
    def spent_s(self) -> float:
        """How long the run has taken, over all its starts."""
        return self._spent_s + time.monotonic() - self._began

    def wake(self) -> None:
        """Something has changed: look at once."""
        self._news.set()

    async def run(self, chunks: Iterator[Chunk], told: Callable[[], bool], show: Callable[[], None]) -> bool:
        """Go on until all is written (True) or until `told` says so.

        Raises:
            InputUnusable, RunUnusable: it cannot go on.
            DispatcherFailed: something inside failed.
        """
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(self._news.set)

        reading = Reading(chunks, tell)
        write_at, look_at = loop.time() + WRITE_S, loop.time() + LOOK_S
        while not told():
            self._dispatcher.engine.check_running()
            self._news.clear()
            took = await self._feed(reading)
            over = reading.over and not took and not self._is_submitting
            if loop.time() >= write_at or self._front_is_ready or (over and self._ready):
                await self.write()
                write_at = loop.time() + WRITE_S
                show()
            if over and not self._tracked:
                return True
            if loop.time() >= look_at and self._tracked and not self._is_submitting:
                await self._look(self._tracked[0])
                look_at = loop.time() + LOOK_S
            if not took:
                try:
                    await asyncio.wait_for(self._news.wait(), max(0.0, write_at - loop.time()))
                except TimeoutError:
                    continue
        return False

    async def write(self) -> None:
        """Put what became of items into the files, as far as it is known and its turn has come."""
        results, failures, errors = bytearray(), bytearray(), bytearray()
        for tracked in self._tracked:
            for place in self._writable(tracked):
                item, outcome = tracked.chunk.items[place], tracked.outcomes[place]
                if isinstance(outcome, Failure):
                    self.failed += 1
                    failures += item.raw if item.raw.endswith(b"\n") else item.raw + b"\n"
                    errors += msgspec.json.encode({"line": item.line, "reason": outcome.reason, "error": outcome.error}) + b"\n"
                else:
                    self.done += 1
                    results += b'{"line":%d,"result":%s}\n' % (item.line, outcome)
                tracked.outcomes[place] = WRITTEN
                tracked.unwritten -= 1
                self._ready -= 1
            if self._ordered and tracked.unwritten:
                break
        passed = bool(self._tracked) and not self._tracked[0].unwritten
        if results or failures or passed:
            self._forget_written()
            await asyncio.to_thread(self._journal.append, bytes(results), bytes(failures), bytes(errors), self._record())

    # ---------------------------------------------------------------------------------------------------------- submitting

    @property
    def _is_submitting(self) -> bool:
        return self._submitting is not None and not self._submitting.done()

    @property
    def _front_is_ready(self) -> bool:
        """Whether the first chunk is all there: writing it lets the next one in."""
        return len(self._tracked) == WINDOW and None not in self._tracked[0].outcomes

    async def _feed(self, reading: Reading) -> bool:
        """Submit the next chunk, if there is one and room for it. Whether that was done."""
        if self._is_submitting:
            return False
        await self._check_submitted()
        if len(self._tracked) >= WINDOW:
            return False
        chunk = reading.take()
        if chunk is None:
            return False
        tracked = Tracked(chunk)
        self._tracked.append(tracked)
        self._recall(tracked)
        jobs = await self._jobs_of(tracked)
        if jobs:
            self._submit(tracked, jobs)
        return True

    def _recall(self, tracked: Tracked) -> None:
        """Take over what an earlier start had written of it."""
        size = len(tracked.outcomes)
        for place, written in enumerate(self._before[:size]):
            if written:
                tracked.outcomes[place] = WRITTEN
                tracked.unwritten -= 1
        self._before = self._before[size:]

    async def _jobs_of(self, tracked: Tracked) -> list[Job]:
        items, drafts, ids = tracked.chunk.items, self._dispatcher.drafts, self._dispatcher.engine.ids
        self._dispatcher.engine.check_open()
        good = [place for place, item in enumerate(items) if not item.error]
        made = [self._with_key(args) for args in drafts.examined(self._handler, [items[place].payload for place in good])]
        arrivals: list[tuple[bytes, tuple[object, ...]]] = []
        for place, args in zip(good, made, strict=True):
            if isinstance(args, PayloadInvalid):
                self._know(tracked, place, _invalid(items[place], str(args)))
            else:
                tracked.places.append(place)
                arrivals.append((items[place].payload, args))
        for place, item in enumerate(items):
            if item.error:
                self._know(tracked, place, _invalid(item, item.error))
        if not arrivals:
            return []
        await ids.need(len(arrivals))
        return drafts.arrived(self._handler, arrivals)

    def _with_key(self, args: tuple[object, ...] | PayloadInvalid) -> tuple[object, ...] | PayloadInvalid:
        """The arguments, if the key of the handler's limit can be had of them."""
        if self._handler.limit is not None and not isinstance(args, PayloadInvalid):
            try:
                limit_key(self._handler, args)
            except PayloadInvalid as error:
                return error
        return args

    def _submit(self, tracked: Tracked, jobs: list[Job]) -> None:
        """Offer its jobs to the store, under the key of the chunk."""
        self._track(tracked, jobs[0].id)
        digest = digest_of(self._handler.name, b"\n".join([job.payload for job in jobs]))
        submission = Submission(jobs=jobs, key=f"run-{tracked.chunk.start.item}", digest=digest)
        answered: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._submitting = answered

        def answer(admission: Admission | CabrankError) -> None:
            self._news.set()
            if answered.done():
                return
            if isinstance(admission, CabrankError):
                answered.set_exception(admission)
            else:
                answered.set_result(admission)

        self._dispatcher.enter(submission, answer, patient=True)

    async def _check_submitted(self) -> None:
        """See what became of the last chunk that was submitted: it is new, or an earlier start had it in the store."""
        if self._submitting is None:
            return
        submitted, self._submitting = self._submitting, None
        tracked = self._tracked[-1]
        try:
            admission = submitted.result()
        except KeyReused:
            raise _changed(tracked) from None
        if admission.verdict is Verdict.KEY_REUSED:
            raise _changed(tracked)
        if admission.verdict is Verdict.REPEATED:
            self._forget(tracked)
            self._track(tracked, admission.first_id)
            await self._look(tracked)

    def _track(self, tracked: Tracked, first: int) -> None:
        tracked.first = first
        self._whose.update((id, (tracked, place)) for id, place in zip(tracked.ids, tracked.places, strict=True))

    def _forget(self, tracked: Tracked) -> None:
        for id in tracked.ids:
            self._whose.pop(id, None)

    # ------------------------------------------------------------------------------------------------------------ learning

    def _heard(self, event: Event) -> None:
        if not isinstance(event, JobsSettled):
            return
        for ids in event.returned.values():
            self._have(ids, NO_RESULT)
        for settlement in event.others:
            if settlement.cause is Cause.UNREADABLE or TRANSITIONS[State.RUNNING, settlement.cause] not in UNFINISHED:
                self._have((settlement.id,), _outcome_of(settlement))
        if self._front_is_ready:
            self._news.set()

    def _have(self, ids: Iterable[int], outcome: Outcome) -> None:
        for id in ids:
            found = self._whose.get(id)
            if found is not None:
                self._know(*found, outcome)

    def _know(self, tracked: Tracked, place: int, outcome: Outcome) -> None:
        if tracked.outcomes[place] is None:
            tracked.outcomes[place] = outcome
            self._ready += 1

    async def _look(self, tracked: Tracked) -> None:
        """Ask the store what became of its jobs."""
        asked = [id for id, place in zip(tracked.ids, tracked.places, strict=True) if tracked.outcomes[place] is None]
        records = await self._dispatcher.engine.store.find(asked)
        for id in asked:
            record = records.get(id)
            if record is None and tracked.outcomes[self._whose[id][1]] is None:
                raise RunUnusable(f"the store does not know any more what became of line {tracked.chunk.items[self._whose[id][1]].line}")
            if record is not None and (record.state is State.HELD or record.state not in UNFINISHED):
                self._have((id,), _outcome_of(record))

    # ------------------------------------------------------------------------------------------------------------- writing

    def _writable(self, tracked: Tracked) -> Iterator[int]:
        """Those of its items that may be written now."""
        outcomes = tracked.outcomes
        while tracked.sought < len(outcomes) and outcomes[tracked.sought] is WRITTEN:
            tracked.sought += 1
        for place in range(tracked.sought, len(outcomes)):
            outcome = outcomes[place]
            if outcome is not None and outcome is not WRITTEN:
                yield place
            elif outcome is None and self._ordered:
                return

    def _forget_written(self) -> None:
        while self._tracked and not self._tracked[0].unwritten:
            if len(self._tracked) == 1 and self._submitting is not None:
                return  # its answer is still to be looked at
            tracked = self._tracked.popleft()
            self._passed = tracked.chunk.end
            self._forget(tracked)

    def _record(self) -> Record:
        bits = b"".join(bytes([outcome is WRITTEN for outcome in tracked.outcomes]) for tracked in self._tracked)
        return msgspec.structs.replace(
            self._journal.record,
            start=self._passed,
            written=zlib.compress((bits + self._before).rstrip(b"\0"), 1),
            done=self.done,
            failed=self.failed,
            spent_s=self.spent_s,
        )


def _invalid(item: Item, error: str) -> Failure:
    return Failure("invalid", f"line {item.line}: {error}")


def _changed(tracked: Tracked) -> RunUnusable:
    start, end = tracked.chunk.start.line + 1, tracked.chunk.end.line
    return RunUnusable(f"lines {start:,} to {end:,} are not what they were when this run began: give it the same input, or another --store")


def _outcome_of(said: Settlement | JobRecord) -> Outcome:
    state = said.state if isinstance(said, JobRecord) else TRANSITIONS[State.RUNNING, said.cause]
    if state is State.DONE:
        return NO_RESULT if said.result is None else said.result
    return Failure(said.reason or state.value, said.error)
