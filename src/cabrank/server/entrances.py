"""The paths that take jobs on: what a body becomes there, and what the 202 says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cabrank.app import Document
from cabrank.block import Block
from cabrank.dispatcher import Dispatcher
from cabrank.drafts import PLAIN, Arrival, Drafts, Options, check_depth
from cabrank.errors import CabrankError, PayloadInvalid, PayloadTooLarge, RegistrationError
from cabrank.events import logger
from cabrank.handler import AnyHandler, Jobs
from cabrank.job import Job
from cabrank.server.problems import DocumentFailed, DocumentTooLarge
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS

JOBS_PATH = "/jobs/"
OWN_PATHS = frozenset({"healthz", "readyz", "metrics", "openapi.json", "docs", "queues"})
"""First parts of the paths that the server needs itself, beside `/jobs`."""


class Entrance(Protocol):
    """One path that takes jobs on."""

    @property
    def name(self) -> str:
        """What tells its bodies from another entrance's, for idempotency keys."""
        ...

    @property
    def limit(self) -> int:
        """Bytes of a body."""
        ...

    @property
    def queue(self) -> str:
        """The queue of its jobs; empty if only a body can tell."""
        ...

    def too_large(self, size: int) -> CabrankError:
        """What is said of a body of `size` bytes, which is over the limit."""
        ...

    def jobs(self, body: bytes, options: Options) -> Sequence[Job]:
        """The jobs of a body that is within the limit. What it raises is a `CabrankError`, and then nothing was stored."""
        ...

    def made(self, body: bytes) -> Any:
        """What a body that is within the limit says, for `take`. What it raises is a `CabrankError`."""
        ...

    def take(self, made: Any) -> range | Sequence[Job]:
        """Its jobs, without options. If they find room here and now, they are taken on, and their ids come back. May raise as `jobs`."""
        ...

    def accepted(self, first_id: int, count: int) -> bytes:
        """The body of the 202 for `count` ids in a row."""
        ...


class HotEntrance(Entrance, Protocol):
    """One that the lane leads to."""

    def together(self, made: Sequence[Any]) -> tuple[range | Block, Sequence[int]] | None:
        """As `take`, for what several bodies say; and how many jobs each makes. None: they cannot go as one, and none was taken on."""
        ...

    def pattern(self, count: int) -> bytes:
        """The body of the 202 for so many ids, with `%d` where each of their numbers stands."""
        ...


class JobEntrance:
    """`POST /jobs/{handler}`: the body is the payload of one job."""

    def __init__(self, handler: AnyHandler, drafts: Drafts, *, prefix: str, limit: int) -> None:
        self.name = handler.name
        self.queue = handler.queue
        self.limit = limit
        self._handler = handler
        self._drafts = drafts
        self._pattern = f'{{"id":"{prefix}-%d"}}'.encode()

    def too_large(self, size: int) -> CabrankError:
        """See `Entrance`."""
        return PayloadTooLarge(size, self.limit)

    def jobs(self, body: bytes, options: Options) -> Sequence[Job]:
        """One job."""
        return (self._drafts.received(self._handler, body, options),)

    def made(self, body: bytes) -> Arrival:
        """What is stored, and the arguments that it stands for."""
        return self._drafts.read(self._handler, body)

    def take(self, made: Arrival) -> Sequence[Job]:
        """See `Entrance`."""
        return self._drafts.received_plain(self._handler, (made,))

    def together(self, made: Sequence[Arrival]) -> tuple[Block, Sequence[int]] | None:
        """See `HotEntrance`."""
        if self._handler.limit is not None:
            return None
        jobs = self._drafts.received_plain(self._handler, made)
        return (jobs, [1] * len(made)) if isinstance(jobs, Block) else None

    def accepted(self, first_id: int, count: int) -> bytes:
        """Its id."""
        del count  # always one
        return self._pattern % first_id

    def pattern(self, count: int) -> bytes:
        """See `HotEntrance`."""
        del count
        return self._pattern


