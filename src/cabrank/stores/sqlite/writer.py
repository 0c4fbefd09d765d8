"""The thread that owns the writing connection. What is asked of it is done one after another, and renewed leases in between."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import msgspec

from cabrank.stores.sqlite.forks import Halt, Owner

T = TypeVar("T")


class Doer(Protocol):
    """Does what it is asked for, one thing after another, and something of its own in between. `Writer` is one."""

    def own(self, path: Path, rest: Callable[[], None]) -> None:
        """See `Writer.own`."""
        ...

    async def call(self, work: Callable[[], T], *, within_s: float | None = None, why: Callable[[], Exception] = TimeoutError) -> T:
        """See `Writer.call`."""
        ...

    async def end(self, *, within_s: float) -> None:
        """See `Writer.end`."""
        ...


class Doers(Protocol):
    """How a store comes by those who do what it asks for: `Writer`, or `cabrank.testing.InLoop`."""

    def __call__(self, name: str, *, between: Callable[[], None], every_s: float, now: Callable[[], float]) -> Doer:
        """One more of them, that begins at once. `between` is called at least every `every_s` seconds by the clock `now`."""
        ...


class _Call(msgspec.Struct):
    work: Callable[[], object]
    done: Callable[[object, BaseException | None], None]
    given_up: bool = False


class Writer:
    """Runs calls in a thread of its own. `between` is called there at least every `every_s` seconds, busy or not."""

    def __init__(self, name: str, *, between: Callable[[], None], every_s: float, now: Callable[[], float]) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._between = between
        self._every_s = every_s
        self._now = now
        self._last: Callable[[], object] = lambda: None
        self._rest: Callable[[], None] = lambda: None
        self._owner: Owner | None = None
        self._halts: list[Halt] = []
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def own(self, path: Path, rest: Callable[[], None]) -> None:
        """Have `rest` close the connection to `path` before the process forks. It is called between two calls; the next opens it."""
        self._rest = rest
        self._owner = Owner(path, self._halt)

    async def call(self, work: Callable[[], T], *, within_s: float | None = None, why: Callable[[], Exception] = TimeoutError) -> T:
        """Do `work` in the thread; what it returns or raises comes back. A cancel of the caller does not stop the work.

        What has not come back `within_s` seconds raises `why()`. It still ends in the thread if it had begun, else it is left out.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def done(result: object, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(deliver, result, error)
            except RuntimeError:
                return  # the loop was closed: nobody waits any more

        call = _Call(work, done)

        def give_up() -> None:
            call.given_up = True
            deliver(None, why())

        self._calls.put(call)
        if within_s is None:
            return await future
        timer = loop.call_later(within_s, give_up)
        try:
            return await future
        finally:
            timer.cancel()

    async def end(self, *, within_s: float) -> None:
        """End the thread when what was asked of it is done, and wait for that `within_s` seconds at most.

        No thread is started to wait in: when the process is exiting, none can be.
        """
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        self._last = lambda: loop.call_soon_threadsafe(over.set)
        self.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), within_s)
            self.join()

    def stop(self) -> None:
        """End the thread when what was asked of it is done."""
        self._calls.put(None)

    def join(self, within_s: float | None = None) -> bool:
        """Wait for the thread to end; whether it has."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        due_at = self._now() + self._every_s
        while True:
            try:
                call = self._calls.get(timeout=max(0.0, due_at - self._now()))
                if call is None:
                    self._retire()
                    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                        self._last()
                    return
                if not call.given_up:
                    self._do(call)
            except Empty:
                pass
            if self._now() >= due_at:
                self._between()
                due_at = self._now() + self._every_s

    def _halt(self) -> Halt:
        halt = Halt(self._rest)
        self._halts = [*(one for one in self._halts if not one.over), halt]
        self._calls.put(_Call(halt.stand, lambda _, __: None))
        if self._ended:
            halt.pass_over()
        return halt

    def _retire(self) -> None:
        """Nothing is open any more: no fork waits for this, be it that it has told so already, or that it is about to."""
        if self._owner is not None:
            self._owner.retire()
        self._ended = True
        for halt in self._halts:
            halt.pass_over()

    @staticmethod
    def _do(call: _Call) -> None:
        try:
            result = call.work()
        except BaseException as error:  # noqa: BLE001 -- it is raised where the call came from
            call.done(None, error)
        else:
            call.done(result, None)
