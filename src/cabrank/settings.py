"""Every setting with its default and the reason for it. Keywords go before `CABRANK_…` variables, those before a TOML file."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import msgspec

from cabrank import config as toml
from cabrank.errors import SettingError

T = TypeVar("T")
V = TypeVar("V", int, float)

KIB, MIB, GIB = 1024, 1024**2, 1024**3


class Kind(StrEnum):
    """How a worker runs a job."""

    ASYNC = "async"
    THREAD = "thread"
    PROCESS = "process"


class Overflow(StrEnum):
    """What a full queue does with a new job."""

    WAIT = "wait"
    """`submit` waits for room, `try_submit` and HTTP are refused."""
    REFUSE = "refuse"
    """It is refused, for whoever submits: `submit` raises `QueueFull` too."""
    DROP_OLDEST = "drop_oldest"
    """It is taken on, and what has waited longest is dropped."""
    DROP_LOWEST = "drop_lowest"
    """It is taken on, and what would be served last is dropped: the lowest priority, of that the one that came last."""

    @property
    def drops(self) -> bool:
        """Whether jobs that were taken on are dropped for it."""
        return self in {Overflow.DROP_OLDEST, Overflow.DROP_LOWEST}


class Bound(msgspec.Struct, frozen=True):
    """How much may wait: a number of jobs, their payloads' bytes, and for how long the oldest may have been ready (seconds)."""

    jobs: int
    bytes: int
    age_s: float = math.inf

    @property
    def is_timed(self) -> bool:
        """Whether age counts."""
        return self.age_s < math.inf

    def refusal(self, jobs: int, size: int, more: int, more_size: int) -> str:
        """Why `more` jobs with `more_size` bytes find no room beside those that wait, in words; empty if they do."""
        if jobs + more > self.jobs:
            return f"{jobs:,} of {self.jobs:,} jobs wait"
        return f"{size:,} of {self.bytes:,} bytes wait" if size + more_size > self.bytes else ""

    def too_old(self, now: float, ready_at: float | None) -> str:
        """Why nothing finds room behind a job that has been ready since `ready_at`, in words; empty if it does."""
        age_s = 0.0 if ready_at is None else now - ready_at
        return f"its oldest job has waited for {age_s:.1f} s, the bound is {self.age_s:g} s" if age_s > self.age_s else ""


MEMORY_BOUND = Bound(10_000, 64 * MIB)  # a backlog in memory is lost with the process, so it is kept short
STORE_BOUND = Bound(10_000_000, 8 * GIB)  # a backlog on disk is safe; this much drains in minutes


class Durability(StrEnum):
    """What an acknowledgement survives, where a store has the choice."""

    DISK = "disk"
    """It comes after the fsync: `kill -9` and power loss."""
    PROCESS = "process"
    """It comes after the write: `kill -9`, but the last moments before a power loss may be gone."""


class Start(StrEnum):
    """How a worker process comes to be."""

    FORKSERVER = "forkserver"
    """Forked from a process of one thread that has imported the program."""
    SPAWN = "spawn"
    """A new interpreter, which imports the program itself."""


MORE_THAN_NOTHING = (  # settings that are None or above 0
    "aging_s",
    "max_store",
    "max_store_bytes",
    "max_store_age_s",
    "process_memory",
    "recycle_jobs",
    "recycle_age_s",
    "recycle_memory",
)
PerQueue = int | Mapping[str, int] | None
PerQueueS = float | Mapping[str, float] | None
PerQueueOverflow = Overflow | Mapping[str, Overflow]
Workers = int | tuple[int, int]  # one number, or the least and the most of a pool that sizes itself
PerPool = Workers | Mapping[str, Workers] | None


