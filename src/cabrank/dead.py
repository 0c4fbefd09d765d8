"""A job that was given up, as it is told, and the hooks that are told of it. No I/O: `dead_hooks` calls them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from cabrank.errors import RegistrationError
from cabrank.job import FailedRun


class DeadJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was given up: what an on-dead hook gets.

    `args` are what its handler took, None if they do not decode any more; `payload` is their JSON. `reason` is `failed` (its attempts
    are used up, or the error is not retried), `gave_up` (its handler raised `GiveUp`), `timed_out`, `unrecordable` (what it returned
    cannot be kept) or `worker_lost` (its processes died `max_crashes` times). `error` is the last traceback or a sentence; `exception`
    the exception itself, where the run was in this process or told by one of its worker processes. `run`, `failures` and `crashes`
    count the last run in. `failed_runs` are those that are kept, oldest first; only the last if the store could not be asked.
    """

    id: str
    handler: str
    queue: str
    args: tuple[object, ...] | None
    payload: bytes
    tags: Sequence[str]
    reason: str
    error: str
    exception: BaseException | None
    run: int
    failures: int
    crashes: int
    failed_runs: Sequence[FailedRun]


Hook = Callable[[DeadJob], Awaitable[object] | None]
H = TypeVar("H", bound=Hook)


class OnDead:
    """The hooks of a handler or an app. As a decorator it adds one: `@upload.on_dead`, `@app.on_dead`."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []

    def __call__(self, hook: H) -> H:
        """Call `hook` with the `DeadJob` when a job was given up: a coroutine function in the event loop, another one in a thread.

        It is called after that was recorded, at most once, in the process that recorded it; see `docs/how-to/hear-of-dead-jobs.md`.

        Raises:
            RegistrationError: it cannot be called with one argument.
        """
        try:
            inspect.signature(hook).bind(None)
        except (TypeError, ValueError):
            raise RegistrationError(f"{hook!r} cannot be called with a dead job: write `def hook(job: cabrank.DeadJob)`") from None
        self.hooks.append(hook)
        return hook
