"""What a handler is: a function under a name, with its queue and its policy. Of functions that no app registered, too."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from types import FunctionType
from typing import Any, Generic, ParamSpec, Protocol, TypedDict, TypeVar, overload

import msgspec

from cabrank.batch import Answer, Batch, answers
from cabrank.codec import PayloadCodec
from cabrank.dead import OnDead
from cabrank.errors import RegistrationError
from cabrank.inject import Marker, markers
from cabrank.job import BARE
from cabrank.policy import NO_RETRY, Limit, Retry
from cabrank.settings import Kind

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
One = TypeVar("One")
Many = TypeVar("Many")
A = TypeVar("A", bound=Answer)


class HandlerPolicy(TypedDict, total=False):
    """What `@app.job` is told about a handler."""

    name: str | None
    queue: str | None
    kind: str | None
    retry: Retry | None
    timeout_s: float | None
    max_crashes: int | None
    limit: Limit | None
    keep_done_s: float | None


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
        keep_done_s: float | None = None,
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
        self.keep_done_s = keep_done_s
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
        handler: Any = self
        return Jobs(((handler, list(items)),))


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
        return len(self.parts[0][1]) if len(self.parts) == 1 else sum([len(items) for _, items in self.parts])


def made(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    queue: str | None = None,
    kind: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    max_crashes: int | None = None,
    limit: Limit | None = None,
    keep_done_s: float | None = None,
    batch: Batch | None = None,
) -> AnyHandler:
    """The handler of a function, with what was not said filled in.

    Raises:
        RegistrationError: the kind does not suit the function, a number cannot be used, or a parameter has no usable type.
    """
    chosen = _kind(function, kind)
    _check_policy(function, timeout_s, max_crashes, limit, keep_done_s)
    _check_retry(function, retry)
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
        keep_done_s=keep_done_s,
        batch=batch,
    )
    return handler


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


def _check_policy(function: Callable[..., object], timeout_s: Any, max_crashes: Any, limit: Any, keep_done_s: Any) -> None:
    """Refuse numbers that would fail later, far from here; the types are not taken on trust."""
    if timeout_s is not None and not (isinstance(timeout_s, int | float) and 0 < timeout_s < math.inf):
        raise RegistrationError(f"{function.__name__}: timeout_s is a number of seconds above 0, not {timeout_s!r}")
    if max_crashes is not None and not (isinstance(max_crashes, int) and max_crashes >= 1):
        raise RegistrationError(f"{function.__name__}: max_crashes is a whole number from 1, not {max_crashes!r}")
    if limit is not None and not isinstance(limit, Limit):
        raise RegistrationError(f"{function.__name__}: limit is a cabrank.Limit, as in Limit(running=4), not {limit!r}")
    if keep_done_s is not None and not (isinstance(keep_done_s, int | float) and 0 < keep_done_s < math.inf):
        raise RegistrationError(f"{function.__name__}: keep_done_s is a number of seconds above 0, not {keep_done_s!r}")


def _check_retry(function: Callable[..., object], retry: Any) -> None:
    if retry is not None and not isinstance(retry, Retry):
        raise RegistrationError(f"{function.__name__}: retry is a cabrank.Retry, as in Retry(attempts=5), not {retry!r}")


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


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling `function` gives a coroutine."""
    if function.__class__ is FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:  # what nearly all are, found quickly
        return True
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isfunction(function) and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 -- its own method, not whether it can be called