def _why(reason: str) -> msgspec.Meta:
    return msgspec.Meta(description=reason)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set, in seconds, bytes and counts."""

    store: Annotated[str, _why("where jobs are kept: memory://, sqlite:///relative.db, sqlite:////absolute.db")] = "memory://"
    max_workers: Annotated[
        PerPool,
        _why("workers: one number for each queue, or by name: uploads=200,thread=4; 4-64 sizes itself, with 0 others run the jobs"),
    ] = None
    target_wait_s: Annotated[float, _why("a pool that sizes itself grows until 95 of 100 jobs start within this time")] = 1.0
    max_queue: Annotated[PerQueue, _why("jobs that may wait in a queue; default 10,000 in memory, 10 million in a store")] = None
    max_queue_bytes: Annotated[
        PerQueue, _why("bytes of the payloads that may wait in a queue; default 64 MiB in memory, 8 GiB in a store")
    ] = None
    max_queue_age_s: Annotated[
        PerQueueS,
        _why("a queue is full too when its oldest ready job has waited so long: who comes would wait longer; never by default"),
    ] = None
    max_store: Annotated[int | None, _why("jobs that may wait in all queues together; no bound by default, each queue has its own")] = None
    max_store_bytes: Annotated[int | None, _why("bytes that may wait in all queues together; no bound by default")] = None
    max_store_age_s: Annotated[float | None, _why("the same as max_queue_age_s over all queues together; never by default")] = None
    min_free: Annotated[
        int, _why("bytes that must be free on the store's disk, else no new jobs are taken on: what runs can still be recorded then")
    ] = GIB
    durability: Annotated[
        Durability,
        _why("what an acknowledgement by a file survives: disk, a power loss too; process, kill -9 only, at a hundredth of the wait"),
    ] = Durability.DISK
    aging_s: Annotated[
        float | None,
        _why("a job goes before those of a priority one better that got ready so much later; by default priorities alone count"),
    ] = None
    overflow: Annotated[
        PerQueueOverflow,
        _why("what a full queue does: wait, refuse, drop_oldest or drop_lowest, or by name: feed=drop_oldest; wait loses nothing"),
    ] = Overflow.WAIT
    lease_s: Annotated[float, _why("a process that is silent for so long has lost its jobs; three renewals must fail")] = 30.0
    renew_s: Annotated[float, _why("a third of the lease: two renewals may fail")] = 10.0
    sweep_s: Annotated[float, _why("how often the jobs of dead processes are looked for; costs one short turn")] = 5.0
    grace_s: Annotated[float, _why("how long running jobs may finish at a stop; below the 30 s after which supervisors kill")] = 25.0
    loop_block_s: Annotated[
        float, _why("a handler that blocks the event loop for so long is named in the log: the others wait as long; 0 looks at nothing")
    ] = 0.25
    max_loop_block_s: Annotated[
        float,
        _why(
            "an event loop that is blocked for so long settles nothing: its leases are not renewed, and others run its jobs;"
            " long, for each of those jobs counts a crash"
        ),
    ] = 300.0
    log_limit: Annotated[
        int,
        _why("bytes of a file's log of changes above which it is said who reads for so long that it grows; four times what is usual"),
    ] = 64 * MIB
    switch_s: Annotated[
        float,
        _why(
            "after so long Python's threads hand over the interpreter while a file is open, or sooner where that is set already:"
            " at Python's own 0.005 a busy event loop starves the thread that writes; 0 leaves it alone"
        ),
    ] = 0.0002
    reserve_s: Annotated[
        float, _why("jobs that will start within this time are claimed ahead, so that short jobs never wait for a turn")
    ] = 0.05
    process_start: Annotated[
        Start,
        _why(
            "forkserver: forked in about 2 ms from a process that has imported the program; spawn on macOS, whose libraries dislike forks"
        ),
    ] = Start.SPAWN if sys.platform == "darwin" else Start.FORKSERVER
    process_memory: Annotated[
        int | None, _why("bytes of address space of a worker process: a job that wants more gets MemoryError; no bound by default")
    ] = None
    recycle_jobs: Annotated[int | None, _why("a worker process is replaced after so many jobs: for code that leaks; never by default")] = (
        None
    )
    recycle_age_s: Annotated[float | None, _why("a worker process is replaced when it is so old; never by default")] = None
    recycle_memory: Annotated[
        int | None, _why("a worker process is replaced when it holds so many bytes after a job; never by default")
    ] = None
    payload_limit: Annotated[int, _why("bytes of one payload; larger things belong into object storage")] = MIB
    result_limit: Annotated[int, _why("bytes of one result, for the same reason")] = MIB
    error_limit: Annotated[int, _why("characters kept of an error: a traceback fits")] = 16 * KIB
    max_crashes: Annotated[int, _why("a job whose process died this often under it is given up; an operator's kill costs it one")] = 3
    receipts_s: Annotated[float, _why("how long an idempotency key is remembered: a day covers a client's own retries")] = 86_400.0
    receipts: Annotated[int, _why("how many keys are remembered; the oldest go first")] = 1_000_000
    keep_done_s: Annotated[float, _why("how long a finished job can still be asked for")] = 3_600.0
    keep_done_jobs: Annotated[int, _why("at most so many finished jobs: a few MiB")] = 100_000
    keep_done_bytes: Annotated[int, _why("at most so many bytes of results")] = 64 * MIB
    keep_dead_s: Annotated[float, _why("how long dead and cancelled jobs wait for a person: a month of holidays")] = 30 * 86_400.0
    host: Annotated[str, _why("the address that is served; anything but loopback needs a token: CABRANK_TOKEN or token_file")] = "127.0.0.1"
    port: Annotated[int, _why("the port that is served")] = 8470
    token_file: Annotated[str, _why("a file with tokens, one a line, any of which admits; nobody but its owner may read it")] = ""
    hosts: Annotated[str, _why("names by which the server may be called, beside localhost and addresses: jobs.example,jobs; * is any")] = ""
    connections: Annotated[int, _why("connections in all; each costs some 20 KB, and the process needs files for other things too")] = 4096
    connections_per_address: Annotated[int, _why("connections of one address, loopback excepted: one cannot take all")] = 256

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("lease_s", "renew_s", "sweep_s", "keep_done_s", "keep_dead_s", "receipts_s", "target_wait_s", "max_loop_block_s"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} must be more than 0 seconds, not {getattr(self, name)}")
        if min(self.grace_s, self.reserve_s, self.loop_block_s, self.switch_s) < 0:
            raise SettingError("grace_s, reserve_s, loop_block_s and switch_s must not be negative")
        if self.renew_s * 2 > self.lease_s:
            raise SettingError(
                f"renew_s ({self.renew_s:g}) must be at most half of lease_s ({self.lease_s:g}), or one late renewal loses jobs"
            )
        for name in (
            "payload_limit",
            "result_limit",
            "error_limit",
            "max_crashes",
            "receipts",
            "log_limit",
            "keep_done_jobs",
            "keep_done_bytes",
            "connections",
            "connections_per_address",
        ):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, least in (("max_queue", 1), ("max_queue_bytes", 1), ("max_queue_age_s", 0)):
            _check_each(name, getattr(self, name), least=least)
        workers = self.max_workers
        for each in workers.values() if isinstance(workers, Mapping) else () if workers is None else (workers,):
            check_workers("max_workers", each or 1)  # with 0 others run the jobs
        if self.min_free < 0:
            raise SettingError(f"min_free must not be negative, but {self.min_free}; 0 looks at no disk")
        for name in MORE_THAN_NOTHING:
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise SettingError(f"{name} must be more than 0, not {getattr(self, name)}; leave it out for no bound")

    def but(self, **given: Any) -> Settings:
        """These settings, but for those that are given.

        Raises:
            SettingError: a value that cannot be used.
        """
        hints = get_type_hints(Settings)
        return msgspec.structs.replace(self, **{name: _parsed(name, value, hints[name]) for name, value in given.items()})

    def workers_of(self, queue: str, kind: Kind, cores: int) -> Workers:
        """How many workers serve `queue` on a machine with `cores` cores."""
        if isinstance(self.max_workers, int | tuple):
            return self.max_workers
        by_kind = {Kind.ASYNC: 100, Kind.THREAD: min(32, cores + 4), Kind.PROCESS: cores}  # as asyncio's and the library's own pools
        return (self.max_workers or {}).get(queue, by_kind[kind])

    def overflow_of(self, queue: str) -> Overflow:
        """What `queue` does when it is full."""
        return self.overflow if isinstance(self.overflow, Overflow) else self.overflow.get(queue, Overflow.WAIT)

    def room_of(self, queue: str, default: Bound) -> Bound:
        """The bound within which a new job must find room: by age alone where others are dropped for it."""
        bound = self.bound_of(queue, default)
        return Bound(sys.maxsize, sys.maxsize, bound.age_s) if self.overflow_of(queue).drops else bound

    def bound_of(self, queue: str, default: Bound) -> Bound:
        """How much may wait in `queue`, where the store's own default is `default`."""
        return Bound(
            _of(self.max_queue, queue, default.jobs),
            _of(self.max_queue_bytes, queue, default.bytes),
            _of(self.max_queue_age_s, queue, default.age_s),
        )

    @property
    def bounds_all(self) -> bool:
        """Whether there is a bound for all queues together."""
        return self.max_store is not None or self.max_store_bytes is not None or self.max_store_age_s is not None

    @property
    def bound_of_all(self) -> Bound:
        """How much may wait in all queues together."""
        jobs, size, age_s = self.max_store, self.max_store_bytes, self.max_store_age_s
        most = sys.maxsize
        return Bound(most if jobs is None else jobs, most if size is None else size, math.inf if age_s is None else age_s)

    def most_at_once(self, queue: str, default: Bound) -> Bound:
        """How many jobs for `queue` can be admitted together at the best of times."""
        bound, all_ = self.bound_of(queue, default), self.bound_of_all
        return Bound(min(bound.jobs, all_.jobs), min(bound.bytes, all_.bytes))


