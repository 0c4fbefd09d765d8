"""Makes jobs of what is submitted: the handler found, the payload encoded and bounded, the options checked, the id given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from inspect import iscoroutine

import msgspec

from cabrank.app import App
from cabrank.block import Block, Call, Encode
from cabrank.clock import Clock
from cabrank.depth import DEEPEST, is_too_deep
from cabrank.errors import PayloadInvalid, PayloadTooLarge, RegistrationError, SettingError
from cabrank.handler import AnyHandler, Handler, Isolated, Jobs, bare_handler, is_async
from cabrank.ids import Ids
from cabrank.job import DEFAULT_PRIORITY, LIMIT_KEY_LIMIT, PRIORITIES, Conflict, Job, check_key, check_tags, check_unique_over
from cabrank.settings import Kind, Settings
from cabrank.states import State
from cabrank.stores.contract import Submission


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a submitter may say about jobs: when they are due, how urgent they are, after when nobody wants them, how they are tagged.

    `delay_s` and `deadline_s` are seconds from now; `due_at` is a moment. `priority` is 0 (first) to 9 (last). At most one waiting
    job of a handler has the same `unique` key; `on_conflict` says what becomes of a second one, see `Conflict`,
    and `unique_over` which states of the first one count.
    """

    delay_s: float | None = None
    due_at: float | None = None
    priority: int | None = None
    deadline_s: float | None = None
    tags: Sequence[str] = ()
    unique: str | None = None
    on_conflict: str | None = None
    unique_over: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("delay_s", "due_at", "deadline_s"):
            value: object = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                what = "seconds since the epoch: give `moment.timestamp()`" if name == "due_at" else "a number of seconds"
                raise SettingError(f"{name} is {what}, not {value!r}")
        if self.delay_s is not None and self.due_at is not None:
            raise SettingError("give delay_s or due_at, not both")
        for name, seconds in (("delay_s", self.delay_s), ("deadline_s", self.deadline_s)):
            if seconds is not None and seconds < 0:
                raise SettingError(f"{name} must not be negative, it is {seconds:g}")
        if self.priority is not None and self.priority not in PRIORITIES:
            raise SettingError(f"priority is 0 (first) to 9 (last), not {self.priority}")
        if self.unique is not None:
            check_key(self.unique, "a unique key")
        elif self.on_conflict is not None:
            raise SettingError("on_conflict is for jobs with a unique key: give unique too")
        if self.unique_over:
            check_unique_over(self.unique_over, self.unique)
        if self.on_conflict is not None and self.on_conflict not in list(Conflict):
            raise SettingError(f"on_conflict is {', '.join(Conflict)}, not {self.on_conflict!r}")


PLAIN = Options()

Arrival = tuple[bytes, tuple[object, ...]]
"""A payload that came and was found good, and the arguments that it stands for."""


