"""Everything that cabrank raises, under one root.

CabrankError
├── UsageError                  the program is wrong; retrying does not help
│   ├── RegistrationError       a handler, a document route or a queue was declared wrongly
│   ├── SettingError            a setting has a value that cannot be used
│   ├── UnknownHandler          no handler of that name in this app
│   ├── WrongAnswer             a batch handler returned what says nothing of its items
│   ├── NotEntered              used before `async with` was entered
│   ├── UsedAfterFork           used in a forked child
│   └── WaitsForItself          a job waits for a job that only its own pool could run, and all of that wait
├── PayloadInvalid              the payload is not what the handler takes
│   ├── PayloadMalformed        … it is not even JSON
│   └── PayloadTooLarge         … it is larger than the limit
├── Refused                     nothing was stored
│   ├── NeverFits               more jobs together than the queue's whole bound
│   ├── QueueFull               the queue has reached its bound
│   ├── DiskFull                the store's disk has too little space for new jobs
│   ├── KeyReused               the idempotency key came with another body before
│   ├── UniqueTaken             another unfinished job has the unique key of the one that was to be reopened
│   └── IntakeClosed            no new work is taken: stopping or stopped
│       └── QueueDrained        … for one queue, until it is resumed
├── StoreError
│   ├── StoreUnavailable        the store did not answer; what it did is unknown
│   └── StoreUnusable           the store cannot be opened as it is
├── ResourceFailed              what a handler's `cabrank.resource(…)` opens could not be opened
├── DispatcherFailed            something inside failed and everything was stopped
├── WorkerLost                  the worker process died under the job
└── Unsuccessful                what `JobHandle.result()` raises when there is no result
    ├── JobFailed               given up, with the handler's error
    ├── JobCancelled
    ├── JobExpired
    ├── JobHeld                 its payload does not decode here; it waits for a fix
    ├── ResultGone              it ended, but its result is not kept any more
    └── UnknownJob              no job of that id, or gone
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One fault of a payload. `pointer` is a JSON Pointer (RFC 6901) into it, empty for the whole of it."""

    pointer: str
    reason: str


class CabrankError(Exception):
    """The root: `except CabrankError` catches whatever cabrank itself raises."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n")[0])


class UsageError(CabrankError):
    """The program uses cabrank wrongly. Calling again does not help."""


class RegistrationError(UsageError):
    """A handler, a document route or a queue was declared in a way that cannot work."""


class SettingError(UsageError):
    """A setting has a value that cannot be used; the message names the setting and what it takes."""


class UnknownHandler(UsageError):
    """No handler of that name is registered in this app."""

    def __init__(self, name: str, known: tuple[str, ...] = ()) -> None:
        listed = f"; it has {', '.join(known)}" if known else ""
        super().__init__(f"no handler named {name!r} in this app{listed}")
        self.name = name


class WrongAnswer(UsageError):
    """A batch handler returned neither None nor a list with one `None` or `Failure` for each item, so all its items have failed."""


class NotEntered(UsageError):
    """Used before it was entered: use `async with`."""


class UsedAfterFork(UsageError):
    """A dispatcher, an intake or a store that was opened before a fork was used in the child: open it there.

    Gunicorn calls `post_fork(server, worker)` of its configuration in each worker, uWSGI what is marked `@uwsgidecorators.postfork`;
    an ASGI lifespan runs in each worker by itself.
    """

    def __init__(self, why: str = "it was opened before a fork and cannot be used in the child") -> None:
        super().__init__(
            f"{why}: open it only there, in the server's hook (gunicorn: post_fork in its configuration; uWSGI: @uwsgidecorators.postfork; "
            f"ASGI: the lifespan), or start the server without --preload (uWSGI: with --lazy-apps or "
            f"--py-call-uwsgi-fork-hooks)"
        )


class WaitsForItself(UsageError):
    """A job waits for the result of a job that only its own pool could run, and every worker of that pool waits like this.

    Without this error they would wait for ever. Give the jobs that are waited for a queue of their own.
    """


class PayloadInvalid(CabrankError):
    """The payload is not of the type that the handler takes. Nothing was stored; sending it again does not help.

    `faults` are the places in it that are wrong, the first of them at least, where they are known.
    """

    def __init__(self, message: str | None = None, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class PayloadMalformed(PayloadInvalid):
    """The payload is not valid JSON. Nothing was stored."""


class PayloadTooLarge(PayloadInvalid):
    """The payload is larger than the limit. Nothing was stored."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the payload has {size:,} bytes, the limit is {limit:,}: store it elsewhere and submit where it lies")
        self.size = size
        self.limit = limit


