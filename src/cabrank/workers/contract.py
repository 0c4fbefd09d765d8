"""What a worker is to the pool, and how a lease becomes a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Protocol, runtime_checkable

import msgspec

from cabrank.batch import Together
from cabrank.block import Block, Leases
from cabrank.errors import ResourceFailed
from cabrank.handler import AnyHandler
from cabrank.inject import ContextMarker, JobContext, ResourceMarker, Resources
from cabrank.job import Lease, text_id
from cabrank.policy import Outcome
from cabrank.settings import Kind
from cabrank.workers.steps import Rounds


class Desk(Protocol):
    """Where a worker that runs through many leases says what came of them: the pool."""

    at_work: int
    """Workers that run a job now."""
    ended: int
    """Runs; those that did not suspend are counted now and then."""
    running_s: float
    slice_s: float
    """How long jobs may run one after another before the event loop has a turn."""
    at_once: int
    """So many jobs, a power of two, are run between two looks at the clock."""
    monotonic: Callable[[], float]
    first_runs: list[int]
    """Where the ids of jobs go whose run returned None; `tell` when there was none."""
    tell: Callable[[], None]
    report: Callable[[Lease, Outcome], None]
    rounds: Rounds

    @property
    def rank(self) -> Collection[object]:
        """The workers that are idle, always the same object."""
        ...

    def after(self, leases: Leases) -> Leases | None:
        """What is next, when `leases` are used up, if it can be run through by the same calls. None: return."""
        ...


class Source(Protocol):
    """Where a worker that may hold leases beyond the one that it runs takes them and says what came of them: the pool."""

    at_work: int
    """Workers that run a job now."""
    ended: int
    """Runs."""
    running_s: float
    holders: set[Holder]
    """Who holds some now."""

    @property
    def monotonic(self) -> Callable[[], float]:
        """The clock."""
        ...

    @property
    def returned(self) -> Callable[[int], None]:
        """Told the id of each job whose first run returned None; `tell` then."""
        ...

    @property
    def tell(self) -> Callable[[], None]:
        """See `returned`."""
        ...

    @property
    def report(self) -> Callable[[Lease, Outcome], None]:
        """Told of all other runs."""
        ...

    def most_held(self) -> int:
        """How many leases a worker may hold now, the one that it runs included."""
        ...

    def next_lease(self, *, first: bool) -> Lease | None:
        """Take the next, for a worker that holds others unless it is its `first`. None: there is none, or not for this worker now."""
        ...

    def put_back(self, leases: Sequence[Lease]) -> None:
        """Let these, which were taken and have not begun, be the next again, in this order."""
        ...


class Place(msgspec.Struct, frozen=True):
    """Where a run stands: its thread by number, 0 for one in another process, and what it is in, outermost call first.

    `asked` is what it was told to end with, None if it was not told to end. `stack` is empty where nothing can be seen from here.
    """

    process: int
    thread: int = 0
    stack: Sequence[str] = ()
    asked: Outcome | None = None


class Worker(Protocol):
    """Runs one job at a time. Whatever the handler does, a run ends in one outcome."""

    suspended: bool
    """Whether the last run gave the event loop a turn. The pool resets it."""
    on_suspend: Callable[[], None]
    """Called when a run is about to give the event loop a turn for the first time. The pool sets it."""

    @property
    def lease(self) -> Lease | None:
        """What it runs now; the same object as long as it does. Set by the pool for `run`."""
        ...

    @lease.setter
    def lease(self, lease: Lease | None) -> None: ...

    @property
    def began_at(self) -> float:
        """When that began, on the monotonic clock. Set by the pool for `run`."""
        ...

    @began_at.setter
    def began_at(self, moment: float) -> None: ...

    def run(self, lease: Lease) -> Awaitable[Outcome]:
        """Run the job. Never raises, but for `KeyboardInterrupt` and a cancel of the worker itself."""
        ...

    def run_through(self, leases: Leases, desk: Desk) -> Awaitable[bool] | None:
        """Take one of `leases` after another and run it, as the pool would with `run`, and tell `desk`.

        It returns when there is none left, the event loop should have a turn, or something has to be settled down; True: the loop has
        had a turn. None: this worker cannot do that with these; `run` them.
        """
        ...

    def interrupt(self, outcome: Outcome, lease: Lease | None = None) -> bool:
        """Ask the running job to stop; if it does, `outcome` is the run's outcome. False: nothing runs, or it was asked before.

        With `lease`, the one that ran when it was last looked at: only if it still does.
        """
        ...

    def place(self, thread: int) -> Place:
        """Where its run stands, for people; `thread` is the event loop's. Cost: nothing until it is called."""
        ...

    async def settle_down(self) -> bool:
        """After a run that suspended: let pass what was meant for it, so that it cannot hit the next job.

        True: the worker had to wait before it can take another.
        """
        ...

    def retire(self) -> None:
        """The pool is closed: wait for nothing any more, and let a cancel that was not asked for end the worker."""
        ...

    def close(self) -> None:
        """The worker takes no more jobs."""
        ...


