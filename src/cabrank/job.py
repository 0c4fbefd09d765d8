"""The records that travel: a job, the lease to run it, the settlement of a run. None of them ever changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from random import Random

import msgspec

from cabrank.errors import SettingError, UnknownJob
from cabrank.states import Cause, State

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
NAME = re.compile(NAME_PATTERN)  # handlers, queues, tags: what may stand in a URL, a file name and a metric's label
PRIORITIES = range(10)
LIMIT_KEY_LIMIT = 256  # characters of a limit's key: it names a customer or a host, and is indexed
TAGS = 16  # of one job: they are read by people
KEY_LIMIT = 256  # characters of an idempotency key: a UUID has 36, and every key is kept for a day
FAILED_RUNS = 10  # failed runs of a job whose errors are kept: the first, which is often another than the rest, and the last
LOST = "WorkerLost"  # the type of error of a run whose process died
BARE = "callable"  # the handler name of jobs whose callable no app registered; they never leave the process
LAST_PRIORITY = PRIORITIES[-1]
DEFAULT_PRIORITY = 5  # 0 goes first, 9 last: room on both sides

_TEXT_ID = re.compile(r"^([a-z2-7]{8})-([1-9][0-9]{0,18})$")


class Conflict(StrEnum):
    """What becomes of a job whose `unique` key another unfinished job of its handler has."""

    SKIP = "skip"
    """The one that is there is what the submitter gets; if nothing else is said, whether it waits, runs or is held."""
    DEBOUNCE = "debounce"
    """The one that waits is due when the new one would be; beside one that runs, the new one is stored."""
    REPLACE = "replace"
    """The one that waits is cancelled and the new one stored; beside one that runs, it is stored."""


UNIQUE_OVER = (State.WAITING, State.RUNNING, State.HELD, State.DEAD)  # where a job can stand in another one's way: it is still there


class Job(msgspec.Struct, frozen=True, gc=False):
    """One call to make: of `handler`, with what `payload` says. Made by whoever submits it.

    `id` grows with the moment of submission within a process. `payload` is JSON. `due_at` and `deadline_at` are moments (0:
    at once, no deadline). `tags` are for people; `unique` is a key that at most one waiting job of the handler has. `limit_key`
    names the allowance that it shares with others where its handler has a limit, else it is None. `args` is the payload as it was
    decoded in this process, `function` a callable that has no handler; both stay in the process: a store that is not in memory
    does not keep them.
    """

    id: int
    handler: str
    queue: str
    payload: bytes
    args: tuple[object, ...] | None = None
    function: Callable[..., object] | None = None
    priority: int = DEFAULT_PRIORITY
    due_at: float = 0.0
    deadline_at: float = 0.0
    tags: tuple[str, ...] = ()
    unique: str = ""
    limit_key: str | None = None


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to execute one run of a job.

    (`job.id`, `run`) is the fence: a settlement counts only while this run is the job's running one. `failures` and `crashes`
    are those of earlier runs.
    """

    job: Job
    run: int
    failures: int = 0
    crashes: int = 0


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What is recorded because of a run's outcome.

    `after_s` is how long a job that goes back waits (seconds, judged by the store's clock). `error` is a traceback or a sentence,
    `error_type` the name of what was raised. `result` is JSON, or None for a handler that returned None. `value` is the result,
    `failure` the exception, as this process has them. `handler` is the job's, where that is known. `lease` is that of a job which was given
    up, if a hook is to be told.
    """

    id: int
    run: int
    cause: Cause
    after_s: float = 0.0
    reason: str = ""
    error: str = ""
    result: bytes | None = None
    value: object = None
    failure: BaseException | None = None
    error_type: str = ""
    handler: str = ""
    lease: Lease | None = None


class FailedRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run that raised, timed out, or whose process died: at which moment, with which error.

    `error_type` is the name of what was raised, `TimedOut`, or `WorkerLost` for a process that died; `error` a traceback or a sentence.
    `started_at` is when it was leased, 0 if that was not kept.
    """

    run: int
    at: float
    error_type: str
    error: str
    started_at: float = 0.0

    @property
    def crashed(self) -> bool:
        """Whether its process died."""
        return self.error_type == LOST


class Progress(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far a run is, as its handler said last: `fraction` of 1, and a `note` for people. `at` is the moment when it was said."""

    id: int
    run: int
    at: float
    fraction: float
    note: str = ""


def parted(settlements: Sequence[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
    """Those of runs that returned, which are nearly all, and the others."""
    returned = [settlement for settlement in settlements if settlement.cause is Cause.RETURNED]
    if len(returned) == len(settlements):
        return returned, []
    return returned, [settlement for settlement in settlements if settlement.cause is not Cause.RETURNED]


def failures_kept(failed: Sequence[FailedRun]) -> tuple[FailedRun, ...]:
    """Those that are kept of a job's failed runs: the first and the last, `FAILED_RUNS` in all."""
    return tuple(failed) if len(failed) <= FAILED_RUNS else (failed[0], *failed[1 - FAILED_RUNS :])


def digest_of(name: str, body: bytes) -> bytes:
    """What a receipt remembers of a request: 16 bytes that tell its body and where it was sent from any other."""
    return hashlib.blake2b(body, digest_size=16, key=hashlib.blake2b(name.encode(), digest_size=32).digest()).digest()


def check_key(key: str, what: str = "an idempotency key") -> None:
    """Refuse what cannot be a key.

    Raises:
        SettingError: it is not 1 to 256 printable ASCII characters.
    """
    if not (0 < len(key) <= KEY_LIMIT and key.isascii() and key.isprintable()):
        raise SettingError(f"{what} is 1 to {KEY_LIMIT} printable ASCII characters, not {key[:64]!r}")


def check_unique_over(states: Sequence[str], unique: str | None) -> None:
    """Refuse states over which a key cannot be unique.

    Raises:
        SettingError: waiting is not among them, or a state in which a job is gone; or there is no unique key.
    """
    if unique is None:
        raise SettingError("unique_over is for jobs with a unique key: give unique too")
    if isinstance(states, str) or State.WAITING not in states or not set(states) <= set(UNIQUE_OVER):
        raise SettingError(f"unique_over is several of {', '.join(UNIQUE_OVER)}, and waiting is among them, not {states!r}")


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags as a job keeps them, each once.

    Raises:
        SettingError: they are too many, or one is no name.
    """
    if isinstance(tags, str):
        raise SettingError(f"tags are several names, not one text: give ({tags!r},)")
    once = tuple(dict.fromkeys(tags))
    if len(once) > TAGS:
        raise SettingError(f"a job has at most {TAGS} tags, not {len(once)}")
    for tag in once:
        if not NAME.fullmatch(tag):
            raise SettingError(
                f"a tag is up to 128 letters, digits, dots, dashes and underscores, a letter or digit first, not {tag[:64]!r}"
            )
    return once


def new_prefix(rng: Random) -> str:
    """The random part of the text ids of a store that is made just now."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(8))


def text_id(prefix: str, number: int) -> str:
    """A job's id as people and programs see it: `k7x2m9q4-1042`. `prefix` is the store's own, so ids of two stores never meet."""
    return f"{prefix}-{number}"


def unknown_job(id: str) -> UnknownJob:
    """That nothing is known of a job."""
    return UnknownJob(f"job {id} is not known: it never was, or it ended and is no longer kept")


def number_of(prefix: str, id: str) -> int:
    """The number in a text id of the store whose prefix is given.

    Raises:
        UnknownJob: not an id, or one of another store.
    """
    match = _TEXT_ID.fullmatch(id)  # `match` would let a line end through
    if match is None:
        raise UnknownJob(f"{id[:64]!r} is not a job id: ids look like {prefix}-1042")
    if match[1] != prefix:
        raise UnknownJob(f"job {id} belongs to another store: this one's ids begin with {prefix}-")
    return int(match[2])
