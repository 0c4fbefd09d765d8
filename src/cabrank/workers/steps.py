"""Steps coroutines for tasks that wait meanwhile. All that want nothing but a turn of the event loop are stepped in one call."""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage] -- so an event loop is told whose code runs
from collections.abc import Callable, Collection, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any

FRESH = object()
"""What a coroutine yields that wants to go on in a fresh context."""
_OVER = object()  # instead of what a coroutine yields, when it has ended


class Stepped:
    """Has a coroutine that can be stepped while the task that ran it waits: a step costs no turn of the task.

    To the coroutine it is as if the task did it: `current_task`, the task's cancels, what it can wait for.
    """

    on_suspend: Callable[[], None]
    """See `Worker`."""

    def __init__(self) -> None:
        self.suspended = False
        """See `Worker`."""
        self.life: asyncio.Task[Any] | None = None
        """The task. Whoever calls `step_on` has set it."""
        self.within: Callable[..., Any] = _nothing
        """Calls in the context of the coroutine."""
        self.advance: Callable[[None], Any] = _nothing
        """The next step: `send`, or what throws in a cancel that the coroutine was not told of yet."""
        self._send: Callable[[None], Any] = _nothing
        self._throw: Callable[[BaseException], Any] = _nothing
        self._why: object = None  # of that cancel
        self._closed = False
        self._waits_for: asyncio.Future[Any] | None = None
        self._over: _Over | None = None
        self._rounds: Rounds | None = None
        self._outside: Context | None = None

    def fresh(self) -> Context:
        """A context to go on in."""
        raise NotImplementedError

    def step_on(self, coroutine: Coroutine[Any, Any, Any], context: Context, rounds: Rounds) -> Generator[Any, Any, tuple[bool, Any]]:
        """Let the task wait while the coroutine, which wanted nothing but a turn of the event loop, is stepped.

        True and what it returned; or False and what it yielded, if only the task can say what that means.
        """
        self.within, self.advance, self._throw = context.run, coroutine.send, coroutine.throw
        self._send, self._rounds, self._outside = self.advance, rounds, copy_context()
        self._over = over = _Over(self)
        rounds.join(self)
        try:
            return (yield from over)
        except GeneratorExit:
            self._closed = True
            coroutine.close()
            raise
        finally:
            self._over = None
            if self.advance is not self._send and self.life is not None:  # nobody was told of that cancel: it is the task's again
                self.life.uncancel()
                self.life.cancel(self._why)

    def cancel(self, why: object) -> bool:
        """The task was cancelled: so is what the coroutine waits for, or else it is told with its next step. False: it has ended."""
        if self._over is None or self._over.done():
            return False
        if self._waits_for is None or not self._waits_for.cancel(msg=why):
            self._why, self.advance = why, self._throw_cancel
        return True

    def after(self, yielded: Any) -> bool:
        """The coroutine was stepped and yielded that. Whether it wants nothing but a turn of the event loop."""
        while yielded is FRESH:
            self.within = self.fresh().run
            yielded = self._step(self.advance, None)
        if yielded is _OVER:
            return False
        if not self.suspended:
            self.suspended = True
            self.on_suspend()
        if yielded is not None:
            self._wait_for(yielded)
        return yielded is None

    def end(self, error: BaseException) -> None:
        """The coroutine was stepped and raised that."""
        over = self._over
        if over is not None and not over.done():
            if isinstance(error, StopIteration):
                over.set_result((True, error.value))
            else:
                over.set_exception(error)
        if isinstance(error, KeyboardInterrupt | SystemExit):  # as a task has it: whoever runs the loop is told too
            raise error

    def _step(self, advance: Callable[[Any], Any], value: Any) -> Any:
        loop, life = asyncio.get_running_loop(), self.life
        assert life is not None  # noqa: S101 -- for the type checker
        _enter_task(loop, life)
        try:
            return self.within(advance, value)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the task is told
            self.end(error)
            return _OVER
        finally:
            _leave_task(loop, life)

    def _wait_for(self, yielded: Any) -> None:
        """Step again when that is done."""
        loop, over = asyncio.get_running_loop(), self._over
        waits = getattr(yielded, "_asyncio_future_blocking", False)  # how a future says that it is awaited
        if not waits or yielded is self.life or yielded.get_loop() is not loop:
            if over is not None and not over.done():
                over.set_result((False, yielded))
            return
        yielded._asyncio_future_blocking = False  # noqa: SLF001 -- as a task does
        yielded.add_done_callback(self._go_on, context=self._outside)
        self._waits_for = yielded
        if self.advance is not self._send and yielded.cancel(msg=self._why):
            self.advance = self._send

    def _go_on(self, future: asyncio.Future[Any]) -> None:
        """What it waited for is done."""
        self._waits_for = None
        advance: Callable[[Any], Any] = self.advance
        error: BaseException | None = None
        if advance is self._send:
            try:
                future.result()
            except BaseException as raised:  # noqa: BLE001 -- whatever it is, it is the coroutine's
                advance, error = self._throw, raised
        try:
            if self.after(self._step(advance, error)) and self._rounds is not None:
                self._rounds.join(self)
        finally:
            error = None  # its traceback has this frame

    def _throw_cancel(self, _: None) -> Any:
        self.advance = self._send
        return self._throw(asyncio.CancelledError() if self._why is None else asyncio.CancelledError(self._why))


class _Over(asyncio.Future[tuple[bool, Any]]):
    """What the task waits for meanwhile."""

    def __init__(self, stepped: Stepped) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._stepped = stepped

    def cancel(self, msg: object = None) -> bool:
        """Called when the task is cancelled."""
        return self._stepped.cancel(msg) or super().cancel(msg)


class Rounds:
    """Steps once with each turn of the event loop who wants nothing but that.

    Whatever was ready when somebody asked for a turn runs before it is stepped, as it would for a task. So who joins while a round is
    on its way waits for the next; those that were stepped in a round ask before the next one is called.
    """

    def __init__(self, rank: Collection[object]) -> None:
        """`rank`: the workers that are idle, always the same object."""
        self._rank = rank
        self._next: list[Stepped] = []
        self._later: list[Stepped] = []
        self._called = False

    def join(self, stepped: Stepped) -> None:
        """Step it when everything that is ready now has run."""
        if self._called:
            self._later.append(stepped)
        else:
            self._next.append(stepped)
            self._call()

    def _call(self) -> None:
        self._called = True
        asyncio.get_running_loop().call_soon(self._take_round)

    def _take_round(self) -> None:
        loop, rank, enter, leave = asyncio.get_running_loop(), self._rank, _enter_task, _leave_task
        going, again = iter(self._next), list[Stepped]()
        try:
            for one in going:
                life: Any = one.life
                enter(loop, life)
                try:
                    yielded = one.within(one.advance, None)
                except BaseException as error:  # noqa: BLE001 -- whatever it is, its task is told
                    leave(loop, life)
                    one.end(error)
                    continue
                leave(loop, life)
                if yielded is None:
                    again.append(one)
                    if not one.suspended:  # what `after` does, for very many
                        one.suspended = True
                        if rank:
                            one.on_suspend()
                elif one.after(yielded):
                    again.append(one)
        finally:
            again.extend(going)
            again += self._later
            self._next, self._later, self._called = again, [], False
            if again:
                self._call()


def _nothing(*_: object) -> Any:
    """A step of a coroutine that was closed."""
    raise StopIteration
