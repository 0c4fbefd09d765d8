"""Takes new jobs on: what is submitted finds room or waits for it, and is acknowledged when it is committed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from random import Random
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, TypeVarTuple, Unpack, overload

from cabrank.admitting import accepted, answer, check_queue_names, may_wait, never_fits, parts_of, pass_on, queue_of
from cabrank.app import App
from cabrank.block import Block, first_id, first_queue, size_of
from cabrank.clock import Clock, SystemClock
from cabrank.codec import PayloadCodec
from cabrank.drafts import PLAIN, Drafts, Options, beside_another
from cabrank.engine import Engine
from cabrank.errors import DispatcherFailed, NeverFits
from cabrank.gathering import Answered
from cabrank.handle import JobHandle, JobHandles
from cabrank.handler import AnyHandler
from cabrank.job import Job, check_key, digest_of, number_of
from cabrank.plain import Plain
from cabrank.results import Elsewhere, Feed, Results, Submitted
from cabrank.settings import Bound, Kind, PerPool, PerQueue, Settings, load
from cabrank.stores import open_url
from cabrank.stores.contract import STORED, Admission, InspectedStore, Submission
from cabrank.way import Take, Way, no_way

R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CHUNK = 1_000  # jobs of a bulk submit that are admitted together: the next chunk is encoded while one is committed

AHEAD = 4  # jobs for each worker that a map submits before their results are taken: the workers stay busy while some are read


class When(TypedDict, total=False):
    """The options of every submit: see `Options`."""

    delay_s: float | None
    due_at: float | None
    priority: int | None
    deadline_s: float | None
    tags: Sequence[str]


class Once(When, total=False):
    """The options of submitting one job."""

    unique: str | None
    on_conflict: Literal["skip", "debounce", "replace"] | None
    unique_over: Sequence[Literal["waiting", "running", "held", "dead"]]


class Intake:
    """Submits jobs without working on any.

    An async context manager; it may be left in another task than it was entered in. `store` is a URL or a store object. What
    else can be set comes in `settings`, else from `CABRANK_…` variables and a TOML file; `store`, `max_workers`,
    `max_queue` and `overflow` go before them.
    """

    def __init__(
        self,
        app: App | None = None,
        *,
        store: str | InspectedStore | None = None,
        max_workers: PerPool = None,
        max_queue: PerQueue = None,
        overflow: str | Mapping[str, str] | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
    ) -> None:
        self.app = app or App()
        given = {
            "store": store if isinstance(store, str) else None,
            "max_workers": max_workers,
            "max_queue": max_queue,
            "overflow": overflow,
        }
        said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self.settings = load(os.environ, **said) if settings is None else settings.but(**said)
        check_queue_names(self.settings, {*self.app.queues, *Kind})
        self.clock: Clock = clock or SystemClock()
        self.rng = rng or Random()
        opened = open_url(self.settings.store, self.clock, self.rng) if store is None or isinstance(store, str) else store
        self.engine = Engine(type(self).__name__, self.app, opened, settings=self.settings, clock=self.clock, rng=self.rng)
        self._function: Callable[..., Any] | None = None
        self._take: Take = no_way  # the short way of the function that was submitted last
        self._judges = opened.capabilities.judges_room
        bounds = [self.settings.most_at_once(queue, opened.capabilities.bound) for queue in {*self.app.queues, *Kind}]
        self._least = Bound(min(bound.jobs for bound in bounds), min(bound.bytes for bound in bounds))  # whatever fits, fits anywhere
        self.plain = Plain(self.app, self.engine, self.settings, least=self._least, enter=self.enter)
        self.drafts = Drafts(self.app, self.engine.ids, clock=self.clock, settings=self.settings, durable=opened.capabilities.durable)

    # -------------------------------------------------------------------------------------------------------- submitting

    @overload
    async def submit(
        self, function: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, key: str = "", **when: Unpack[Once]
    ) -> JobHandle[R]: ...
    @overload
    async def submit(self, function: Callable[[*Ts], R], *args: *Ts, key: str = "", **when: Unpack[Once]) -> JobHandle[R]: ...
    async def submit(self, function: Callable[[*Ts], Any], *args: *Ts, key: str = "", **when: Unpack[Once]) -> JobHandle[Any]:
        """Submit one call of `function`; waits for room. What comes back is committed, as safely as the store promises.

        `function` is a handler of the app; with a store in memory, any callable. `delay_s` or `due_at` says when it is due,
        `priority` 0 (first) to 9 (last), `deadline_s` after how many seconds it is not worth starting. The same `key` with the
        same arguments again, within `receipts_s`, gives the first job and adds nothing. `unique` is another thing: a key of which at
        most one job waits; if one does, `on_conflict` says what happens: `skip` (the default) gives that job, `debounce` also moves its
        due time to the new one's, `replace` cancels it and stores the new one. Beside a job that runs, `skip` gives that one, the
        others store the new job; `unique_over` says over which states instead, as in `("waiting", "running", "dead")`. `tags` are
        kept with the job, for people. Cancelled while it waits for room, it stores nothing; cancelled while its turn is on the
        way, that is unknown, and a `key` makes doing it again safe.

        Raises:
            PayloadInvalid: the arguments are not what the handler takes.
            KeyReused: `key` was used with other arguments.
            QueueFull: this runs inside a job of the very queue that is full, so waiting could be for ever; or the queue's `overflow`
                is `refuse`.
            DiskFull: the store's disk has too little space.
            StoreUnavailable: whether it was stored is unknown; with a `key`, submitting again is safe.
            IntakeClosed, DispatcherFailed: no more work is taken.
        """
        if not when and not key:
            take = self._take if function is self._function else self._find_way(function)
            if (handle := take(args)) is not None:
                return handle
        return await self._submit(function, args, key, when, patient=True)

    @overload
    async def try_submit(
        self, function: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, key: str = "", **when: Unpack[Once]
    ) -> JobHandle[R]: ...
    @overload
    async def try_submit(self, function: Callable[[*Ts], R], *args: *Ts, key: str = "", **when: Unpack[Once]) -> JobHandle[R]: ...
    async def try_submit(self, function: Callable[[*Ts], Any], *args: *Ts, key: str = "", **when: Unpack[Once]) -> JobHandle[Any]:
        """As `submit`, but never waits for room.

        Raises:
            QueueFull: the queue has reached its bound. Nothing was stored.
        """
        if not when and not key:
            take = self._take if function is self._function else self._find_way(function)
            if (handle := take(args)) is not None:
                return handle
        return await self._submit(function, args, key, when, patient=False)

    @overload
    async def submit_many(
        self, function: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], **when: Unpack[When]
    ) -> Sequence[JobHandle[R]]: ...
    @overload
    async def submit_many(self, function: Callable[[T], R], items: Iterable[T], **when: Unpack[When]) -> Sequence[JobHandle[R]]: ...
    async def submit_many(self, function: Callable[..., Any], items: Iterable[Any], **when: Unpack[When]) -> Sequence[JobHandle[Any]]:
        """Submit one call of `function` for each of `items`, which is read as it is needed; waits for room.

        Returns when all are committed. When it raises or is cancelled half-way, what was committed stays and is run.

        Raises:
            What `submit` raises.
        """
        handler = self.drafts.handler_of(function)
        self.engine.check_queue(handler.queue)
        options = Options(**when) if when else PLAIN
        bound = self.settings.most_at_once(handler.queue, self.engine.store.capabilities.bound)
        chunk = max(1, min(CHUNK, bound.jobs // 4))  # small enough to find room while others submit too
        blocks: list[range] = []
        handles: JobHandles[Any] = JobHandles(blocks, self.engine.handles, codec=handler.codec, bare=self.drafts.is_bare(handler))
        before: asyncio.Future[Admission] | None = None
        source = iter(items)
        while batch := list(islice(source, chunk)):
            jobs = await self._drafted(handler, function, batch, options)
            blocks.append(range(first := first_id(jobs), first + len(jobs)))
            self.engine.handles.unasked.bulk(blocks[-1], handles)
            for part in parts_of(jobs, bound):
                submission, size = Submission(jobs=part), size_of(part)
                committed = None if self._taken(submission, size) else self._offered(submission, size, patient=True)
                if before is not None:
                    accepted(await before, "", self.settings)
                before = committed
        if before is not None:
            accepted(await before, "", self.settings)
        return handles

    @overload
    def map(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        ahead: int | None = None,
        **when: Unpack[When],
    ) -> Results[T, R]: ...
    @overload
    def map(
        self, function: Callable[[T], R], items: Iterable[T] | AsyncIterable[T], *, ahead: int | None = None, **when: Unpack[When]
    ) -> Results[T, R]: ...
    def map(
        self, function: Callable[..., Any], items: Iterable[Any] | AsyncIterable[Any], *, ahead: int | None = None, **when: Unpack[When]
    ) -> Results[Any, Any]:
        """Submit one call of `function` for each of `items` and give out the results, in the items' order.

        `items` is read as it is needed: never more than `ahead` jobs are submitted whose results were not taken yet (default: four for
        each worker, or four batches). Nothing begins before the first result is asked for. See `Results` for what failures do, and
        leaving early.

        Raises:
            What `submit` raises, where the results are taken.
        """
        return Results(self.feed(function, items, ahead, when, ordered=True))

    @overload
    def map_unordered(
        self,
        function: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        ahead: int | None = None,
        **when: Unpack[When],
    ) -> Results[T, R]: ...
    @overload
    def map_unordered(
        self, function: Callable[[T], R], items: Iterable[T] | AsyncIterable[T], *, ahead: int | None = None, **when: Unpack[When]
    ) -> Results[T, R]: ...
    def map_unordered(
        self, function: Callable[..., Any], items: Iterable[Any] | AsyncIterable[Any], *, ahead: int | None = None, **when: Unpack[When]
    ) -> Results[Any, Any]:
        """As `map`, but each result as soon as it is there: one slow job holds up no other. `Results.each` says whose it is."""
        return Results(self.feed(function, items, ahead, when, ordered=False))

    def handle(self, id: str) -> JobHandle[Any]:
        """The handle of a job by its id; nothing is asked of the store yet.

        Raises:
            UnknownJob: it cannot be an id of this store.
        """
        self.engine.check_open()
        return JobHandle(number_of(self.engine.handles.prefix, id), self.engine.handles.stranger)

    def enter(self, submission: Submission, answered: Answered, *, patient: bool = False) -> None:
        """Take what was drafted to the store, for a front that answers by callback. `patient`: it waits for room.

        `answered` is called once with the admission or an error, perhaps before this returns.
        """
        size = size_of(submission.jobs)
        if self.engine.closed is not None:
            answered(self.engine.closed)
        elif (shut := self.engine.shut_to(submission.jobs)) is not None:
            answered(shut)
        elif (never := self._never_fits(submission, size)) is not None:
            answered(never)
        elif self._taken(submission, size):
            answered(STORED)
        else:
            patient = patient and may_wait(first_queue(submission.jobs), self.settings)
            self.engine.committer.offer(submission, answered, patient=patient, size=size)

    def feed(
        self,
        function: Callable[..., Any],
        items: Iterable[Any] | AsyncIterable[Any] | Elsewhere[Any],
        ahead: int | None,
        when: When,
        *,
        ordered: bool,
    ) -> Feed[Any, Any]:
        """What a map reads and submits, for a front that gives the results out in its own way."""
        handler = self.drafts.handler_of(function)
        options = Options(**when) if when else PLAIN
        bound = self.settings.most_at_once(handler.queue, self.engine.store.capabilities.bound)
        most = max(1, bound.jobs // 4)  # what is submitted together finds room while others submit too

        async def submit(batch: list[Any]) -> Iterable[Submitted]:
            jobs = await self._drafted(handler, function, batch, options)
            return [self._held(part, handler.codec, bare=self.drafts.is_bare(handler)) for part in parts_of(jobs, bound)]

        def start(work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
            self.engine.check_open()
            return self.engine.root.start(work(), name="map")

        workers = self.settings.workers_of(handler.queue, handler.kind, os.cpu_count() or 1)
        at_once = 1 if handler.batch is None else handler.batch.jobs
        feed: Feed[Any, Any] = Feed(
            items,
            submit,
            ahead=AHEAD * (max(workers) if isinstance(workers, tuple) else workers) * at_once if ahead is None else ahead,
            chunk=most,
            ordered=ordered,
            handles=self.engine.handles,
            start=start,
        )
        return feed

    # ------------------------------------------------------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        """Open the store and start.

        Raises:
            StoreUnusable, StoreUnavailable: the store cannot be opened; nothing is left running.
        """
        await self.engine.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop as `stop` does; at once, if an exception leaves the block."""
        await self.stop(grace_s=0.0 if error is not None else None)
        failure = self.engine.root.failure
        if failure is not None and error is None:
            raise DispatcherFailed(f"it failed inside and was stopped: {failure!r}") from failure

    async def stop(self, *, grace_s: float | None = None) -> None:
        """Take nothing more on, commit what is on its way, close the store. A second call waits for the first.

        `grace_s` is for what runs, and nothing runs here: it is there so that a Dispatcher can stand where an Intake does.
        """
        del grace_s
        await self.engine.close()

    # ------------------------------------------------------------------------------------------------------------ within

    def _find_way(self, function: Callable[..., Any]) -> Take:
        """The short way of its plain submits. It is kept as long as the same function is submitted."""
        if not self._judges or self.engine.closed is not None:
            return no_way
        handler = self.drafts.handler_of(function)
        room = self.engine.store.room(handler.queue)
        if handler.limit is not None or room is None:
            return no_way
        self._function, self._take = function, Way(function, handler, self.drafts, self.engine, room).take
        return self._take

    async def _drafted(self, handler: AnyHandler, function: Callable[..., Any], items: list[Any], options: Options) -> Sequence[Job]:
        """The jobs of many items, made as long as work is taken on."""
        self.engine.check_open()
        await self.engine.ids.need(len(items))
        return self.drafts.many(handler, function, items, options)

    def _held(self, jobs: Sequence[Job], codec: PayloadCodec, *, bare: bool) -> Submitted:
        """Offer jobs to the store, with a handle for each that keeps its outcome."""
        first = first_id(jobs)
        handles = [self.engine.handles.hold(id, codec, bare=bare) for id in range(first, first + len(jobs))]
        submission, size = Submission(jobs=jobs), size_of(jobs)
        if self._taken(submission, size):
            return Submitted(handles, None)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._offered(submission, size, patient=True).add_done_callback(partial(pass_on, self.settings, stored))
        return Submitted(handles, stored)

    async def _submit(self, function: Callable[..., Any], args: tuple[Any, ...], key: str, when: Once, *, patient: bool) -> JobHandle[Any]:
        self.engine.check_open()
        drafts = self.drafts
        handler = drafts.handler_of(function)
        self.engine.check_queue(handler.queue)
        if not self.engine.ids.enough(1):  # a coroutine for each job is not free, and nearly always there are
            await self.engine.ids.refill()
        options = Options(**when) if when else PLAIN
        job = drafts.job(handler, function, args, options)
        if key:
            check_key(key)
        submission = Submission(jobs=(job,), key=key, digest=digest_of(job.handler, job.payload) if key else b"")
        submission = beside_another(submission, options)
        bare = job.function is not None
        handle = self.engine.handles.hold(job.id, handler.codec, bare)  # now, for the job may end before its answer comes
        if self._taken(submission, len(job.payload)):
            return handle
        first = job.id
        try:
            first = accepted(await self._offered(submission, len(job.payload), patient=patient), key, self.settings)
        finally:
            if first:  # refused, or there before and perhaps ended long ago
                self.engine.handles.drop(job.id)
        return JobHandle(first, handle.origin) if first else handle

    def _never_fits(self, submission: Submission, size: int) -> NeverFits | None:
        """Why these jobs can never be admitted together, if so."""
        if len(submission.jobs) <= self._least.jobs and size <= self._least.bytes:
            return None
        return never_fits(submission.jobs, self.settings, self.engine.store.capabilities.bound)

    def _taken(self, submission: Submission, size: int) -> bool:
        """Take it on here and now, if the store can judge that and there is room."""
        if not self._judges:
            return False
        jobs, engine = submission.jobs, self.engine
        queue = first_queue(jobs)
        if submission.key or submission.unique or submission.tick or engine.committer.in_line(queue):
            return False
        if not isinstance(jobs, Block) and len(jobs) > 1 and len(set(map(queue_of, jobs))) > 1:
            return False  # room in several queues: the turn judges all or none
        room = engine.store.room(queue)
        if room is None or not room.take(len(jobs), size):
            return False
        engine.committer.pending.add(submission.jobs)
        return True

    def _offered(self, submission: Submission, size: int, *, patient: bool) -> asyncio.Future[Admission]:
        future: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        patient = patient and may_wait(first_queue(submission.jobs), self.settings)
        self.engine.committer.offer(submission, partial(answer, future), patient=patient, size=size, wanted=lambda: not future.cancelled())
        return future
