"""Dispatcher and Intake for programs without an event loop: scripts, Flask, Django. Any thread may call them.

Each has an event loop in a thread of its own. What is not entered with `with` opens by itself at its first use, in each process
anew, and closes when the process exits: so one object at the top of a module serves every worker of a forking server.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, TypeVarTuple, Unpack, overload

import cabrank.dispatcher
import cabrank.handle
import cabrank.intake
from cabrank.app import App
from cabrank.errors import IntakeClosed, UsageError, UsedAfterFork
from cabrank.handle import Built
from cabrank.intake import CHUNK, When
from cabrank.job import Progress
from cabrank.loopthread import LoopThread
from cabrank.settings import PerQueue, Settings
from cabrank.states import State

R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_fronts: weakref.WeakSet[Intake] = weakref.WeakSet()


class JobHandle(Generic[R]):
    """One submitted job, as `cabrank.JobHandle`, for callers that wait without a loop. Dropping it costs nothing and stops nothing."""

    __slots__ = ("_handle", "_thread")

    def __init__(self, handle: cabrank.handle.JobHandle[R], thread: LoopThread) -> None:
        self._handle = handle
        self._thread = thread

    @property
    def id(self) -> str:
        """The job's id as text: what `handle` and `GET /jobs/{id}` take."""
        return self._handle.id

    @property
    def durability(self) -> str:
        """What it means that the job was taken on: `disk`, `process` or `memory`."""
        return self._handle.durability

    @property
    def settled(self) -> bool:
        """Whether this process knows that the job has ended."""
        return self._handle.settled

    def state(self) -> State:
        """The job's state now.

        Raises:
            UnknownJob: it ended and is no longer kept.
        """
        return self._thread.run(self._handle.state)

    def progress(self) -> Progress | None:
        """How far the job's run is, as its handler said it; None if it said nothing, or does not run."""
        return self._thread.run(self._handle.progress)

    def cancel(self) -> bool:
        """Cancel the job. False: it had ended. A running one is asked to stop; whoever settles first wins."""
        return self._thread.run(self._handle.cancel)

    def result(self, *, timeout_s: float | None = None) -> R:
        """What the handler returned, once it has. Raises what `cabrank.JobHandle.result` raises."""
        return self._thread.run(lambda: self._handle.result(timeout_s=timeout_s))

    def __repr__(self) -> str:
        return repr(self._handle)


class JobHandles(Built[cabrank.handle.JobHandle[R], JobHandle[R]], Generic[R]):
    """The handles of a bulk submit, each built when it is asked for."""

    def __init__(self, chunks: Sequence[Sequence[cabrank.handle.JobHandle[R]]], thread: LoopThread) -> None:
        super().__init__(chunks, lambda handle: JobHandle(handle, thread))


class _Open:
    """One life of a front: a loop in its thread, and what was entered there."""

    def __init__(self, made: cabrank.intake.Intake) -> None:
        self.made = made
        self.thread = LoopThread("cabrank-loop")
        self.thread.start()
        try:
            self.thread.run(made.__aenter__)
        except BaseException:
            self.thread.stop()
            raise

    def close(self, grace_s: float | None, error: BaseException | None) -> None:
        try:
            self._leave(grace_s, error)
        except KeyboardInterrupt:
            self._leave(0.0, error)
            raise
        finally:
            self.thread.stop()

    def _leave(self, grace_s: float | None, error: BaseException | None) -> None:
        async def leave() -> None:
            if error is None:
                await self.made.stop(grace_s=grace_s)
            await self.made.__aexit__(None if error is None else type(error), error, None)

        self.thread.call(leave).result()  # not `run`: a Ctrl-C ends the grace, and the store is still closed in order


