"""The workers of one executor and the line that they take calls from. It knows no executor, so that one can be forgotten."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import BrokenThreadPool
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from cabrank.dispatcher import Dispatcher
from cabrank.errors import QueueFull
from cabrank.loopthread import LoopThread
from cabrank.processes import UNBOUNDED, Processes
from cabrank.promise import Call
from cabrank.settings import Kind

logger = logging.getLogger("cabrank.executor")

THREAD = Kind.THREAD  # looked up once, for every call asks


class Crew:
    """At most `size` threads, each started when a call finds none idle, and as many coroutines and as many processes, whose loops are
    started when they are needed.

    `_line` ends in None when nothing more comes: each thread that finds it puts it back for the next, and ends.
    """

    def __init__(
        self, size: int, *, max_queue: int | None, name: str, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.threads: set[threading.Thread] = set()
        self._size = size
        self._bound = UNBOUNDED if max_queue is None else max_queue
        self._name = name
        self._initializer = initializer
        self._initargs = initargs
        self._line: SimpleQueue[Call | None] = SimpleQueue()
        self._idle: list[None] = []  # one for each thread that found the line empty, until a call is meant for it
        self._lock = threading.RLock()  # an executor that is collected closes its crew, in whatever this thread is doing
        self._room = threading.Condition(self._lock)
        self._short = 0  # how many wait for room
        self._refusal: Exception | None = None
        self._others: dict[Kind, Coroutines | Processes] = {}

    @property
    def waiting(self) -> int:
        """How many calls wait for a worker."""
        return self._line.qsize() + sum(other.waiting for other in self._others.values())

    def take(self, call: Call, kind: Kind, *, patient: bool) -> None:
        """Put a call into the line of its kind. See `DispatcherExecutor.submit`."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            if self._line.qsize() >= self._bound or self._others:
                self._wait_for_room(patient=patient)
            if kind is not THREAD:
                self._other(kind).take(call)
                return
            self._line.put(call)
            if len(self.threads) < self._size:
                self._hire()

    def close(self, *, exiting: bool = False) -> None:
        """Take nothing more; what waits is still run."""
        after = "interpreter shutdown" if exiting else "shutdown"
        with self._lock:
            if not isinstance(self._refusal, BrokenThreadPool):
                self._refusal = RuntimeError(f"cannot schedule new futures after {after}")
            self._line.put(None)
            self._room.notify_all()
            others = tuple(self._others.values())
        for other in others:
            other.close()

    def cancel_waiting(self) -> None:
        """Cancel what no worker has taken yet."""
        with self._lock:
            self._empty_line(lambda future: future.cancel())
            self._line.put(None)
            for other in self._others.values():
                other.cancel_waiting()

    def join(self) -> None:
        """Wait until every worker has ended. `close` was called."""
        for thread in tuple(self.threads):
            thread.join()
        for other in tuple(self._others.values()):
            other.join()

    # ------------------------------------------------------------------------------------------------------------ within

    def _wait_for_room(self, *, patient: bool) -> None:
        self._short += 1  # before the count is looked at: whoever takes a call afterwards sees that somebody waits
        try:
            while self.waiting >= self._bound:
                if not patient:
                    raise QueueFull(self._name, f"{self._bound:,} calls wait")
                if threading.current_thread() in self.threads or any(other.thread.here for other in self._others.values()):
                    raise QueueFull(self._name, f"{self._bound:,} calls wait", "a call of this executor cannot wait for its own workers")
                self._room.wait()
                if self._refusal is not None:
                    raise self._refusal
        finally:
            self._short -= 1

    def _tell_of_room(self) -> None:
        if self._short:
            with self._lock:
                self._room.notify()

    def _other(self, kind: Kind) -> Coroutines | Processes:
        other = self._others.get(kind)
        if other is None:
            make = Processes if kind is Kind.PROCESS else Coroutines
            other = self._others[kind] = make(self._size, f"{self._name}-{kind}", freed=self._tell_of_room)
        return other

    def _hire(self) -> None:
        try:
            self._idle.pop()
        except IndexError:
            thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self.threads)}", daemon=True)
            thread.start()
            self.threads.add(thread)

    def _work(self) -> None:
        """The life of a thread."""
        if self._initializer is not None and not self._initialized(self._initializer):
            return
        line, idle = self._line, self._idle
        while True:
            try:
                call = line.get_nowait()
            except Empty:
                if len(self.threads) < self._size:
                    idle.append(None)
                call = line.get()
            if call is None:
                line.put(None)
                return
            if self._short:
                self._tell_of_room()
            _run(call)
            del call  # what it refers to may be waiting to be collected

    def _initialized(self, initializer: Callable[..., None]) -> bool:
        try:
            initializer(*self._initargs)
        except BaseException:
            logger.critical("Exception in initializer:", exc_info=True)
            self._break()
            return False
        return True

    def _break(self) -> None:
        """An initializer failed, so no thread is as it was meant to be: give up what waits."""
        with self._lock:
            broken = BrokenThreadPool("A thread initializer failed, the thread pool is not usable anymore")
            self._refusal = broken
            self._empty_line(lambda future: future.set_exception(broken))
            self._line.put(None)
            self._room.notify_all()

    def _empty_line(self, end: Callable[[Future[Any]], object]) -> None:
        while True:
            try:
                call = self._line.get_nowait()
            except Empty:
                return
            if call is not None:
                end(call[0])


def _run(call: Call) -> None:
    future, fn, args, kwargs = call
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 -- it is raised where the result is asked for
        future.set_exception(error)
        del call, future, fn, args, kwargs  # the error's traceback holds this frame
    else:
        future.set_result(result)


class Coroutines:
    """Runs coroutine functions: a dispatcher in memory, in a loop of its own."""

    def __init__(self, size: int, name: str, *, freed: Callable[[], None]) -> None:
        self._freed = freed
        self._waiting: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self.thread = LoopThread(name)
        self.thread.start()
        self._dispatcher = Dispatcher(store="memory://", max_workers=size, max_queue=UNBOUNDED)
        self.thread.run(self._dispatcher.__aenter__)
        self._closing: Future[None] | None = None

    @property
    def waiting(self) -> int:
        """How many calls have not begun."""
        return len(self._waiting)

    def take(self, call: Call) -> None:
        """Have a call begun as soon as fewer than `size` run."""
        future, fn, args, kwargs = call
        self._waiting.add(future)

        async def run() -> None:
            self._waiting.discard(future)
            self._freed()
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(await fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 -- it is raised where the result is asked for
                future.set_exception(error)

        try:
            submitted = self.thread.call(lambda: self._dispatcher.submit(run))
        except BaseException:
            self._waiting.discard(future)
            raise
        submitted.add_done_callback(partial(_pass_failure, future))

    def close(self) -> None:
        """Let everything run to its end, and the loop after it."""
        with self._lock:
            if self._closing is None:
                self._closing = self.thread.call(lambda: self._dispatcher.stop(grace_s=math.inf))
                self._closing.add_done_callback(lambda _: self.thread.end())

    def cancel_waiting(self) -> None:
        """Cancel what has not begun."""
        for future in tuple(self._waiting):
            future.cancel()

    def join(self) -> None:
        """Wait for the loop to end."""
        self.thread.join()


def _pass_failure(future: Future[Any], submitted: Future[Any]) -> None:
    """Tell the caller that its call will never begin, if so."""
    error = None if submitted.cancelled() else submitted.exception()
    if error is not None and future.set_running_or_notify_cancel():
        future.set_exception(error)