class Drafts:
    """Turns handlers and arguments into jobs. Nothing is stored yet, and nothing is waited for."""

    def __init__(self, app: App, ids: Ids, *, clock: Clock, settings: Settings, durable: bool) -> None:
        self._handlers = app.handlers
        self._ids = ids
        self._clock = clock
        self.limit = settings.payload_limit
        """The bytes that a payload may have."""
        self._durable = durable
        self._bare = {kind: bare_handler(kind) for kind in Kind}

    def handler_of(self, function: Callable[..., object]) -> AnyHandler:
        """The handler to submit to.

        Raises:
            RegistrationError: it is not this app's; or it is no handler and the store is not in memory.
        """
        if isinstance(function, Handler):
            handler: AnyHandler = function  # pyright: ignore[reportUnknownVariableType] -- isinstance cannot tell the parameters
            if self._handlers.get(handler.name) is not handler:
                raise RegistrationError(f"{handler!r} is not a handler of this dispatcher's app: submit it where that app runs")
            return handler
        if not callable(function):
            raise _uncallable(function)
        if self._durable:
            raise RegistrationError(f"{function!r} is not a handler: only a function under a name can be stored, register it with @app.job")
        if isinstance(function, Isolated):
            return self._bare[Kind.PROCESS]
        return self._bare[Kind.ASYNC if is_async(function) else Kind.THREAD]

    def is_bare(self, handler: AnyHandler) -> bool:
        """Whether `handler` stands for a callable that no app registered."""
        return handler is self._bare.get(handler.kind)

    def job(self, handler: AnyHandler, function: Callable[..., object], args: tuple[object, ...], options: Options = PLAIN) -> Job:
        """One job that calls `handler`, or `function` if that is not one.

        Raises:
            PayloadInvalid, PayloadTooLarge: the arguments are not what it takes.
        """
        if self.is_bare(handler):
            called = function.function if isinstance(function, Isolated) else function
            job = Job(id=self._ids.take(1), handler=handler.name, queue=handler.queue, payload=b"", args=args, function=called)
        else:
            payload = self._payload(handler, args)
            key = None if handler.limit is None else limit_key(handler, args)
            job = Job(id=self._ids.take(1), handler=handler.name, queue=handler.queue, payload=payload, limit_key=key, args=args)
        return job if options is PLAIN else self._with(options, [job])[0]

    def many(self, handler: AnyHandler, function: Callable[..., object], items: list[object], options: Options = PLAIN) -> Sequence[Job]:
        """One job for each of `items`, their ids in a row. `items` is kept.

        Raises:
            PayloadInvalid, PayloadTooLarge: an item is not what the handler takes.
        """
        if handler.limit is not None:
            jobs = _alike(handler, self._payloads(handler, items), items, self._ids.take(len(items)))
            return jobs if options is PLAIN else self._with(options, jobs)
        if self.is_bare(handler):
            called = function.function if isinstance(function, Isolated) else function
            block = Block(self._ids.take(len(items)), items, Call.ONE, handler.name, handler.queue, called, None, 0)
        else:
            block = self._block(handler, items)
        return block if options is PLAIN else self._with(options, block)

    def received(self, handler: AnyHandler, payload: bytes, options: Options = PLAIN) -> Job:
        """The job of a payload that came as JSON. What is stored is what came.

        Raises:
            PayloadMalformed, PayloadInvalid, PayloadTooLarge: it is not what the handler takes.
        """
        stored, args = self.read(handler, payload)
        key = None if handler.limit is None else limit_key(handler, args)
        job = Job(id=self._ids.take(1), handler=handler.name, queue=handler.queue, payload=stored, limit_key=key, args=args)
        return job if options is PLAIN else self._with(options, [job])[0]

    def received_plain(self, handler: AnyHandler, arrivals: Sequence[Arrival]) -> Sequence[Job]:
        """The jobs of what `read` gave, without options, their ids in a row: a block, unless the handler has a limit."""
        if handler.limit is not None:
            return self.arrived(handler, arrivals)
        payloads, items = [payload for payload, _ in arrivals], [args for _, args in arrivals]
        first, size = self._ids.take(len(items)), sum(map(len, payloads))
        return Block(first, items, Call.ARGS, handler.name, handler.queue, None, payloads, size)

    def read(self, handler: AnyHandler, payload: bytes) -> Arrival:
        """What is stored of a payload that came as JSON, and the arguments that it stands for.

        Raises:
            PayloadMalformed, PayloadInvalid, PayloadTooLarge: it is not what the handler takes.
        """
        if len(payload) > self.limit:
            raise PayloadTooLarge(len(payload), self.limit)
        args = handler.codec.decode(payload)
        if not handler.codec.bounded:
            check_depth(payload)
        return payload or handler.codec.encode(args), args

    def examined(self, handler: AnyHandler, payloads: Sequence[bytes]) -> list[tuple[object, ...] | PayloadInvalid]:
        """The arguments that each payload stands for, or what is wrong with it."""
        return [self._examined(handler, payload) for payload in payloads]

    def arrived(self, handler: AnyHandler, arrivals: Sequence[Arrival], options: Options = PLAIN) -> list[Job]:
        """The jobs of payloads that were found good, with their arguments, their ids in a row."""
        name, queue, limit = handler.name, handler.queue, handler.limit
        jobs = [
            Job(
                id=number,
                handler=name,
                queue=queue,
                payload=payload or handler.codec.encode(args),
                limit_key=None if limit is None else limit_key(handler, args),
                args=args,
            )
            for number, (payload, args) in enumerate(arrivals, self._ids.take(len(arrivals)))
        ]
        return jobs if options is PLAIN else self._with(options, jobs)

    def arrived_each(self, handler: AnyHandler, arrivals: Sequence[Arrival], options: Sequence[Options]) -> list[Job]:
        """As `arrived`, with options for each."""
        jobs = self.arrived(handler, arrivals)
        return [job if its is PLAIN else self._with(its, [job])[0] for job, its in zip(jobs, options, strict=True)]

    def together(self, jobs: Jobs, options: Options = PLAIN) -> Sequence[Job]:
        """The jobs of a document, their ids in a row and in its order.

        Raises:
            RegistrationError: one is of another app's handler.
            PayloadInvalid, PayloadTooLarge: an item is not what its handler takes.
        """
        if len(jobs.parts) == 1:
            handler, items = jobs.parts[0]
            if options is PLAIN and handler.limit is None and self._handlers.get(handler.name) is handler:
                return self._block(handler, list(items))
            return self.many(self.handler_of(handler), handler, list(items), options)
        parts = [(handler, items, self._payloads(self.handler_of(handler), items)) for handler, items in jobs.parts]
        first = self._ids.take(len(jobs))
        made: list[Job] = []
        for handler, items, payloads in parts:
            made += _alike(handler, payloads, items, first + len(made))
        return made if options is PLAIN else self._with(options, made)

    def _block(self, handler: AnyHandler, items: list[object]) -> Block:
        payloads, size = self._sized(handler, items)
        return Block(self._ids.take(len(items)), items, Call.ONE, handler.name, handler.queue, None, payloads, size)

    def _examined(self, handler: AnyHandler, payload: bytes) -> tuple[object, ...] | PayloadInvalid:
        if len(payload) > self.limit:
            return PayloadTooLarge(len(payload), self.limit)
        try:
            args = handler.codec.decode(payload)
            if not handler.codec.bounded:
                check_depth(payload)
        except PayloadInvalid as error:
            return error
        return args

    def payload_of(self, handler: AnyHandler) -> Callable[[tuple[object, ...]], bytes]:
        """What makes the payload of one call of `handler`; it raises what `job` raises."""
        return partial(self._payload, handler)

    def _payload(self, handler: AnyHandler, args: tuple[object, ...]) -> bytes:
        try:
            payload = handler.codec.encode(args)
        except PayloadInvalid as error:
            raise type(error)(f"{handler.name}: {error}") from None
        if len(payload) > self.limit:
            raise PayloadTooLarge(len(payload), self.limit)
        return payload

    def _sized(self, handler: AnyHandler, items: Sequence[object]) -> tuple[list[bytes] | Encode, int]:
        """The payloads and their bytes. In memory, where a payload is seldom looked at, what encodes them instead, if that will do."""
        if not self._durable:
            try:
                size = handler.codec.size_of_each(items)
            except PayloadInvalid as error:
                raise type(error)(f"{handler.name}: {error}") from None
            if size is not None and size <= self.limit:
                return handler.codec.encode_each, size
        payloads = self._payloads(handler, items)
        return payloads, sum(map(len, payloads))

    def _payloads(self, handler: AnyHandler, items: Sequence[object]) -> list[bytes]:
        try:
            payloads = handler.codec.encode_each(items)
        except PayloadInvalid as error:
            raise type(error)(f"{handler.name}: {error}") from None
        limit = self.limit
        for payload in payloads:
            if len(payload) > limit:
                raise PayloadTooLarge(len(payload), limit)
        return payloads

    def _with(self, options: Options, jobs: Sequence[Job]) -> list[Job]:
        now = self._clock.now()
        due_at = options.due_at or (now + options.delay_s if options.delay_s else 0.0)
        deadline_at = 0.0 if options.deadline_s is None else now + options.deadline_s
        priority = DEFAULT_PRIORITY if options.priority is None else options.priority
        tags, unique = check_tags(options.tags), options.unique or ""
        return [
            msgspec.structs.replace(job, due_at=due_at, deadline_at=deadline_at, priority=priority, tags=tags, unique=unique)
            for job in jobs
        ]