class Refused(CabrankError):
    """Nothing was stored."""


class QueueFull(Refused):
    """The queue has reached its bound. Nothing was stored; sending again later helps."""

    def __init__(self, queue: str, bound: str, advice: str = "try again later, or use `submit`, which waits for room") -> None:
        super().__init__(f"queue {queue!r} is full ({bound}): {advice}")
        self.queue = queue
        self.bound = bound


class DiskFull(Refused):
    """The disk of the store has too little space for new jobs. Nothing was stored; sending again when there is space helps.

    What runs is still recorded, as long as the disk has any space at all.
    """

    def __init__(self, shortage: str) -> None:
        super().__init__(f"no new jobs are taken on: {shortage}; make space and send it again")
        self.shortage = shortage


class NeverFits(Refused):
    """The jobs that were to be stored together are more than the queue's bound. Nothing was stored; send them in parts."""


class KeyReused(Refused):
    """The idempotency key was used before with another body. Nothing was stored; use a new key for new work."""

    def __init__(self, key: str) -> None:
        super().__init__(f"idempotency key {key!r} was used before with another body: use a new key for new work")
        self.key = key


class UniqueTaken(Refused):
    """Another unfinished job has the unique key of the job that was to be reopened. Nothing was changed."""

    def __init__(self, id: str, unique: str, other: str) -> None:
        super().__init__(
            f"job {id} cannot be reopened: job {other} has its unique key {unique!r} and is unfinished: cancel that one, or wait for it"
        )
        self.id = id
        self.unique = unique
        self.other = other


class IntakeClosed(Refused):
    """No new work is taken here any more: it is stopping or has stopped. Nothing was stored."""


class QueueDrained(IntakeClosed):
    """The queue is drained: no new work is taken for it here until it is resumed. Nothing was stored."""

    def __init__(self, queue: str) -> None:
        super().__init__(f"queue {queue!r} is drained: it takes no new work until it is resumed")
        self.queue = queue


class StoreError(CabrankError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store did not answer. Whether anything was stored is unknown: send it again with the same idempotency key."""


class StoreUnusable(StoreError):
    """The store cannot be opened as it is; the message says what is wrong with it and what to do."""


class ResourceFailed(CabrankError):
    """What a handler's `cabrank.resource(…)` opens could not be opened. `__cause__` is what its opener raised."""


class DispatcherFailed(CabrankError):
    """Something inside the dispatcher failed, so it stopped everything. `__cause__` is what failed; open a new one."""


class WorkerLost(CabrankError):
    """The worker process died under the job.

    `exit_code` is what it ended with, below 0 the signal that killed it; `stdout` and `stderr` the end of what it printed since
    the job began.
    """

    def __init__(self, pid: int, exit_code: int, *, stdout: str = "", stderr: str = "") -> None:
        printed = "".join(f"\n--- the end of its {name}\n{text}" for name, text in (("stdout", stdout), ("stderr", stderr)) if text)
        super().__init__(f"the worker process {pid} {_ending(exit_code)} while it ran the job{printed}")
        self.pid = pid
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


class Unsuccessful(CabrankError):
    """The job has no result."""


class JobFailed(Unsuccessful):
    """The job was given up.

    `reason` is one word (`failed`, `gave_up`, `timed_out`, `worker_lost`, `unrecordable`), `trace` the handler's last error as
    text. `__cause__` is the handler's own exception when it was raised in this process.
    """

    def __init__(self, id: str, reason: str, trace: str) -> None:
        last_line = trace.strip().rsplit("\n", 1)[-1]
        super().__init__(f"job {id} is dead ({reason}): {last_line}" if last_line else f"job {id} is dead ({reason})")
        self.id = id
        self.reason = reason
        self.trace = trace


class JobCancelled(Unsuccessful):
    """The job was cancelled before it returned."""


class JobExpired(Unsuccessful):
    """The job's deadline passed before it ran, or an overflow policy dropped it."""


class JobHeld(Unsuccessful):
    """The job's payload does not decode to what its handler takes now. It is kept and can be reopened after a fix."""


class ResultGone(Unsuccessful):
    """The job ended, but its result is not kept any more.

    Raise `keep_done_s`, of the handler or the setting, or keep the handle that `submit` returned.
    """


class UnknownJob(Unsuccessful):
    """No job of that id is known: it never was, or it is no longer kept."""
