"""The worker of `async def` handlers. It steps the handler inside its own coroutine: a run costs no `asyncio.Task`."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

from cabrank.errors import PayloadInvalid
from cabrank.job import Lease
from cabrank.policy import RETURNED_NONE, Outcome, Raised, Returned, Unreadable
from cabrank.workers.contract import Calls, nobody_minds


class CoroutineWorker:
    """Runs one coroutine at a time, each in a fresh copy of `context`.

    A cancel that the handler lets through ends its run and not the worker, if this run was asked to stop; any other
    `CancelledError` is an exception like any that a handler may raise.
    """

    def __init__(self, calls: Calls, context: Context) -> None:
        self.lease: Lease | None = None
        self.began_at = 0.0
        self.suspended = False
        self.on_suspend: Callable[[], None] = nobody_minds
        self._retired = False
        self._calls = calls
        self._context = context
        self._task: asyncio.Task[Any] | None = None
        self._asked: Outcome | None = None

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
        self.suspended = True
        self.on_suspend()
        self._task = asyncio.current_task()
        return (yield from self._resumed(step, coroutine, yielded))

    def interrupt(self, outcome: Outcome) -> bool:
        """Cancel the coroutine where it waits."""
        if self.lease is None or self._task is None or self._asked is not None:
            return False
        self._asked = outcome
        self._task.cancel()
        return True

    def retire(self) -> None:
        """From now on a cancel that was not asked for ends the worker."""
        self._retired = True

    async def settle_down(self) -> bool:
        """Absorb the cancel that was meant for the run that has ended, delivered or not."""
        if self._asked is None:
            return False
        self._asked = None
        task = self._task
        if task is None or not task.cancelling():
            return False
        try:
            await asyncio.sleep(0)  # before Python 3.13 `uncancel` leaves a cancel that was not yet delivered standing
        except asyncio.CancelledError:
            pass
        if task.uncancel():  # there is another cancel, which is meant for the worker
            raise asyncio.CancelledError
        return False

    def close(self) -> None:
        """Nothing to do: it lives in the pool's coroutine."""

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
        if isinstance(error, asyncio.CancelledError) and self._retired and self._task is not None and self._task.cancelling():
            raise error
        return Raised(error)
