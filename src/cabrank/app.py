"""The registry: which handlers there are, under which names, in which queues, and which documents become their jobs. No I/O."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from types import FunctionType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

import msgspec

from cabrank.batch import Answer, Batch, answers
from cabrank.codec import PayloadCodec
from cabrank.dead import OnDead
from cabrank.errors import PayloadInvalid, RegistrationError, UnknownHandler
from cabrank.inject import Marker, markers
from cabrank.job import BARE, NAME
from cabrank.policy import NO_RETRY, Limit, Retry
from cabrank.schedules import Arguments, Missed, Schedule, TickOptions
from cabrank.settings import Kind

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
D = TypeVar("D")
T_contra = TypeVar("T_contra", contravariant=True)
One = TypeVar("One")
Many = TypeVar("Many")
A = TypeVar("A", bound=Answer)

CALLER_OPTIONS = ("delay_s", "due_at", "priority", "deadline_s", "tags", "unique", "on_conflict", "unique_over")


class Takes(Protocol[T_contra]):
    """A handler that can be called with one argument of the type."""

    def __call__(self, item: T_contra, /) -> object:
        """Run the handler's function as the plain function that it is."""
        ...


class Handler(Generic[P, R]):
    """A function under a name, with its queue and its policy. Calling it calls the function.

    Made by `@app.job`.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str,
        queue: str,
        kind: Kind,
        retry: Retry,
        timeout_s: float | None,
        max_crashes: int | None,
        limit: Limit | None = None,
        batch: Batch | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.queue = queue
        self.kind = kind
        self.retry = retry
        self.timeout_s = timeout_s
        self.max_crashes = max_crashes
        self.limit = limit
        self.markers: dict[str, Marker] = markers(function)
        self.batch = batch
        self.codec = PayloadCodec(function, of_items=batch is not None)
        self.on_dead = OnDead()
        """`@upload.on_dead` above a function: it is called with the `DeadJob` when a job of this handler was given up."""
        self.__doc__ = function.__doc__
        self.__name__ = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, here and now: no job is made."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<handler {self.name} of queue {self.queue}>"

    def each(self: Takes[T], items: Iterable[T]) -> Jobs:
        """One job of this handler for each of `items`, to be submitted together or not at all."""
        return Jobs(((cast("AnyHandler", self), list(items)),))


AnyHandler = Handler[Any, Any]


class BatchHandler(Handler[..., Any], Generic[T, One, Many]):
    """A handler whose function takes a list of items and says what became of each; a job of it is one item.

    Calling it with a list calls the function, here and now. Calling it with one item that is no list does so too, and raises what the
    function says of it. Made by `@app.job(batch=…)`.
    """

    @overload
    def __call__(self, item: T, /, **injected: Any) -> One: ...
    @overload
    def __call__(self, items: list[T], /, **injected: Any) -> Many: ...
    def __call__(self, items: Any, /, **injected: Any) -> Any:
        """Call the function itself: no job is made."""
        if isinstance(items, list):
            return self.function(items, **injected)
        said = self.function([items], **injected)
        return _awaited(said) if inspect.isawaitable(said) else _raise(said)


async def _awaited(said: Awaitable[object]) -> None:
    _raise(await said)


def _raise(said: object) -> None:
    """Raise what a call with one item says of it."""
    if (failure := (answers(said, 1) or (None,))[0]) is not None:
        raise failure.raised


class Batched(Protocol):
    """Registers a batch handler: what `@app.job(batch=…)` is."""

    @overload
    def __call__(
        self, function: Callable[[list[T]], Coroutine[Any, Any, A]], /
    ) -> BatchHandler[T, Coroutine[Any, Any, None], Coroutine[Any, Any, A]]: ...
    @overload
    def __call__(self, function: Callable[[list[T]], A], /) -> BatchHandler[T, None, A]: ...


class Jobs(msgspec.Struct, frozen=True):
    """Jobs to submit together: handlers, each with its items. `a.each(xs) + b.each(ys)` is both, in that order."""

    parts: tuple[tuple[AnyHandler, Sequence[object]], ...]

    def __add__(self, other: Jobs) -> Jobs:
        """These and then those."""
        return Jobs(self.parts + other.parts)

    def __len__(self) -> int:
        """How many jobs."""
        return sum(len(items) for _, items in self.parts)


class Document(msgspec.Struct, frozen=True):
    """A route that takes one typed document and makes many jobs of it."""

    path: str
    function: Callable[..., Jobs]
    codec: PayloadCodec


class App:
    """Handlers and document routes under their names.

    An app holds no connection and starts nothing: import it anywhere, give it to a `Dispatcher`, an `Intake` or `cabrank serve`.
    `caller_options` are the options of `submit` that whoever submits over HTTP may set.
    """

    def __init__(self, *, caller_options: Collection[str] = CALLER_OPTIONS) -> None:
        """Make an empty one.

        Raises:
            RegistrationError: there is no such option.
        """
        for name in caller_options:
            if name not in CALLER_OPTIONS:
                raise RegistrationError(f"callers cannot be let set {name!r}: there are {', '.join(CALLER_OPTIONS)}")
        self.caller_options = tuple(caller_options)
        self.handlers: dict[str, AnyHandler] = {}
        self.documents: dict[str, Document] = {}
        self.queues: dict[str, Kind] = {}
        self.schedules: dict[str, Schedule] = {}
        self.on_dead = OnDead()
        """`@app.on_dead` above a function: as `Handler.on_dead`, for jobs of every handler. It is called after the handler's own."""

    @overload
    def job(self, function: Callable[P, R], /) -> Handler[P, R]: ...
    @overload
    def job(
        self,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        max_crashes: int | None = None,
        limit: Limit | None = None,
    ) -> Callable[[Callable[P, R]], Handler[P, R]]: ...
    @overload
    def job(
        self,
        /,
        *,
        batch: Batch,
        name: str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        max_crashes: int | None = None,
        limit: Limit | None = None,
    ) -> Batched: ...
    def job(self, function: Callable[..., Any] | None = None, /, **policy: Any) -> Any:
        """Register a function as a handler, under its own name unless `name` is given.

        `queue` defaults to the one named after the kind. `kind` is `async` for a coroutine function, `thread` for any other, or
        `process` if you say so. `retry` defaults to `Retry()`. A run is stopped after `timeout_s` seconds. A job whose process
        died `max_crashes` times under it is given up (default: the setting). `limit` bounds how many run at once and start in a
        second, over all processes of the store. With `batch` the function takes a list of items, each a job of its own, and returns
        None or a list with a `Failure` for each that failed and None for the others; an exception fails all, and timeout and cancel
        are of the call.

        Raises:
            RegistrationError: the name is taken or malformed, the queue has workers of another kind, or a parameter has no usable type.
        """
        return partial(self._register, **policy) if function is None else self._register(function, **policy)

    def document(self, path: str) -> Callable[[Callable[Concatenate[D, ...], Jobs]], Callable[[D], Jobs]]:
        """Register a function that makes jobs of one document; `cabrank serve` offers it as `POST path`.

        All its jobs are stored in one transaction. The function runs in the event loop before the acknowledgement: let it only
        take the document apart.

        Raises:
            RegistrationError: the path is taken or malformed, or the function does not take exactly one parameter.
        """
        if not path.startswith("/") or path.startswith("/jobs") or any(c in path for c in " ?#{}%") or path in self.documents:
            raise RegistrationError(f"{path!r} cannot be a document's path: it begins with a /, is not below /jobs, and is registered once")

        def register(function: Callable[[D], Jobs]) -> Callable[[D], Jobs]:
            codec = PayloadCodec(function)
            if len(codec.names) != 1:
                raise RegistrationError(f"{function.__name__}: a document route takes exactly one parameter, the document")
            self.documents[path] = Document(path, function, codec)
            return function

        return cast("Callable[[Callable[Concatenate[D, ...], Jobs]], Callable[[D], Jobs]]", register)

    def schedule(
        self,
        cron: str = "",
        /,
        *,
        every_s: float = 0.0,
        timezone: str = "UTC",
        name: str | None = None,
        args: Arguments = (),
        missed: Literal["skip", "once", "all"] = "once",
        **options: Unpack[TickOptions],
    ) -> Callable[[Handler[P, R]], Handler[P, R]]:
        """Let a handler run by itself: write it above `@app.job`. Every `Dispatcher` of the app submits its jobs when their time comes.

        `cron` has five fields, or six that begin with seconds, read in `timezone`; it needs `cabrank[schedule]`. `every_s` is an
        interval instead, counted from 1970. Each tick is submitted once, however many processes there are, and `missed` says what
        becomes of those that came while there was none: see `Missed`. `args` are the handler's, or a function that makes them of the
        tick's moment. `name` (default: the handler's) is what the store remembers the last tick under; `options` are those of `submit`.

        Raises:
            RegistrationError: the expression, interval, zone, name or `args` cannot be used, or there is no `@app.job` below it.
        """

        def register(handler: Handler[P, R]) -> Handler[P, R]:
            self._add_schedule(handler, name=name, cron=cron, every_s=every_s, timezone=timezone, args=args, missed=missed, options=options)
            return handler

        return register

    def handler(self, name: str) -> AnyHandler:
        """The handler of that name.

        Raises:
            UnknownHandler: there is none.
        """
        try:
            return self.handlers[name]
        except KeyError:
            raise UnknownHandler(name, tuple(self.handlers)) from None

    def _register(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        max_crashes: int | None = None,
        limit: Limit | None = None,
        batch: Batch | None = None,
    ) -> AnyHandler:
        chosen = _kind(function, kind)
        _check_policy(function, timeout_s, max_crashes, limit)
        _check_batch(function, batch, max_crashes)
        handler: AnyHandler = (Handler[Any, Any] if batch is None else BatchHandler[Any, Any, Any])(
            function,
            name=name or function.__name__,
            queue=queue or chosen.value,
            kind=chosen,
            retry=retry or Retry(),
            timeout_s=timeout_s,
            max_crashes=max_crashes,
            limit=limit,
            batch=batch,
        )
        self._add(handler)
        return handler

    def _add_schedule(self, handler: object, *, name: str | None, missed: str, **given: Any) -> None:
        if not isinstance(handler, Handler) or self.handlers.get(handler.name) is not handler:
            raise RegistrationError(f"{handler!r} is not a handler of this app: write @app.schedule(…) above its @app.job")
        if missed not in list(Missed):
            raise RegistrationError(f"missed={missed!r}: it is one of {', '.join(Missed)}")
        schedule = Schedule(name=name or handler.name, handler=handler.name, missed=Missed(missed), **given)
        if schedule.name in self.schedules:
            raise RegistrationError(f"there is a schedule named {schedule.name!r} already: give one of them another `name=`")
        if not callable(schedule.args):
            try:
                handler.codec.decode(handler.codec.encode(schedule.arguments(0.0)))
            except (PayloadInvalid, TypeError) as error:
                raise RegistrationError(f"schedule {schedule.name!r}: its args are not what {handler.name!r} takes: {error}") from None
        self.schedules[schedule.name] = schedule

    def _add(self, handler: AnyHandler) -> None:
        for what, name in (("handler", handler.name), ("queue", handler.queue)):
            if not NAME.fullmatch(name):
                raise RegistrationError(
                    f"{name!r} cannot name a {what}: it begins with a letter or digit and has at most 128 letters, digits, `.`, `_` and `-`"
                )
        if handler.name in self.handlers:
            raise RegistrationError(f"there is a handler named {handler.name!r} already: give one of them another `name=`")
        if handler.queue in set(Kind) and handler.queue != handler.kind:
            raise RegistrationError(
                f"queue {handler.queue!r} is the default queue of {handler.queue} workers: give {handler.name!r} another queue"
            )
        if self.queues.setdefault(handler.queue, handler.kind) is not handler.kind:
            raise RegistrationError(
                f"queue {handler.queue!r} has {self.queues[handler.queue].value} workers, so {handler.name!r}, which needs "
                f"{handler.kind.value} workers, goes to another queue"
            )
        self.handlers[handler.name] = handler