class DocumentEntrance:
    """`POST` to a document's path: the user's function makes jobs of it, all of them stored or none."""

    def __init__(self, document: Document, drafts: Drafts, take_each: Callable[[Jobs], int], *, prefix: str) -> None:
        self.name = document.path
        self.queue = ""
        self.limit = TURN_BYTES
        self._codec = document.codec
        self._function: Callable[..., object] = document.function  # a user's file need not be type-checked
        self._drafts = drafts
        self._take_each = take_each
        self._id = f'"{prefix}-%d"'

    def too_large(self, size: int) -> CabrankError:
        """See `Entrance`."""
        return DocumentTooLarge(f"the document has {size:,} bytes, the limit is {self.limit:,}: send it in parts")

    def jobs(self, body: bytes, options: Options) -> Sequence[Job]:
        """What the function made, in its order."""
        return self._drafted(self.made(body), options)

    def made(self, body: bytes) -> Jobs:
        """What the function makes of it."""
        codec = self._codec
        args = codec.decode(body)
        if not codec.bounded:
            check_depth(body)
        try:
            made = self._function(*args)
        except CabrankError:
            raise
        except Exception as error:  # the function is the user's
            logger.exception("the function of document route %s raised", self.name)
            raise DocumentFailed from error
        if not isinstance(made, Jobs):
            logger.error("the function of document route %s returned %r, not cabrank.Jobs", self.name, type(made))
            raise DocumentFailed
        if len(made) > TURN_ROWS:
            raise DocumentTooLarge(f"the document makes {len(made):,} jobs, the limit is {TURN_ROWS:,}: send it in parts")
        return made

    def take(self, made: Jobs) -> range | Sequence[Job]:
        """See `Entrance`."""
        first = self._take_each(made)
        return range(first, first + len(made)) if first else self._drafted(made, PLAIN)

    def together(self, made: Sequence[Jobs]) -> tuple[range | Block, Sequence[int]] | None:
        """See `HotEntrance`."""
        items: list[object] = []
        counts: list[int] = []
        handler: AnyHandler | None = None
        for jobs in made:
            parts = jobs.parts
            if len(parts) != 1 or not parts[0][1]:
                return None
            its, more = parts[0]
            if its is not handler:
                if handler is not None:
                    return None
                handler = its
            items += more
            counts.append(len(more))
        if handler is None or len(items) > TURN_ROWS:
            return None
        joined = Jobs(((handler, items),))
        if first := self._take_each(joined):
            return range(first, first + len(items)), counts
        if handler.limit is not None:
            return None
        try:
            drafted = self._drafts.together(joined)
        except (PayloadInvalid, RegistrationError):
            return None  # and there it is said
        return (drafted, counts) if isinstance(drafted, Block) else None

    def _drafted(self, made: Jobs, options: Options) -> Sequence[Job]:
        try:
            return self._drafts.together(made, options)
        except RegistrationError as error:
            logger.error("the function of document route %s made jobs of another app: %s", self.name, error)
            raise DocumentFailed from error

    def accepted(self, first_id: int, count: int) -> bytes:
        """All ids, in the order of the jobs."""
        return self.pattern(count) % (*range(first_id, first_id + count),)

    def pattern(self, count: int) -> bytes:
        """See `HotEntrance`."""
        return f'{{"ids":[{",".join([self._id] * count)}]}}'.encode()


def entrances_of(dispatcher: Dispatcher) -> list[tuple[str, HotEntrance]]:
    """The paths of an open dispatcher, each with where it leads.

    Raises:
        RegistrationError: a document has a path that the server needs.
    """
    app, drafts, prefix, each = dispatcher.app, dispatcher.drafts, dispatcher.engine.handles.prefix, dispatcher.plain.take_each
    if taken := [path for path in app.documents if path.split("/")[1] in OWN_PATHS]:
        raise RegistrationError(f"document path {', '.join(taken)} is the server's own: give it another")
    limit = dispatcher.settings.payload_limit
    return [
        *((JOBS_PATH + name, JobEntrance(handler, drafts, prefix=prefix, limit=limit)) for name, handler in app.handlers.items()),
        *((path, DocumentEntrance(document, drafts, each, prefix=prefix)) for path, document in app.documents.items()),
    ]
