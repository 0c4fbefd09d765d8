"""What a submitter holds: the job's id, its state, and its result when it has one."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec

from cabrank.built import Built
from cabrank.codec import PayloadCodec
from cabrank.errors import JobCancelled, JobExpired, JobFailed, JobHeld, ResultGone, StoreUnavailable
from cabrank.handler import AnyHandler
from cabrank.job import Progress, Settlement, text_id, unknown_job
from cabrank.seats import note
from cabrank.sheaf import RETURNED_NONE, Origin, Sheaf, Sheaves
from cabrank.states import DEATHS, TRANSITIONS, UNFINISHED, Cause, State
from cabrank.stores.contract import OVERFLOW, Inspector, JobRecord, Returned
from cabrank.timeline import Happening, timeline_of
from cabrank.unasked import Unasked

R = TypeVar("R")

ASKED = 1_000  # handles that the store is asked about at a time


class JobHandle(msgspec.Struct, Generic[R], weakref=True, eq=False):
    """One submitted job. Dropping it costs nothing and stops nothing.

    If the job fails and nobody asked for its result, the log says so once it is certain that nobody will: when this handle is dropped.
    Handles that share what is known of their jobs count as one there, and it is said when the last of them is dropped: those of one
    `submit_many`, and in memory at most 64 that plain submits of one handler gave in a row. `on_dead` is told of each at once.
    """

    number: int
    _origin: Origin[Handles]
    _settlement: Settlement | None = None

    @property
    def id(self) -> str:
        """The job's id as text: what `dispatcher.handle` and `GET /jobs/{id}` take."""
        return text_id(self.owner.prefix, self.number)

    @property
    def durability(self) -> str:
        """What it means that the job was taken on: `disk`, it survives a power loss; `process`, the process; `memory`, neither."""
        return self.owner.durability

    @property
    def settled(self) -> bool:
        """Whether this process knows that the job has ended."""
        return self._outcome() is not None

    async def state(self) -> State:
        """The job's state now.

        Raises:
            UnknownJob: it ended and is no longer kept.
        """
        settlement = self._outcome()
        if settlement is not None:
            return TRANSITIONS[State.RUNNING, settlement.cause]
        await self.owner.caught_up()
        return (await self.owner.record(self.number)).state

    async def progress(self) -> Progress | None:
        """How far the job's run is, as its handler said it with `JobContext.progress`; None if it said nothing, or does not run.

        Raises:
            UnknownJob: it ended and is no longer kept.
        """
        if self.settled:
            return None
        await self.owner.caught_up()
        return (await self.owner.record(self.number)).progress

    async def timeline(self) -> Sequence[Happening]:
        """What happened to the job, oldest first, as far as its store has recorded it; see `cabrank.timeline`.

        Raises:
            UnknownJob: it ended and is no longer kept.
        """
        await self.owner.caught_up()
        return timeline_of(await self.owner.record(self.number))

    async def cancelling(self) -> bool:
        """Whether the job runs and was told to stop by a cancel.

        Raises:
            UnknownJob: it ended and is no longer kept.
        """
        return not self.settled and (await self.owner.record(self.number)).cancelling

    async def cancel(self) -> bool:
        """Cancel the job. False: it had ended, or its handler has returned. A running one is asked to stop; whoever settles first wins.

        A running job that was asked may still return, or fail; it does not wait for another try.
        """
        return not self.settled and await self.owner.cancel(self.number)

    async def result(self, *, timeout_s: float | None = None) -> R:
        """What the handler returned, once it has.

        A callable that no app registered raises its own exception here.

        Raises:
            JobFailed: the job was given up; `__cause__` is the handler's exception, if it was raised in this process.
            JobCancelled: it was cancelled.
            JobExpired: it was dropped before it ran.
            JobHeld: its payload does not decode to what its handler takes now.
            ResultGone: it ended, but its result is not kept any more.
            UnknownJob: nothing is known of it.
            IntakeClosed, DispatcherFailed: it had not ended when everything here stopped.
            WaitsForItself: a job waits for a job of its own queue, and so do all workers of that queue.
            TimeoutError: `timeout_s` seconds passed. The job goes on, and calling again is safe.
        """
        settlement = self._outcome()
        if settlement is None:
            async with asyncio.timeout(timeout_s):
                settlement = self._settlement = await self.owner.settlement(self)
            self._origin.outcome(self.number)  # it is kept here now
        if settlement.cause is not Cause.RETURNED:
            self.owner.unasked.asked(self.number)
        codec = self._origin.codec or self.owner.codec(settlement.handler)
        return cast(R, _result_of(self.id, settlement, codec, bare=self._origin.bare))

    def learn(self, settlement: Settlement) -> None:
        """Its job has ended."""
        self._settlement = settlement

    @property
    def owner(self) -> Handles:
        """Where its outcome comes from."""
        return self._origin.owner

    @property
    def origin(self) -> Origin[Handles]:
        """What it has in common with others."""
        return self._origin

    def expect(self) -> asyncio.Future[Settlement]:
        """Done when its job has ended; see `Handles.expect`."""
        return self.owner.expect(self.number)

    def _outcome(self) -> Settlement | None:
        if self._settlement is None:
            self._settlement = self._origin.outcome(self.number)
        return self._settlement

    def __repr__(self) -> str:
        return f"<job {self.id}>"