def _check_each(name: str, values: float | Mapping[str, float] | None, *, least: float) -> None:
    for value in values.values() if isinstance(values, Mapping) else () if values is None else (values,):
        if not value >= least:
            raise SettingError(f"{name} must be at least {least:g}, not {value}")


def _of(values: V | Mapping[str, V] | None, queue: str, default: V) -> V:
    """What is said for a queue."""
    if isinstance(values, Mapping):
        return values.get(queue, default)
    return default if values is None else values


def check_workers(name: str, workers: Workers) -> None:
    """Refuse a number of workers, or a range of it, that cannot be.

    Raises:
        SettingError: fewer than 1, or a most that is below the least.
    """
    least, most = workers if isinstance(workers, tuple) else (workers, workers)
    if least < 1:
        raise SettingError(f"{name} must be at least 1, not {least}: pause a queue to let none of its jobs start")
    if most < least:
        raise SettingError(f"{name} is the least and the most, as in 4-64, not {least}-{most}")


class Source(msgspec.Struct, frozen=True):
    """A setting that somebody made: its value and where it stands, as in `CABRANK_GRACE_S` or `cabrank.toml:3`."""

    value: Any
    place: str


def load(environ: Mapping[str, str], /, *, config: str | None = None, otherwise: Mapping[str, Any] | None = None, **given: Any) -> Settings:
    """The settings: what is `given` and not None, else a variable, else the TOML file, else `otherwise`, else the default.

    A variable is `CABRANK_<NAME>` in `environ`. `config` names the file, else `CABRANK_CONFIG` does, else there is none.

    Raises:
        SettingError: a value that cannot be used, or a name that is no setting; the message says where it stands.
    """
    made = sources(environ, config=config, **given)
    return Settings(**{**(otherwise or {}), **{name: source.value for name, source in made.items()}})