def beside_another(submission: Submission, options: Options) -> Submission:
    """The submission, with what the options say about a job that has its unique key already."""
    if options.on_conflict is None and not options.unique_over:
        return submission
    conflict = Conflict.SKIP if options.on_conflict is None else Conflict(options.on_conflict)
    return msgspec.structs.replace(submission, on_conflict=conflict, unique_over=tuple(map(State, options.unique_over)))


def _alike(handler: AnyHandler, payloads: Sequence[bytes], items: Sequence[object], first: int) -> list[Job]:
    name, queue, ids = handler.name, handler.queue, range(first, first + len(items))
    if handler.limit is not None:
        keys = [limit_key(handler, (item,)) for item in items]
        return [
            Job(id=number, handler=name, queue=queue, payload=payload, limit_key=key, args=(item,))
            for number, payload, key, item in zip(ids, payloads, keys, items, strict=True)
        ]
    return [
        Job(id=number, handler=name, queue=queue, payload=payload, args=(item,))
        for number, payload, item in zip(ids, payloads, items, strict=True)
    ]


def limit_key(handler: AnyHandler, args: tuple[object, ...]) -> str:
    """The key of a job of a limited handler: what its function says of the arguments, `""` if it has none.

    Raises:
        PayloadInvalid: the function raised, or what it returned cannot be a key.
    """
    if handler.limit is None or handler.limit.key is None:
        return ""
    try:
        return _key_text(handler.limit.key(*args))
    except Exception as error:
        raise PayloadInvalid(f"{handler.name}: the key of its limit cannot be had: {type(error).__name__}: {error}") from error


def _key_text(key: object) -> str:
    text = str(key) if isinstance(key, int) else key
    if not isinstance(text, str) or len(text.encode()) > LIMIT_KEY_LIMIT or "\0" in text:
        raise TypeError(f"{key!r:.80} is no whole number and no text of at most {LIMIT_KEY_LIMIT} bytes")
    return text


def check_depth(payload: bytes) -> None:
    """Refuse JSON that came from outside and is nested too deeply.

    Raises:
        PayloadInvalid: it is.
    """
    if is_too_deep(payload):
        raise PayloadInvalid(f"it is nested more than {DEEPEST} levels deep")


def _uncallable(given: object) -> RegistrationError:
    apart = "; give the function and its arguments apart, submit(f, x) and not submit(f(x))" if iscoroutine(given) else ""
    return RegistrationError(f"{given!r} cannot be called: submit takes a handler or another function, then its arguments{apart}")