class Intake:
    """Submits jobs without working on any, as `cabrank.Intake`, from any thread.

    Used with `with`, or as it is: then it opens at its first use and closes when the process exits. `store` is a URL. After a fork
    an object that was not entered opens again by itself; one that was entered with `with` is refused in the child.
    """

    def __init__(
        self,
        app: App | None = None,
        *,
        store: str | None = None,
        max_workers: PerQueue = None,
        max_queue: PerQueue = None,
        overflow: str | Mapping[str, str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        make = partial(self._kind(), app, store=store, max_workers=max_workers, max_queue=max_queue, overflow=overflow, settings=settings)
        self._make: Callable[[], cabrank.intake.Intake] = make
        self._made: cabrank.intake.Intake | None = make()  # now, so that what is wrong is told here
        self._open: _Open | None = None
        self._entered = False
        self._closed = False
        self._opening = threading.Lock()
        _fronts.add(self)

    # -------------------------------------------------------------------------------------------------------- submitting

    @overload
    def submit(
        self, function: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, key: str = "", **when: Unpack[When]
    ) -> JobHandle[R]: ...
    @overload
    def submit(self, function: Callable[[*Ts], R], *args: *Ts, key: str = "", **when: Unpack[When]) -> JobHandle[R]: ...
    def submit(self, function: Callable[[*Ts], Any], *args: *Ts, key: str = "", **when: Unpack[When]) -> JobHandle[Any]:
        """Submit one call of `function`; waits for room. What comes back is committed. As `cabrank.Intake.submit`."""
        opened = self._opened()
        return JobHandle(opened.thread.run(lambda: opened.made.submit(function, *args, key=key, **when)), opened.thread)

    @overload
    def try_submit(
        self, function: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, key: str = "", **when: Unpack[When]
    ) -> JobHandle[R]: ...
    @overload
    def try_submit(self, function: Callable[[*Ts], R], *args: *Ts, key: str = "", **when: Unpack[When]) -> JobHandle[R]: ...
    def try_submit(self, function: Callable[[*Ts], Any], *args: *Ts, key: str = "", **when: Unpack[When]) -> JobHandle[Any]:
        """As `submit`, but never waits for room.

        Raises:
            QueueFull: the queue has reached its bound. Nothing was stored.
        """
        opened = self._opened()
        return JobHandle(opened.thread.run(lambda: opened.made.try_submit(function, *args, key=key, **when)), opened.thread)

    @overload
    def submit_many(
        self, function: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], **when: Unpack[When]
    ) -> Sequence[JobHandle[R]]: ...
    @overload
    def submit_many(self, function: Callable[[T], R], items: Iterable[T], **when: Unpack[When]) -> Sequence[JobHandle[R]]: ...
    def submit_many(self, function: Callable[..., Any], items: Iterable[Any], **when: Unpack[When]) -> Sequence[JobHandle[Any]]:
        """Submit one call of `function` for each of `items`, which is read here, as it is needed; waits for room.

        Returns when all are committed. When it raises half-way, what was committed stays and is run.
        """
        opened = self._opened()
        source = iter(items)
        chunks: list[Sequence[cabrank.handle.JobHandle[Any]]] = []
        before: Future[Sequence[cabrank.handle.JobHandle[Any]]] | None = None
        while chunk := list(islice(source, CHUNK)):  # the next is read while one is committed
            committed = opened.thread.call(partial(opened.made.submit_many, function, chunk, **when))
            if before is not None:
                chunks.append(before.result())
            before = committed
        if before is not None:
            chunks.append(before.result())
        return JobHandles(chunks, opened.thread)

    def handle(self, id: str) -> JobHandle[Any]:
        """The handle of a job by its id; nothing is asked of the store yet.

        Raises:
            UnknownJob: it cannot be an id of this store.
        """
        opened = self._opened()
        return JobHandle(opened.made.handle(id), opened.thread)

    # ------------------------------------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        """Open the store and start.

        Raises:
            StoreUnusable, StoreUnavailable: the store cannot be opened; nothing is left running.
        """
        self._opened()
        self._entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop as `stop` does; at once, if an exception such as a Ctrl-C leaves the block."""
        self._close(0.0 if error is not None else None, error)

    def stop(self, *, grace_s: float | None = None) -> None:
        """Take nothing more on, commit what is on its way, close the store; a Dispatcher lets what runs finish within `grace_s`."""
        self._close(grace_s, None)

    # ------------------------------------------------------------------------------------------------------------ within

    def _kind(self) -> type[cabrank.intake.Intake]:
        return cabrank.intake.Intake

    def _opened(self) -> _Open:
        """The open front of this process; opened if it is not yet.

        Raises:
            UsedAfterFork: it was entered with `with` in the process that this one was forked from.
            IntakeClosed: it was closed.
        """
        opened = self._open
        if opened is None or self._closed:
            with self._opening:
                self._check()
                if self._open is None:
                    self._open = _Open(self._made or self._make())
                    self._made = None  # it is entered once
                opened = self._open
        return opened

    def _check(self) -> None:
        if self._entered and self._open is None:
            raise UsedAfterFork
        if self._closed:
            raise IntakeClosed("no new work is taken: it was closed")

    def _close(self, grace_s: float | None, error: BaseException | None) -> None:
        with self._opening:
            opened, closed, self._closed = self._open, self._closed, True
        if opened is not None and not closed:
            opened.close(grace_s, error)

    def forked(self) -> None:
        """In the child: the loop's thread is not here, and the lock may have been held by one that is not here either."""
        self._opening = threading.Lock()
        if self._open is not None:
            _left_to_the_parent.append(self._open)
            self._open = None


class Dispatcher(Intake):
    """Takes jobs on and lets bounded pools of workers do them, as `cabrank.Dispatcher`, for callers without a loop.

    `async def` handlers run on its own event loop, `def` handlers on threads. In a forking web server every worker process that
    uses it has workers of its own; where one process is to work, let the others have an `Intake`.
    """

    def join(self) -> None:
        """Wait until nothing waits or runs: in this process, and in the store's queues that it serves."""
        opened = self._opened()
        if not isinstance(opened.made, cabrank.dispatcher.Dispatcher):
            raise UsageError("an Intake does not work on jobs")
        opened.thread.run(opened.made.join)

    def _kind(self) -> type[cabrank.intake.Intake]:
        return cabrank.dispatcher.Dispatcher


_left_to_the_parent: list[_Open] = []  # kept for ever: to close what a forked child shares with its parent would harm the parent


def _close_all() -> None:
    """When the process exits: what was not entered with `with` ends here."""
    for front in tuple(_fronts):
        front.stop()


def _after_fork_in_child() -> None:
    for front in tuple(_fronts):
        front.forked()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