def sources(environ: Mapping[str, str], /, *, config: str | None = None, **given: Any) -> Mapping[str, Source]:
    """The settings that are not left to their defaults, by name, each with where it was made. As `load` finds them."""
    hints = get_type_hints(Settings)
    path = config or environ.get(toml.VARIABLE)
    file: Mapping[str, toml.Entry] = toml.read(path) if path else {}
    for name, entry in file.items():
        _check_known(name, hints, f"{entry.place}: ")
    for name in given:
        _check_known(name, hints)
    found: dict[str, Source] = {}
    for name, hint in hints.items():
        variable = f"CABRANK_{name.upper()}"
        if given.get(name) is not None:
            found[name] = Source(_parsed(name, given[name], hint), name)
        elif variable in environ:
            found[name] = Source(_parsed(variable, environ[variable], hint), variable)
        elif name in file:
            found[name] = Source(_parsed(name, file[name].value, hint, f"{file[name].place}: "), file[name].place)
    return found


def _check_known(name: str, known: Mapping[str, Any], where: str = "") -> None:
    if name not in known:
        close = get_close_matches(name, known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise SettingError(f"{where}no setting named {name}; {advice}")


def _parsed(name: str, value: Any, hint: Any, where: str = "") -> Any:
    if hint in _OF_A_QUEUE and isinstance(value, str):
        return _per_queue(f"{where}{name}", value, *_OF_A_QUEUE[hint])
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError as error:
        raise SettingError(f"{where}{name}={value!r}: {error}") from None


def _workers(text: str) -> Workers:
    """Parse `8` or `4-64`."""
    least, dash, most = text.partition("-")
    return (int(least), int(most)) if dash else int(text)


def _per_queue(name: str, text: str, one: Callable[[str], T], usage: str) -> T | dict[str, T]:
    """Parse `8` or `uploads=200,thread=4`."""
    try:
        if "=" not in text:
            return one(text)
        pairs = (part.split("=", 1) for part in text.split(",") if part.strip())
        return {queue.strip(): one(value.strip()) for queue, value in pairs}
    except ValueError:
        raise SettingError(f"{name}={text!r}: give {usage}") from None


_NUMBERS = "a number, or numbers by queue as in uploads=200,thread=4"
_OF_A_QUEUE: Mapping[Any, tuple[Callable[[str], Any], str]] = {  # how what may be given by queue is read
    PerQueue: (int, _NUMBERS),
    PerQueueS: (float, _NUMBERS),
    PerPool: (_workers, _NUMBERS),
    PerQueueOverflow: (Overflow, f"one of {', '.join(Overflow)}, or by queue as in feed=drop_oldest"),
}


def reasons() -> dict[str, str]:
    """Why each default is what it is, by the setting's name."""
    hints = get_type_hints(Settings, include_extras=True)
    return {name: get_args(hint)[1].description for name, hint in hints.items()}
