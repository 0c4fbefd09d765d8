"""The worker of `async def` handlers. It steps the handler inside its own coroutine: a run costs no `asyncio.Task`."""

from __future__ import annotations

import asyncio
import os
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextvars import Context
from typing import Any

from cabrank.block import Call, Leases
from cabrank.errors import PayloadInvalid
from cabrank.job import Lease
from cabrank.policy import RETURNED_NONE, Outcome, Raised, Returned, Unreadable
from cabrank.stacks import OURS, awaiting, calling, frame_of, lines_of
from cabrank.workers.contract import Calls, Desk, Place, nobody_minds
from cabrank.workers.steps import FRESH, Stepped

APART = sys.maxsize  # instead of where a streak began: there is none
TOLD = object()  # instead of what a run returned that has been told of


class CoroutineWorker(Stepped):
    """Runs one coroutine at a time, each in a fresh copy of `context`.

    A cancel that the handler lets through ends its run and not the worker, if this run was asked to stop; any other
    `CancelledError` is an exception like any that a handler may raise.
    """

    def __init__(self, calls: Calls, context: Context) -> None:
        super().__init__()
        self.on_suspend = nobody_minds
        self.began_at = 0.0
        self._retired = False
        self._calls = calls
        self._context = context
        self._its_context = context  # that of the run
        self._asked: Outcome | None = None
        self._lease: Lease | None = None
        self._leases: Leases | None = None  # what it runs through
        self._at = 0  # where it is in their block
        self._goes_on = False  # whether a job that had suspended was followed by another
        self._streak_at = 0  # where it was when it last told how many it has run, or `APART`

    @property
    def lease(self) -> Lease | None:
        """What it runs now. The same object as long as it does."""
        leases = self._leases
        if leases is None:
            return self._lease
        if self._lease is None or self._lease.job.id != leases.block.first + self._at:
            self._lease = leases.lease(self._at)
        return self._lease

    @lease.setter
    def lease(self, lease: Lease | None) -> None:
        self._lease = lease

    @types.coroutine
    def run(self, lease: Lease) -> Generator[Any, Any, Outcome]:
        """Run the job, as `Worker.run` promises."""
        try:
            function, args, keywords = self._calls.prepare(lease)
        except PayloadInvalid as error:
            return Unreadable(str(error))
        step = self._context.copy().run
        try:
            coroutine: Coroutine[Any, Any, object] = function(*args, **keywords)
            yielded: Any = step(coroutine.send, None)
        except StopIteration as stop:
            return RETURNED_NONE if stop.value is None else Returned(stop.value)
        except BaseException as error:  # noqa: BLE001 -- a handler may raise anything, and only its run ends
            return self._outcome_of(error)
        self._suspend()
        return (yield from self._resumed(step, coroutine, yielded))

    def run_through(self, leases: Leases, desk: Desk) -> Awaitable[bool] | None:
        """See `Worker`. None if each call needs something of its own."""
        function = self._calls.common(leases.block)
        return None if function is None else self._drive(self._take(function, leases, desk), desk)

    def interrupt(self, outcome: Outcome, lease: Lease | None = None) -> bool:
        """Cancel the coroutine where it waits."""
        if lease is not None and self.lease is not lease:
            return False
        if (self._lease is None and self._leases is None) or self.life is None or not self.suspended or self._asked is not None:
            return False
        self._asked = outcome
        self.life.cancel()
        return True

    def place(self, thread: int) -> Place:
        """In the event loop's thread, or where it waits."""
        running = stepping(frame_of(thread))
        stack = running[1] if running is not None and running[0] is self else self._waits_at()
        return Place(os.getpid(), thread, stack, self._asked)

    def _waits_at(self) -> Sequence[str]:
        """Below this worker's own steps: those of the handler."""
        found: Any = None if self.life is None else self.life.get_coro()
        for waiting, frame in awaiting(found):
            if frame.f_code in STEPS:
                found = frame.f_locals.get("coroutine") or waiting.cr_await
                if frame.f_code is not _DRIVE:
                    return lines_of(frame for _, frame in awaiting(found))
                return lines_of(frame for _, frame in awaiting(found.cr_await))
        return ()

    def retire(self) -> None:
        """From now on a cancel that was not asked for ends the worker."""
        self._retired = True

    async def settle_down(self) -> bool:
        """Absorb the cancel that was meant for the run that has ended, delivered or not."""
        if self._asked is None:
            return False
        self._asked = None
        life = self.life
        if life is None or not life.cancelling():
            return False
        try:
            await asyncio.sleep(0)  # before Python 3.13 `uncancel` leaves a cancel that was not yet delivered standing
        except asyncio.CancelledError:
            pass
        if life.uncancel():  # there is another cancel, which is meant for the worker
            raise asyncio.CancelledError
        return False

    def close(self) -> None:
        """Nothing to do: it lives in the pool's coroutine."""

    async def _take(self, function: Callable[..., Any], leases: Leases, desk: Desk) -> bool:
        """Run one job after another. Jobs that leave the context as it was share one: nobody can tell."""
        outside, context, monotonic, first_runs = self._context, self._its_context, desk.monotonic, desk.first_runs
        look, slice_s, began_at, apart = desk.at_once - 1, desk.slice_s, self._sit_down(leases, desk), False
        more: Leases | None = leases
        while more is not None:
            leases, more = more, None
            items, one, first = leases.block.items, leases.block.call is Call.ONE, leases.block.first
            for at in leases.positions:
                self._at = at
                try:
                    value = await function(items[at]) if one else await function(*items[at])
                except BaseException as error:
                    if self._closed:
                        raise
                    value = self._report(error, leases, desk)
                else:
                    if value is not None:
                        self._report(value, leases, desk)
                try:
                    same = context == outside
                except Exception:  # noqa: BLE001 -- what is compared are values that the handler has set
                    same = False
                if not same:
                    context = await self._another()
                if rested := self.suspended:
                    apart = self._goes_on = True
                    moment = monotonic()
                    desk.running_s += moment - began_at
                    self.began_at = began_at = moment
                if apart and value is None:
                    if not first_runs:
                        desk.tell()
                    first_runs.append(first + at)
                    desk.ended += 1
                if self._asked is not None or self._retired if rested else not at & look and monotonic() > began_at + slice_s:
                    break
                self.suspended = False
            else:
                more = self._following(leases, desk)
        return self._stand_up(desk)

    def _sit_down(self, leases: Leases, desk: Desk) -> float:
        """Begin to run through them: the moment."""
        desk.at_work += 1
        self._leases, self._streak_at = leases, leases.next
        self._at = self._streak_at - 1
        self.began_at = desk.monotonic()
        return self.began_at

    def _following(self, leases: Leases, desk: Desk) -> Leases | None:
        """Those that are next, when these are used up, if they can be run through in the same way."""
        more = desk.after(leases)
        if more is not None:
            if self._streak_at != APART:
                self._end_streak(self._at + 1, desk)
                self._streak_at = more.next
                self._at = self._streak_at - 1
            self._leases = more
        return more

    def _stand_up(self, desk: Desk) -> bool:
        """Tell of the runs that have ended: there is no other. Whether the event loop has had a turn."""
        self._end_streak(self._at + 1, desk)
        moment = desk.monotonic()
        desk.running_s += moment - self.began_at
        desk.at_work -= 1
        self.began_at, self._goes_on = moment, False
        self._leases = self._lease = None
        return self._streak_at == APART

    def _report(self, ended: object, leases: Leases, desk: Desk) -> object:
        """Tell of a run that did not return None: what it returned, or raised. `TOLD`, instead of that."""
        at = self._at
        self._end_streak(at, desk)
        if self._streak_at != APART:
            self._streak_at = at + 1
        outcome = self._outcome_of(ended) if isinstance(ended, BaseException) else Returned(ended)
        desk.report(leases.lease(at), outcome)
        desk.ended += 1
        return TOLD

    def _end_streak(self, stop: int, desk: Desk) -> None:
        """Tell of the runs that returned None, one behind the other in the block, up to `stop`."""
        begins, leases = self._streak_at, self._leases
        if begins < stop and leases is not None:
            first = leases.block.first
            self._streak_at = stop
            if not desk.first_runs:
                desk.tell()
            desk.first_runs.extend(range(first + begins, first + stop))
            desk.ended += stop - begins

    def _break_streak(self, desk: Desk) -> None:
        """Tell of the runs before this one, which gives the event loop a turn. From now on each is told of by itself: others take some."""
        self._end_streak(self._at, desk)
        self._streak_at = APART
        if self.life is None:
            self.life = asyncio.current_task()

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, bool], desk: Desk) -> Generator[Any, Any, bool]:
        """Step the coroutine in a context that is replaced when it asks for that."""
        run, send, rank = self.fresh().run, coroutine.send, desk.rank
        advance: Callable[[Any], Any] = send
        value: Any = None
        while True:
            try:
                yielded = run(advance, value)
            except StopIteration as stop:
                return bool(stop.value)
            if yielded is FRESH:
                run, advance, value = self.fresh().run, send, None
                continue
            if not self.suspended:
                self.suspended = True
                if self._streak_at != APART:
                    self._break_streak(desk)
                if rank:
                    self.on_suspend()
            if yielded is None and self._goes_on:
                over, yielded = yield from self.step_on(coroutine, self._its_context, desk.rounds)
                if over:
                    return bool(yielded)
                run = self._its_context.run
            try:
                value = yield yielded
                advance = send
            except GeneratorExit:
                self._closed = True
                coroutine.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 -- whatever is thrown in goes on to the handler
                advance, value = coroutine.throw, thrown

    @types.coroutine
    def _another(self) -> Generator[object, None, Context]:
        """Go on in a fresh context: that."""
        yield FRESH
        return self._its_context

    def fresh(self) -> Context:
        """A context to go on in."""
        self._its_context = context = self._context.copy()
        return context

    def _suspend(self) -> None:
        self.suspended = True
        if self.life is None:
            self.life = asyncio.current_task()
        self.on_suspend()

    def _resumed(self, step: Any, coroutine: Coroutine[Any, Any, object], yielded: Any) -> Generator[Any, Any, Outcome]:
        while True:
            try:
                advance, value = coroutine.send, (yield yielded)
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 -- whatever is thrown in goes on to the handler
                advance, value = coroutine.throw, thrown
            try:
                yielded = step(advance, value)
            except StopIteration as stop:
                return RETURNED_NONE if stop.value is None else Returned(stop.value)
            except BaseException as error:  # noqa: BLE001 -- as above
                return self._outcome_of(error)

    def _outcome_of(self, error: BaseException) -> Outcome:
        if isinstance(error, KeyboardInterrupt):
            raise error
        if isinstance(error, asyncio.CancelledError) and self._asked is not None:
            return self._asked
        if isinstance(error, asyncio.CancelledError) and self._retired and self.life is not None and self.life.cancelling():
            raise error
        return Raised(error)


# Where a worker's own frames end and a handler's begin.
_DRIVE = CoroutineWorker._drive.__code__  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] -- in its own module
_TAKE = CoroutineWorker._take.__code__  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] -- as above
_RESUMED = CoroutineWorker._resumed.__code__  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] -- as above
STEPS = frozenset({CoroutineWorker.run.__code__, _TAKE, _RESUMED, _DRIVE})


def stepping(frame: types.FrameType | None) -> tuple[CoroutineWorker, Sequence[str]] | None:
    """Whose run a thread is in that stands at `frame`, and where in it; None if in none."""
    inner: list[types.FrameType] = []
    for each in calling(frame):
        if each.f_code in STEPS:
            worker = each.f_locals["self"]
            while inner and inner[0].f_code.co_filename.startswith(OURS):  # whoever looks
                inner.pop(0)
            return worker, lines_of(reversed(inner))
        inner.append(each)
    return None