class Handles:
    """The handles that still live, so that each learns its job's outcome when it is recorded."""

    def __init__(
        self,
        store: Inspector,
        caught_up: Callable[[], Awaitable[None]],
        recorded: Callable[[], Awaitable[None]] | None = None,
        told: Callable[[], None] = lambda: None,
        *,
        handlers: Mapping[str, AnyHandler] | None = None,
        keep: bool = False,
    ) -> None:
        """Over a store.

        `handlers`: those whose results are decoded by what they say they return, by name. `keep`: a handle lives as long as its job. That
        is cheaper than watching it die, where jobs are in memory too.
        """
        self.store = store
        self._handlers: Mapping[str, AnyHandler] = {} if handlers is None else handlers
        self._keep = keep
        self.caught_up = caught_up
        """Waits until the store has all that was submitted: a job that found room at once goes there with the next turn."""
        self._recorded = recorded or caught_up  # waits until the store also has the outcomes of the runs that have ended
        self._told = told  # the store was told something that a turn brings here
        self.unasked = Unasked()
        self.prefix = ""
        self.durability = ""
        self.stranger: Origin[Handles] = Origin(self, None, bare=False)
        """The origin of handles of jobs of which nothing but their ids is known."""
        self._live: dict[int, JobHandle[Any] | weakref.ref[JobHandle[Any]]] = {}
        self._sheaves: Sheaves[Handles] = Sheaves()
        self._waiting: dict[int, list[asyncio.Future[Settlement]]] = {}
        self._new: set[int] = set()  # who began to wait and was not asked for yet
        self._round: deque[int] = deque()  # whom the store is still to be asked about before all are asked about again
        self.over: Exception | None = None
        """Why there are no outcomes from here any more, None while there are."""

    def hold(self, number: int, codec: PayloadCodec, bare: bool) -> JobHandle[Any]:  # noqa: FBT001 -- a fact, not a choice
        """A handle for a job that was submitted just now; `bare` if no app registered what it calls."""
        handle: JobHandle[Any] = JobHandle(number, Origin(self, codec, bare))
        self._live[number] = handle if self._keep else weakref.ref(handle)
        return handle

    def sheaf(self, first: int, codec: PayloadCodec, bare: bool) -> Sheaf[Handles]:  # noqa: FBT001 -- as above
        """The origin of handles for jobs that are submitted one after another, from the id `first` on. It is told how they end."""
        sheaf: Sheaf[Handles] = Sheaf(self, codec, bare, first)
        self._sheaves.add(sheaf)
        return sheaf

    def codec(self, handler: str) -> PayloadCodec | None:
        """What decodes the results of a handler by its name; None if this process has no such handler."""
        known = self._handlers.get(handler)
        return None if known is None else known.codec

    def drop(self, number: int) -> None:
        """Forget the handle of a job that was not stored."""
        self._live.pop(number, None)

    def settled(self, returned: Returned, settlements: Sequence[Settlement], *, here: bool = False) -> None:
        """Tell the handles of jobs that have ended. `here`: in this process, whose log says of failures."""
        if not self._live and not self._sheaves and not self._waiting and not settlements:
            return
        for run, ids in returned.items():
            self._returned(run, ids)
        for settlement in settlements:
            if settlement.cause is Cause.UNREADABLE:
                self._live.pop(settlement.id, None)  # who asks later asks the store: it may have been reopened
                self._sheaves.learn(settlement.id, None)
                self._refuse(settlement.id, self._held(settlement.id, settlement.error))
            if TRANSITIONS[State.RUNNING, settlement.cause] in UNFINISHED:
                continue
            holder = self._learner(settlement)
            if here and settlement.cause in DEATHS:
                self.unasked.failed(text_id(self.prefix, settlement.id), settlement, holder, awaited=settlement.id in self._waiting)
            self._tell(settlement)

    def _learner(self, settlement: Settlement) -> object:
        """Tell whom this is to be asked of that a job has ended, if somebody can still ask."""
        handle = self._live.pop(settlement.id, None)
        if isinstance(handle, weakref.ref):
            handle = handle()
        if handle is None:
            return self._sheaves.learn(settlement.id, settlement)
        handle.learn(settlement)
        return handle

    def _returned(self, run: int, ids: Sequence[int]) -> None:
        self._sheaves.returned(ids)
        live = self._live
        for handle in map(live.pop, live.keys() & ids) if live else ():  # mostly few of very many
            held = handle() if isinstance(handle, weakref.ref) else handle
            if held is not None:
                held._settlement = RETURNED_NONE  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] -- `learn`, for very many
        if self._waiting:
            for id in ids:
                if id in self._waiting:
                    self._tell(Settlement(id, run, Cause.RETURNED))

    def _tell(self, settlement: Settlement) -> None:
        for waiter in self._waiting.pop(settlement.id, ()):
            if not waiter.done():
                waiter.set_result(settlement)

    def _held(self, number: int, why: str) -> JobHeld:
        return JobHeld(f"job {text_id(self.prefix, number)} is held, its payload does not decode here: {why}; reopen it after a fix")

    def _refuse(self, number: int, error: Exception) -> None:
        for waiter in self._waiting.pop(number, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def prune(self) -> None:
        """Forget handles that nobody holds any more."""
        for number in [number for number, held in self._live.items() if isinstance(held, weakref.ref) and held() is None]:
            del self._live[number]
        self._sheaves.prune()
        self.unasked.sum_up()

    def _is_awaited(self, number: int) -> bool:
        """Whether a handle here is still to be told how that job ends."""
        return number in self._live or self._sheaves.of(number) is not None

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits, or will, that there will be no outcome from here."""
        self.over = self.over or error
        for number in tuple(self._waiting):
            self._refuse(number, error)

    async def record(self, number: int) -> JobRecord:
        """What the store says about a job.

        Raises:
            UnknownJob: nothing.
        """
        record = (await self.store.find([number])).get(number)
        if record is None:
            raise unknown_job(text_id(self.prefix, number))
        return record

    async def settlement(self, handle: JobHandle[Any]) -> Settlement:
        """Wait for the outcome of a job that has not ended as far as this process knows."""
        if not self._is_awaited(handle.number):  # not from here, or from a bulk submit: it may have ended already
            await self.caught_up()
            with contextlib.suppress(StoreUnavailable):  # then the duty that looks elsewhere asks again
                record = await self.record(handle.number)
                if record.state is State.HELD:
                    raise self._held(handle.number, record.error)
                if record.state not in UNFINISHED:
                    return _settlement_of(record)
        if self.over is not None:
            raise self.over
        return await self.expect(handle.number)

    def expect(self, number: int) -> asyncio.Future[Settlement]:
        """Done when a job that has not ended has; failed if nobody can tell any more. Cancel it to wait no longer."""
        waiter: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
        if self.over is not None:
            waiter.set_exception(self.over)
            return waiter
        note(waiter, self.prefix, number)
        self._waiting.setdefault(number, []).append(waiter)
        self._new.add(number)
        waiter.add_done_callback(lambda waiter: self._forget(number, waiter))
        return waiter

    def _forget(self, number: int, waiter: asyncio.Future[Settlement]) -> None:
        waiters = self._waiting.get(number, [])
        if waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                self._waiting.pop(number, None)
        self._new.discard(number)

    def new_waiters(self) -> Collection[int]:
        """The jobs that somebody began to wait for since the last call."""
        new, self._new = self._new, set()
        return new

    async def look_elsewhere(self, ended: Collection[int] | None = None) -> None:
        """Ask the store about jobs that another process may have run: those that `ended`, None: the next thousand that are waited for."""
        if ended is not None:
            await self._ask_all([number for number in ended if number in self._waiting or self._is_awaited(number)])
            return
        if not self._round:
            self._round.extend(self._waiting)
        if self._round:
            await self._ask([self._round.popleft() for _ in range(min(ASKED, len(self._round)))])

    async def ask(self, numbers: Sequence[int]) -> None:
        """Ask the store once about jobs that `expect` was called for and that may have ended before: handles of a bulk submit."""
        await self.caught_up()
        with contextlib.suppress(StoreUnavailable):  # then the duty that looks elsewhere asks again
            await self._ask_all([number for number in numbers if not self._is_awaited(number)])

    async def _ask_all(self, numbers: Sequence[int]) -> None:
        for begin in range(0, len(numbers), ASKED):
            await self._ask(numbers[begin : begin + ASKED])

    async def _ask(self, asked: Sequence[int]) -> None:
        records = await self.store.find(asked)
        self._learn(records.values())
        for number in asked:
            if number not in records and not (self._keep and self._is_awaited(number)):  # in memory it is still on its way
                self._refuse(number, self._gone(number))
            elif number in records and records[number].state is State.HELD:
                self._refuse(number, self._held(number, records[number].error))

    def _gone(self, number: int) -> ResultGone:
        return ResultGone(
            f"job {text_id(self.prefix, number)} ended and is no longer kept: raise `keep_done_s`, of its handler or the setting"
        )

    async def cancel(self, number: int) -> bool:
        """Cancel a job. One that waited has ended with that, and no turn will tell its handles."""
        await self._recorded()
        cancelled = await self.store.cancel(number)
        if cancelled:
            self._told()
            self._learn((await self.store.find([number])).values())
        return cancelled

    def _learn(self, records: Iterable[JobRecord]) -> None:
        """Tell the handles of jobs that have ended as the store says."""
        self.settled({}, [_settlement_of(record) for record in records if record.state not in UNFINISHED])


_WHY_EXPIRED = {"deadline": "its deadline had passed", OVERFLOW: "its queue was full and dropped it (overflow)"}


def _settlement_of(record: JobRecord) -> Settlement:
    cause = {state: cause for (before, cause), state in TRANSITIONS.items() if before is State.RUNNING}[record.state]
    return Settlement(
        record.id,
        record.run,
        cause,
        reason=record.reason,
        error=record.error,
        result=record.result,
        value=record.value,
        handler=record.handler,
    )


def _result_of(id: str, settlement: Settlement, codec: PayloadCodec | None, *, bare: bool) -> object:
    match settlement.cause:
        case Cause.RETURNED:
            if settlement.value is not None or settlement.result is None:
                return settlement.value
            return msgspec.json.decode(settlement.result) if codec is None else codec.decode_result(settlement.result)
        case Cause.CANCELLED:
            raise JobCancelled(f"job {id} was cancelled")
        case Cause.DROPPED:
            raise JobExpired(f"job {id} was not run: {_WHY_EXPIRED.get(settlement.reason, settlement.reason)}")
        case _:
            if bare and settlement.failure is not None:
                raise settlement.failure
            failed = JobFailed(id, settlement.reason, settlement.error)
            if settlement.failure is None and settlement.error:  # raised in another process: its traceback is text
                failed.add_note(settlement.error)
            raise failed from settlement.failure


class JobHandles(Built[int, JobHandle[R]], Generic[R]):
    """The handles of a bulk submit, each built when it is asked for: a million of them cost a few numbers."""

    def __init__(self, blocks: Sequence[range], handles: Handles, *, codec: PayloadCodec, bare: bool) -> None:
        origin = Origin(handles, codec, bare)
        super().__init__(blocks, lambda number: JobHandle(number, origin))
