"""An Intake for callers without a loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, TypeVarTuple, Unpack, overload

import cabrank.handle
import cabrank.intake
from cabrank.app import App
from cabrank.blocking.front import Front
from cabrank.blocking.handle import JobHandle, JobHandles
from cabrank.blocking.results import Errand, Results
from cabrank.intake import CHUNK, Once, When
from cabrank.settings import PerPool, PerQueue, Settings

R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Intake:
    """Submits jobs without working on any, as `cabrank.Intake`, from any thread.

    Used with `with`, or as it is: then it opens at its first use and closes when the process exits. `store` is a URL. After a fork,
    also one in the midst of a submit, an object that was not entered opens again by itself; one that was entered with `with` is refused
    in the child with `UsedAfterFork`, and so is a file that could not be closed for the fork.
    """

    _kind: ClassVar[type[cabrank.intake.Intake]] = cabrank.intake.Intake

    def __init__(
        self,
        app: App | None = None,
        *,
        store: str | None = None,
        max_workers: PerPool = None,
        max_queue: PerQueue = None,
        overflow: str | Mapping[str, str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._front = Front(
            partial(self._kind, app, store=store, max_workers=max_workers, max_queue=max_queue, overflow=overflow, settings=settings)
        )

    # -------------------------------------------------------------------------------------------------------- submitting

    @overload
    def submit(
        self, function: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, key: str = "", **when: Unpack[Once]
    ) -> JobHandle[R]: ...
    @overload
    def submit(self, function: Callable[[*Ts], R], *args: *Ts, key: str = "", **when: Unpack[Once]) -> JobHandle[R]: ...
    def submit(self, function: Callable[[*Ts], Any], *args: *Ts, key: str = "", **when: Unpack[Once]) -> JobHandle[Any]:
        """Submit one call of `function`; waits for room. What comes back is committed. As `cabrank.Intake.submit`."""
        opened = self._front.opened()
        return JobHandle(opened.thread.run(lambda: opened.made.submit(function, *args, key=key, **when)), opened.thread)

    @overload
    def try_submit(
        self, function: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, key: str = "", **when: Unpack[Once]
    ) -> JobHandle[R]: ...
    @overload
    def try_submit(self, function: Callable[[*Ts], R], *args: *Ts, key: str = "", **when: Unpack[Once]) -> JobHandle[R]: ...
    def try_submit(self, function: Callable[[*Ts], Any], *args: *Ts, key: str = "", **when: Unpack[Once]) -> JobHandle[Any]:
        """As `submit`, but never waits for room.

        Raises:
            QueueFull: the queue has reached its bound. Nothing was stored.
        """
        opened = self._front.opened()
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
        opened = self._front.opened()
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

    @overload
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T],
        *,
        ahead: int | None = None,
        **when: Unpack[When],
    ) -> Results[T, R]: ...
    @overload
    def map(self, function: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None, **when: Unpack[When]) -> Results[T, R]: ...
    def map(
        self, function: Callable[..., Any], items: Iterable[Any], *, ahead: int | None = None, **when: Unpack[When]
    ) -> Results[Any, Any]:
        """Submit one call of `function` for each of `items` and give out the results, in the items' order.

        `items` is read where the results are taken, as it is needed: never more than `ahead` jobs are submitted whose results were not
        taken yet (default: four for each worker, or four batches). As `cabrank.Intake.map`.
        """
        return self._mapped(function, items, ahead, when, ordered=True)

    @overload
    def map_unordered(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T],
        *,
        ahead: int | None = None,
        **when: Unpack[When],
    ) -> Results[T, R]: ...
    @overload
    def map_unordered(
        self, function: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None, **when: Unpack[When]
    ) -> Results[T, R]: ...
    def map_unordered(
        self, function: Callable[..., Any], items: Iterable[Any], *, ahead: int | None = None, **when: Unpack[When]
    ) -> Results[Any, Any]:
        """As `map`, but each result as soon as it is there: one slow job holds up no other. `Results.each` says whose it is."""
        return self._mapped(function, items, ahead, when, ordered=False)

    def handle(self, id: str) -> JobHandle[Any]:
        """The handle of a job by its id; nothing is asked of the store yet.

        Raises:
            UnknownJob: it cannot be an id of this store.
        """
        opened = self._front.opened()
        return JobHandle(opened.made.handle(id), opened.thread)

    # ------------------------------------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        """Open the store and start.

        Raises:
            StoreUnusable, StoreUnavailable: the store cannot be opened; nothing is left running.
        """
        self._front.enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop as `stop` does; at once, if an exception such as a Ctrl-C leaves the block."""
        self._front.close(0.0 if error is not None else None, error)

    def stop(self, *, grace_s: float | None = None) -> None:
        """Take nothing more on, commit what is on its way, close the store; a Dispatcher lets what runs finish within `grace_s`."""
        self._front.close(grace_s)

    # ------------------------------------------------------------------------------------------------------------ within

    def _mapped(
        self, function: Callable[..., Any], items: Iterable[Any], ahead: int | None, when: When, *, ordered: bool
    ) -> Results[Any, Any]:
        opened = self._front.opened()
        errand = Errand(items, opened.thread)
        return Results(opened.made.feed(function, errand, ahead, when, ordered=ordered), errand, opened.thread)
