"""The registry: which handlers there are, under which names, in which queues, and which documents become their jobs. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Unpack, cast, overload

import msgspec

from cabrank.batch import Batch
from cabrank.codec import PayloadCodec
from cabrank.dead import OnDead
from cabrank.errors import PayloadInvalid, RegistrationError, UnknownHandler
from cabrank.handler import AnyHandler, Batched, Handler, HandlerPolicy, Jobs, made
from cabrank.job import NAME
from cabrank.schedules import Arguments, Missed, Schedule, TickOptions
from cabrank.settings import Kind

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

CALLER_OPTIONS = ("delay_s", "due_at", "priority", "deadline_s", "tags", "unique", "on_conflict", "unique_over")


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
    def job(self, /, **policy: Unpack[HandlerPolicy]) -> Callable[[Callable[P, R]], Handler[P, R]]: ...
    @overload
    def job(self, /, *, batch: Batch, **policy: Unpack[HandlerPolicy]) -> Batched: ...
    def job(self, function: Callable[..., Any] | None = None, /, **policy: Any) -> Any:
        """Register a function as a handler, under its own name unless `name` is given.

        `queue` defaults to the one named after the kind. `kind` is `async` for a coroutine function, `thread` for any other, or
        `process` if you say so. `retry` defaults to `Retry()`. A run is stopped after `timeout_s` seconds. A job whose process
        died `max_crashes` times under it is given up (default: the setting). `limit` bounds how many run at once and start in a
        second, over all processes of the store. Once done, a job can be asked for `keep_done_s` seconds (default: the setting). With
        `batch` the function takes a list of items, each a job of its own, and returns None or a list with a `Failure` for each that
        failed and None for the others; an exception fails all, and timeout and cancel are of the call.

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

    def _register(self, function: Callable[..., Any], **policy: Any) -> AnyHandler:
        handler = made(function, **policy)
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