def _check_policy(function: Callable[..., object], timeout_s: Any, max_crashes: Any, limit: Any) -> None:
    """Refuse numbers that would fail later, far from here; the types are not taken on trust."""
    if timeout_s is not None and not (isinstance(timeout_s, int | float) and 0 < timeout_s < math.inf):
        raise RegistrationError(f"{function.__name__}: timeout_s is a number of seconds above 0, not {timeout_s!r}")
    if max_crashes is not None and not (isinstance(max_crashes, int) and max_crashes >= 1):
        raise RegistrationError(f"{function.__name__}: max_crashes is a whole number from 1, not {max_crashes!r}")
    if limit is not None and not isinstance(limit, Limit):
        raise RegistrationError(f"{function.__name__}: limit is a cabrank.Limit, as in Limit(running=4), not {limit!r}")


def _check_batch(function: Callable[..., object], batch: Any, max_crashes: int | None) -> None:
    if batch is not None and not isinstance(batch, Batch):
        raise RegistrationError(f"{function.__name__}: batch is a cabrank.Batch, as in Batch(jobs=256), not {batch!r}")
    if batch is not None and max_crashes == 1:
        raise RegistrationError(f"{function.__name__}: with max_crashes=1 one item that kills its process gives up all of its batch: use 2")


class Isolated(Generic[P, R]):
    """A function that no app registered and that is to run in a worker process. Calling it calls the function, here and now."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.function(*args, **kwargs)


def isolated(function: Callable[P, R]) -> Isolated[P, R]:
    """The function for `submit` to run in a worker process, where jobs stay in memory: `submit(cabrank.isolated(parse), path)`.

    It, its arguments and its result are pickled, as for a pool of the standard library.

    Raises:
        RegistrationError: it is a coroutine function.
    """
    if is_async(function):
        raise RegistrationError(f"{function!r}: `async def` runs on async workers, and only `def` in a worker process")
    return Isolated(function)


def bare_handler(kind: Kind) -> AnyHandler:
    """The policy of callables that no app registered: run once, never retried, in the queue named after the kind."""

    def callable_() -> None: ...

    return Handler(callable_, name=BARE, queue=kind.value, kind=kind, retry=NO_RETRY, timeout_s=None, max_crashes=None)


def _kind(function: Callable[..., object], said: str | None) -> Kind:
    asynchronous = is_async(function)
    if said is None:
        return Kind.ASYNC if asynchronous else Kind.THREAD
    try:
        kind = Kind(said)
    except ValueError:
        raise RegistrationError(f"kind={said!r}: it is one of {', '.join(Kind)}") from None
    if asynchronous is not (kind is Kind.ASYNC):
        raise RegistrationError(
            f"{function.__name__}: `async def` runs on {Kind.ASYNC.value} workers and `def` on thread or process workers, not on {said}"
        )
    return kind


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling `function` gives a coroutine."""
    if function.__class__ is FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:  # what nearly all are, found quickly
        return True
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isfunction(function) and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 -- its own method, not whether it can be called
