"""The bounded `concurrent.futures.Executor`: what waits for a worker is counted, and a full line pushes back on whoever submits.

Threads take calls straight from the line; a way through an event loop would cost each call two changes of thread. Coroutine
functions, and functions for worker processes, each run on a `Dispatcher` in a loop of its own.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from inspect import CO_COROUTINE
from itertools import chain, count, islice
from types import BuiltinFunctionType, FunctionType
from typing import Any, Literal, ParamSpec, TypeVar, overload

from cabrank.crew import Crew
from cabrank.handler import Isolated, is_async, isolated
from cabrank.processes import each
from cabrank.promise import promised
from cabrank.settings import MEMORY_BOUND, Kind

P = ParamSpec("P")
R = TypeVar("R")

ASYNC, PROCESS = Kind.ASYNC, Kind.PROCESS  # looked up once, for every call asks

_numbers = count()
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()
_executors: weakref.WeakSet[DispatcherExecutor] = weakref.WeakSet()


class DispatcherExecutor(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose line is bounded, and which runs coroutine functions too.

    At most `max_workers` calls run at once (default: min(32, cores + 4)) and at most `max_queue` wait for that. When so many wait,
    `submit` waits for room and `try_submit` raises; `max_queue=None` bounds nothing and behaves as documented for
    `ThreadPoolExecutor`. A call of an `async def` function is run to its end by an event loop that belongs to the executor, at most
    `max_workers` of them at once beside the threads. A call of `cabrank.isolated(fn)` is made in a worker process, which is started
    when one is needed; with `kind="process"` every call of a plain function is. It, its arguments and its result are pickled.

    It is a `ThreadPoolExecutor` by class, so it can be an event loop's default executor. A forked child starts with an empty line.
    """

    def __init__(  # the base's attributes are its own, not documented, and not used here
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_queue: int | None = MEMORY_BOUND.jobs,
        kind: Literal["thread", "process"] = "thread",
    ) -> None:
        if max_workers is None:
            max_workers = min(32, (os.cpu_count() or 1) + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_queue is not None and max_queue <= 0:
            raise ValueError("max_queue must be greater than 0, or None for no bound")
        if kind not in {"thread", "process"}:
            raise ValueError(f"kind is 'thread' or 'process', not {kind!r}")
        if kind == "process" and initializer is not None:
            raise ValueError("an initializer is of threads: in worker processes open what they need at the top of a module")
        self._max_workers = max_workers
        self._plain = Kind(kind)  # what plain functions run on
        self._max_queue = max_queue
        self._prefix = thread_name_prefix or f"{type(self).__name__}-{next(_numbers)}"
        self._initializer = initializer
        self._initargs = initargs
        self._renew()
        _executors.add(self)

    def _renew(self) -> None:
        """Start with an empty line and no thread."""
        self._crew = Crew(
            self._max_workers, max_queue=self._max_queue, name=self._prefix, initializer=self._initializer, initargs=self._initargs
        )
        self._threads = self._crew.threads
        _crews.add(self._crew)
        self._forgotten = weakref.finalize(self, self._crew.close)  # one that nobody holds any more runs what waits, and ends
        self._forgotten.atexit = False

    def forked(self) -> None:
        """In a forked child: the workers are not here, and what waits is the parent's."""
        self._forgotten.detach()
        self._renew()

    @property
    def waiting(self) -> int:
        """How many calls wait for a worker."""
        return self._crew.waiting

    @overload
    def submit(self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    @overload
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn(*args, **kwargs)` called by a worker; waits for room.

        Raises:
            QueueFull: this runs in one of the executor's own workers, so waiting for room could be for ever.
            RuntimeError: it was shut down, also while this waited.
            BrokenThreadPool: an initializer failed.
        """
        future = promised()
        self._crew.take((future, fn, args, kwargs), _kind_of(fn) or self._plain, patient=True)
        return future

    @overload
    def try_submit(self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    @overload
    def try_submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    def try_submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `submit`, but never waits for room.

        Raises:
            QueueFull: `max_queue` calls wait already.
        """
        future = promised()
        self._crew.take((future, fn, args, kwargs), _kind_of(fn) or self._plain, patient=False)
        return future

    @overload
    def map(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]: ...
    @overload
    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[R]: ...
    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """The results of `fn` over `iterables`, in their order.

        Where the line is bounded, or with `buffersize`, the iterables are read as results are taken: at most that many are ahead.
        Else all are read and submitted at once. With `kind="process"`, `chunksize` calls travel together, and the first that raises ends
        its chunk; elsewhere there are no chunks.

        Raises:
            TimeoutError: from the iterator, when a result is not there `timeout` seconds after this call.
        """
        ahead = buffersize if buffersize is not None else self._max_queue
        if ahead is not None and ahead < 1:
            raise ValueError("buffersize must be greater than 0, or None")
        source = zip(*iterables, strict=False)
        if chunksize != 1 and (_kind_of(fn) or self._plain) is PROCESS:
            if chunksize < 1:
                raise ValueError("chunksize must be greater than 0")
            plain: Callable[..., Any] = fn.function if isinstance(fn, Isolated) else fn  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- isinstance cannot tell the parameters
            at_once = None if ahead is None else max(1, ahead // chunksize)
            return chain.from_iterable(self._map(isolated(partial(each, plain)), _chunks(source, chunksize), timeout, at_once))
        return self._map(fn, source, timeout, ahead)

    def _map(self, fn: Callable[..., Any], source: Iterator[tuple[Any, ...]], timeout: float | None, ahead: int | None) -> Iterator[Any]:
        ends_at = None if timeout is None else time.monotonic() + timeout
        begun = deque(self.submit(fn, *args) for args in islice(source, ahead))  # now, not when the first result is asked for
        return _results(begun, (lambda args: self.submit(fn, *args)), source, ends_at)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 -- as `Executor` has it
        """Take no more calls. What waits is still run, unless `cancel_futures`. With `wait`, return when all has ended."""
        self._crew.close()
        if cancel_futures:
            self._crew.cancel_waiting()
        if wait:
            self._crew.join()


def _results(
    begun: deque[Future[Any]], submit: Callable[[tuple[Any, ...]], Future[Any]], source: Iterator[tuple[Any, ...]], ends_at: float | None
) -> Iterator[Any]:
    """Each result when it is there; for each that is taken the next is submitted. What is not wanted any more is cancelled."""
    try:
        while begun:
            future = begun.popleft()
            try:
                result = future.result(None if ends_at is None else ends_at - time.monotonic())
            finally:
                future.cancel()
                del future
            begun.extend(submit(args) for args in islice(source, 1))
            yield result
            del result
    finally:
        for future in begun:
            future.cancel()


def _chunks(source: Iterator[tuple[Any, ...]], size: int) -> Iterator[tuple[list[tuple[Any, ...]]]]:
    """The arguments of calls, so many at a time."""
    while chunk := list(islice(source, size)):
        yield (chunk,)


def _kind_of(fn: Callable[..., object]) -> Kind | None:
    """What runs `fn`, if that is not said by the executor: as `is_async`, at a tenth of the cost for plain functions."""
    kind = fn.__class__
    if kind is FunctionType:
        return ASYNC if fn.__code__.co_flags & CO_COROUTINE else None
    if kind is BuiltinFunctionType:
        return None
    if kind is Isolated:
        return PROCESS
    return ASYNC if is_async(fn) else None


def _at_exit() -> None:
    """Run what was submitted before the interpreter ends."""
    crews = tuple(_crews)
    for crew in crews:
        crew.close(exiting=True)
    for crew in crews:
        crew.join()


def _after_fork_in_child() -> None:
    _crews.clear()
    for executor in tuple(_executors):
        executor.forked()


# Before handlers of `atexit`, as the standard library's own pools do, which is documented; the way to that place is not public.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
