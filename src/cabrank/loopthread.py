"""An event loop in a thread of its own, and the way there from every other thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar

import msgspec

from cabrank.errors import IntakeClosed, UsageError, UsedAfterFork

T = TypeVar("T")

START_S = 10.0  # a thread that does not run within this never will: the program's server keeps threads from running


class _Call(msgspec.Struct):
    coroutine: Coroutine[Any, Any, Any]
    answer: Future[Any]
    context: Context


class LoopThread:
    """Runs coroutines for callers that have no event loop. Calls start in the order in which they came."""

    def __init__(self, name: str) -> None:
        self._inbox: deque[_Call] = deque()
        self._called = False
        self._pid = os.getpid()
        self._running: set[asyncio.Task[None]] = set()
        self._over: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._up = threading.Event()

    def start(self) -> None:
        """Start the loop, and return when it runs.

        Raises:
            UsageError: this program runs no threads.
        """
        self._thread.start()
        if not self._up.wait(START_S):
            raise UsageError("a new thread does not run in this process: under uWSGI set `enable-threads = true`")

    @property
    def here(self) -> bool:
        """Whether the caller runs in the loop's own thread."""
        return threading.current_thread() is self._thread

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run what `work` makes, in the caller's context; the answer comes in what is returned. Cancelling that cancels it.

        Raises:
            IntakeClosed: the loop has ended.
            UsageError: it is called in the loop itself, where waiting for the answer would be for ever.
            UsedAfterFork: this process was forked from the one that started the loop.
        """
        if self._pid != os.getpid():
            raise UsedAfterFork
        if self.here:
            raise UsageError("a coroutine calls what blocks: use `cabrank.Dispatcher` there and await it")
        answer: Future[T] = Future()
        self._inbox.append(_Call(work(), answer, copy_context()))
        if not self._called:  # one that is on its way takes this along: it is marked as come before it looks
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self._take)
            except RuntimeError:  # it has ended
                self._refuse()
        return answer

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run what `work` makes and wait for it. An exception here, such as a Ctrl-C, cancels it there."""
        answer = self.call(work)
        try:
            return answer.result()
        finally:
            answer.cancel()

    @property
    def ended(self) -> bool:
        """Whether the loop runs no more, or not in this process."""
        return self._loop.is_closed() or self._pid != os.getpid()

    def soon(self, work: Callable[[], object]) -> None:
        """Have `work` called in the loop, soon. Nothing happens if that has ended, or was left in the process that this one came from."""
        if self._pid == os.getpid():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(work)

    def stop(self) -> None:
        """End the loop and its thread; what still runs there is cancelled."""
        if self._pid == os.getpid():
            self.end()
            self.join()

    def end(self) -> None:
        """Let the loop and its thread end."""
        self.soon(self._end)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    # ------------------------------------------------------------------------------------------------- in the loop's thread

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._live())
        self._refuse()

    async def _live(self) -> None:
        self._over = asyncio.Event()
        self._up.set()
        await self._over.wait()

    def _end(self) -> None:
        if self._over is not None:
            self._over.set()

    def _refuse(self) -> None:
        """Nothing runs here any more. What came while it ended is answered too."""
        self._called = False
        while self._inbox:
            call = self._inbox.popleft()
            call.coroutine.close()
            if call.answer.set_running_or_notify_cancel():
                call.answer.set_exception(IntakeClosed("it was closed before this was asked"))

    def _take(self) -> None:
        self._called = False
        while self._inbox:
            call = self._inbox.popleft()
            started = self._loop.create_task(_answer(call), context=call.context)
            self._running.add(started)
            started.add_done_callback(self._running.discard)
            call.answer.add_done_callback(partial(self._cancel, started))

    def _cancel(self, started: asyncio.Task[None], answer: Future[Any]) -> None:
        if answer.cancelled():
            self.soon(started.cancel)


async def _answer(call: _Call) -> None:
    answer = call.answer
    try:
        result = await call.coroutine
    except asyncio.CancelledError:
        answer.cancel()
        raise
    except BaseException as error:  # noqa: BLE001 -- it is raised where the call came from
        if answer.set_running_or_notify_cancel():
            answer.set_exception(error)
    else:
        if answer.set_running_or_notify_cancel():  # from here nobody can cancel it
            answer.set_result(result)