@runtime_checkable
class Holder(Protocol):
    """A worker that may hold leases beyond the one that it runs."""

    def travel(self, source: Source) -> Awaitable[bool]:
        """Take one lease after another and run it, and tell `source`, until there is none. True: the event loop has had a turn."""
        ...

    def take_back(self) -> None:
        """Put back what has not begun."""
        ...


def nobody_minds() -> None:
    """What `Worker.on_suspend` is until the pool sets it."""


class Spawner(Protocol):
    """Makes the workers. Whatever a worker needs beyond its coroutine, a thread or a process, begins and ends with it."""

    def __call__(self, kind: Kind, calls: Calls, context: Context) -> Worker:
        """A worker of that kind, each of whose runs sees a fresh copy of `context`."""
        ...


class Calls:
    """How a lease becomes a call: the payload decoded, resources and context put in."""

    def __init__(self, handlers: Mapping[str, AnyHandler]) -> None:
        self._handlers = handlers
        self._prefix = ""
        self._fixed: dict[str, dict[str, object]] = {}
        self._contexts: dict[str, tuple[str, ...]] = {}
        self._common: dict[str, Callable[..., Any]] = {}
        self.report: Callable[[Lease, float, str], None] | None = None
        """Where `JobContext.progress` goes."""

    async def open(self, prefix: str, resources: Resources) -> None:
        """Open what the handlers' resources name.

        Raises:
            ResourceFailed: an opener raised.
        """
        self._prefix = prefix
        for name, handler in self._handlers.items():
            self._contexts[name] = tuple(key for key, marker in handler.markers.items() if isinstance(marker, ContextMarker))
            self._fixed[name] = {
                key: await _opened(name, key, marker, resources)
                for key, marker in handler.markers.items()
                if isinstance(marker, ResourceMarker)
            }

    def prepare(self, lease: Lease) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
        """The function, its positional and its keyword arguments.

        Raises:
            PayloadInvalid: the payload does not decode to what the handler takes here.
        """
        job = lease.job
        if job.function is not None:
            return job.function, job.args or (), {}
        handler = self._handlers[job.handler]
        args = handler.codec.decode(job.payload) if job.args is None else job.args
        if not handler.markers:
            return handler.function, args, {}
        keywords = self._fixed[job.handler].copy()
        for key in self._contexts[job.handler]:
            keywords[key] = self._context(lease)
        return handler.function, args, keywords

    def common(self, block: Block) -> Callable[..., Any] | None:
        """What is called for every job of the block, with its item; None if each needs something of its own."""
        if block.bare:
            return block.function or _own
        if self._contexts.get(block.handler):
            return None
        found = self._common.get(block.handler)
        if found is None:
            function, fixed = self._handlers[block.handler].function, self._fixed.get(block.handler)
            found = self._common[block.handler] = partial(function, **fixed) if fixed else function
        return found

    def _context(self, lease: Lease) -> JobContext:
        job = lease.job
        return JobContext(
            id=text_id(self._prefix, job.id),
            handler=job.handler,
            run=lease.run,
            attempt=lease.failures + 1,
            deadline_at=job.deadline_at,
            ids=[text_id(self._prefix, one.job.id) for one in lease.leases] if isinstance(lease, Together) else (),
            report=None if self.report is None else partial(self.report, lease),
        )


def _own(function: Callable[..., Any], args: tuple[object, ...]) -> Any:
    return function(*args)


async def _opened(handler: str, key: str, marker: ResourceMarker, resources: Resources) -> object:
    try:
        return await resources.open(marker.opener)
    except Exception as error:
        raise ResourceFailed(f"handler {handler}: its resource {key} could not be opened: {type(error).__name__}: {error}") from error
