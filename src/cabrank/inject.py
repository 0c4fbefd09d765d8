"""What a handler gets besides its payload: keyword-only parameters whose default says where they come from."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any, TypeVar, cast, overload

from cabrank.errors import RegistrationError, UsageError

T = TypeVar("T")

NOTE_LIMIT = 200  # characters of a progress note: a line


class JobContext:
    """The run that a handler is in, as its keyword-only parameter `job: JobContext = cabrank.context()` receives it.

    In a batch handler it is the call's: `ids` are those of all items, `id` and `run` are the first one's, `attempt` is the highest of
    theirs and `deadline_at` the earliest.
    """

    __slots__ = ("_report", "attempt", "deadline_at", "handler", "id", "ids", "run")

    def __init__(
        self,
        *,
        id: str,
        handler: str,
        run: int,
        attempt: int,
        deadline_at: float,
        ids: Sequence[str] = (),
        report: Callable[[float, str], None] | None = None,
    ) -> None:
        self.id = id
        """The job's id as text. The same for every run, so it is a good name for what the job makes."""
        self.ids = ids or (id,)
        """The ids of all items of a batch, in their order. Each travels with its item: two runs may be grouped differently."""
        self.handler = handler
        self.run = run
        """Counts every start, from 1: (id, run) tells two runs of one job apart."""
        self.attempt = attempt
        """Counts the tries that `Retry.attempts` limits, from 1."""
        self.deadline_at = deadline_at
        """The moment (seconds since the epoch) after which nobody wants the result; 0 if there is none."""
        self._report = report

    def progress(self, fraction: float, note: str = "") -> None:
        """Say how far the run is: `fraction` of 1, and for people a `note`, of which the first `NOTE_LIMIT` characters are kept.

        The latest is what counts: it is in the store within a quarter of a second, and goes when the run ends. May be called from any
        thread, and as often as you like: 100,000 calls cost a few writes. In a batch handler it is that of all items.

        Raises:
            UsageError: `fraction` is no number from 0 to 1, or `note` is no text.
        """
        _check_progress(fraction, note)
        if self._report is not None:
            self._report(
                float(fraction), note[:NOTE_LIMIT].encode("utf-8", "backslashreplace").decode()
            )  # half a surrogate pair cannot be stored

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names the job in front of each line."""
        return _JobLogger(logging.getLogger(f"cabrank.job.{self.handler}"), {"job": self.id, "run": self.run})


def _check_progress(fraction: Any, note: Any) -> None:
    """Refuse what would fail in the store, far from here; a program need not be type-checked."""
    if not (isinstance(fraction, int | float) and 0 <= fraction <= 1):
        raise UsageError(f"progress is a fraction from 0 to 1, as in progress(0.25), not {fraction!r}")
    if not isinstance(note, str):
        raise UsageError(f"the note of a progress is a text, not {note!r}")


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return f"{(self.extra or {}).get('job')}: {msg}", kwargs


class Marker:
    """A default that stands for something that is put in when a job runs."""


class ContextMarker(Marker):
    """Stands for the run's `JobContext`."""


class ResourceMarker(Marker):
    """Stands for what `opener` opens, once for each dispatcher."""

    def __init__(self, opener: Callable[[], object]) -> None:
        self.opener = opener


def context() -> JobContext:
    """The default of a parameter that receives the `JobContext` of the run."""
    return cast(JobContext, ContextMarker())


@overload
def resource(opener: Callable[[], AbstractAsyncContextManager[T]]) -> T: ...
@overload
def resource(opener: Callable[[], AbstractContextManager[T]]) -> T: ...
@overload
def resource(opener: Callable[[], Awaitable[T]]) -> T: ...
@overload
def resource(opener: Callable[[], T]) -> T: ...
def resource(opener: Callable[[], object]) -> object:
    """The default of a parameter that receives what `opener` opens: once at start, closed at stop, shared by all runs.

    `opener` is a function, a coroutine function, or one that returns a context manager, async or not.
    """
    return ResourceMarker(opener)


def markers(function: Callable[..., object]) -> dict[str, Marker]:
    """The parameters of `function` that are put in, by name.

    Raises:
        RegistrationError: a keyword-only parameter has no default, or a marker stands where a payload goes.
    """
    found: dict[str, Marker] = {}
    for parameter in inspect.signature(function).parameters.values():
        keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if isinstance(parameter.default, Marker):
            if not keyword_only:
                raise RegistrationError(
                    f"{function.__name__}: {parameter.name} is put in, so it must be keyword-only: write it after a `*`"
                )
            found[parameter.name] = parameter.default
        elif keyword_only and parameter.default is parameter.empty:
            raise RegistrationError(
                f"{function.__name__}: nothing says what {parameter.name} is: give it `cabrank.resource(…)` or another default"
            )
    return found


class Resources:
    """The open resources of one dispatcher, each opened once. Closed in reverse order."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._opened: dict[Callable[[], object], object] = {}

    async def open(self, opener: Callable[[], object]) -> object:
        """What `opener` opens; a second call returns the same. The opener's own errors pass."""
        if opener not in self._opened:
            self._opened[opener] = await self._enter(opener())
        return self._opened[opener]

    async def close(self) -> None:
        """Close what was opened, last first."""
        self._opened.clear()
        await self._stack.aclose()

    async def _enter(self, opened: object) -> object:
        if isinstance(opened, AbstractAsyncContextManager):
            return await self._stack.enter_async_context(cast(AbstractAsyncContextManager[object], opened))
        if isinstance(opened, AbstractContextManager):
            return self._stack.enter_context(cast(AbstractContextManager[object], opened))
        if inspect.isawaitable(opened):
            return await opened
        return opened
