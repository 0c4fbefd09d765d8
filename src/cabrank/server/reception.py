"""Takes a posted body through the intake: the same for the lane and for ASGI, so both answer alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec

from cabrank.app import Document
from cabrank.block import Block, first_id, first_queue, size_of
from cabrank.dispatcher import Dispatcher
from cabrank.drafts import PLAIN, Drafts, Options, beside_another, check_depth
from cabrank.errors import CabrankError, DiskFull, KeyReused, PayloadTooLarge, QueueFull, RegistrationError, SettingError
from cabrank.events import logger
from cabrank.handler import AnyHandler, Jobs
from cabrank.job import Job, check_key, digest_of
from cabrank.server.forecast import Forecast
from cabrank.server.fullness import ADVICE, Fullness
from cabrank.server.problems import Answer, DocumentFailed, DocumentTooLarge, KeyUnusable
from cabrank.stores.contract import STORED, TURN_BYTES, TURN_ROWS, Admission, Submission, Verdict

ACCEPTED = 202
JOBS_PATH = "/jobs/"
OWN_PATHS = frozenset({"healthz", "readyz", "metrics", "openapi.json", "docs", "queues"})
"""First parts of the paths that the server needs itself, beside `/jobs`."""


Answered = Callable[[Answer], None]


class Entrance(Protocol):
    """One path that takes jobs on: what a body becomes there, and what its 202 says."""

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

    def take(self, body: bytes) -> range | Sequence[Job]:
        """As `jobs` without options. If they find room here and now, they are taken on, and their ids come back."""
        ...

    def accepted(self, first_id: int, count: int) -> bytes:
        """The body of the 202 for `count` ids in a row."""
        ...


class JobEntrance:
    """`POST /jobs/{handler}`: the body is the payload of one job."""

    def __init__(self, handler: AnyHandler, drafts: Drafts, *, prefix: str, limit: int) -> None:
        self.name = handler.name
        self.queue = handler.queue
        self.limit = limit
        self._handler = handler
        self._drafts = drafts
        self._begin = f'{{"id":"{prefix}-'.encode()

    def too_large(self, size: int) -> CabrankError:
        """See `Entrance`."""
        return PayloadTooLarge(size, self.limit)

    def jobs(self, body: bytes, options: Options) -> Sequence[Job]:
        """One job."""
        return (self._drafts.received(self._handler, body, options),)

    def take(self, body: bytes) -> Sequence[Job]:
        """See `Entrance`."""
        return self._drafts.received_plain(self._handler, body)

    def accepted(self, first_id: int, count: int) -> bytes:
        """Its id."""
        del count  # always one
        return b'%b%d"}' % (self._begin, first_id)


class DocumentEntrance:
    """`POST` to a document's path: the user's function makes jobs of it, all of them stored or none."""

    def __init__(self, document: Document, drafts: Drafts, take_each: Callable[[Jobs], int], *, prefix: str) -> None:
        self.name = document.path
        self.queue = ""
        self.limit = TURN_BYTES
        self._document = document
        self._function: Callable[..., object] = document.function  # a user's file need not be type-checked
        self._drafts = drafts
        self._take_each = take_each
        self._begin, self._between = f'{{"ids":["{prefix}-', f'","{prefix}-'

    def too_large(self, size: int) -> CabrankError:
        """See `Entrance`."""
        return DocumentTooLarge(f"the document has {size:,} bytes, the limit is {self.limit:,}: send it in parts")

    def jobs(self, body: bytes, options: Options) -> Sequence[Job]:
        """What the function made, in its order."""
        return self._drafted(self._made(body), options)

    def take(self, body: bytes) -> range | Sequence[Job]:
        """See `Entrance`."""
        made = self._made(body)
        first = self._take_each(made)
        return range(first, first + len(made)) if first else self._drafted(made, PLAIN)

    def _made(self, body: bytes) -> Jobs:
        args = self._document.codec.decode(body)
        if not self._document.codec.bounded:
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

    def _drafted(self, made: Jobs, options: Options) -> Sequence[Job]:
        try:
            return self._drafts.together(made, options)
        except RegistrationError as error:
            logger.error("the function of document route %s made jobs of another app: %s", self.name, error)
            raise DocumentFailed from error

    def accepted(self, first_id: int, count: int) -> bytes:
        """All ids, in the order of the jobs."""
        if count == 1:
            return f'{self._begin}{first_id}"]}}'.encode()
        if not count:
            return b'{"ids":[]}'
        return f'{self._begin}{self._between.join(map(str, range(first_id, first_id + count)))}"]}}'.encode()


class Reception:
    """All entrances of one open dispatcher. Built when the store's prefix is known."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Build the entrances.

        Raises:
            RegistrationError: a document has a path that the server needs.
        """
        self.dispatcher = dispatcher
        self.forecast = Forecast(dispatcher)
        self._engine = dispatcher.engine
        self._full = Fullness(self.forecast, dispatcher.clock)
        self.entrances: Mapping[bytes, Entrance] = {path.encode(): entrance for path, entrance in _entrances(dispatcher)}

    def enter(self, entrance: Entrance, body: bytes, key: bytes, owe: Callable[[], Answered], options: Options = PLAIN) -> Answer | None:
        """Take a body on. The answer, if it is known at once.

        Else `owe` is asked for whom to tell, which is called once, when the jobs are committed or refused; perhaps before this returns.
        """
        if self._turns_away and (refusal := self.refusal(entrance, len(body), key, options)) is not None:
            return self.forecast.answer_to(refusal)
        try:
            jobs = entrance.jobs(body, options) if key or options is not PLAIN else entrance.take(body)
            if isinstance(jobs, range):
                return Answer(ACCEPTED, entrance.accepted(jobs.start, len(jobs)))
            if not jobs:
                return Answer(ACCEPTED, entrance.accepted(0, 0))
            if isinstance(jobs, Block) and not key:
                return self._enter_block(entrance, jobs, owe)
            submission = _keyed(entrance, jobs, body, key, options) if key else Submission(jobs=jobs)
            submission = beside_another(submission, options)
        except CabrankError as error:
            return self.forecast.answer_to(error)
        self.dispatcher.enter(submission, partial(self._tell, owe(), entrance, submission))
        return None

    def _enter_block(self, entrance: Entrance, block: Block, owe: Callable[[], Answered]) -> Answer | None:
        first, count, size, queue, posted = block.first, len(block.items), block.size, block.queue, self.forecast.posted
        if self.dispatcher.plain.take(block):
            return Answer(ACCEPTED, entrance.accepted(first, count))
        answered = owe()

        def tell(outcome: Admission | CabrankError) -> None:
            if outcome is STORED:
                posted[queue] += count
                answered(Answer(ACCEPTED, entrance.accepted(first, count)))
            else:
                answered(self._refused(outcome, "", size if count == 1 else None))

        self.dispatcher.plain.enter(block, tell)
        return None

    def refusal(self, entrance: Entrance, size: int, key: bytes, options: Options = PLAIN) -> CabrankError | None:
        """Why a body of so many bytes is not taken on, if that is known without a look at it."""
        engine, queue = self._engine, entrance.queue
        if engine.closed is not None:
            return engine.closed
        if queue in engine.shut:
            return engine.shut[queue]
        if key or options.unique is not None:  # its jobs may be there already
            return None
        return self._full.refusal(queue, size)

    @property
    def _turns_away(self) -> bool:
        engine = self._engine
        return engine.closed is not None or bool(engine.shut or self._full.marks)

    def _tell(self, answered: Answered, entrance: Entrance, submission: Submission, outcome: Admission | CabrankError) -> None:
        answered(self._answer(entrance, submission, outcome))

    def _answer(self, entrance: Entrance, submission: Submission, outcome: Admission | CabrankError) -> Answer:
        jobs = submission.jobs
        if isinstance(outcome, CabrankError) or refusal_of(outcome, submission.key) is not None:
            return self._refused(outcome, submission.key, size_of(jobs) if len(jobs) == 1 else None)
        if outcome.verdict is Verdict.STORED:
            self.forecast.posted[first_queue(jobs)] += len(jobs)
            return Answer(ACCEPTED, entrance.accepted(first_id(jobs), len(jobs)))
        return Answer(ACCEPTED, entrance.accepted(outcome.first_id, outcome.count))

    def _refused(self, outcome: Admission | CabrankError, key: str, size: int | None) -> Answer:
        """What is said of what was not stored. `size`: of one job alone."""
        if isinstance(outcome, CabrankError):
            return self.forecast.answer_to(outcome)
        if outcome.verdict is Verdict.FULL and size is not None:
            self._full.note(outcome.queue, size=size, bound=outcome.bound)
        refusal = refusal_of(outcome, key)
        assert refusal is not None  # noqa: S101 -- for the type checker
        return self.forecast.answer_to(refusal)


def refusal_of(admission: Admission, key: str) -> CabrankError | None:
    """Why a submission was not stored, None if it was."""
    match admission.verdict:
        case Verdict.STORED | Verdict.REPEATED | Verdict.UNIQUE:
            return None
        case Verdict.KEY_REUSED:
            return KeyReused(key)
        case Verdict.FULL:
            return QueueFull(admission.queue, admission.bound, ADVICE)
        case Verdict.NO_SPACE:
            return DiskFull(admission.bound)


def _entrances(dispatcher: Dispatcher) -> list[tuple[str, Entrance]]:
    app, drafts, prefix, each = dispatcher.app, dispatcher.drafts, dispatcher.engine.handles.prefix, dispatcher.plain.take_each
    if taken := [path for path in app.documents if path.split("/")[1] in OWN_PATHS]:
        raise RegistrationError(f"document path {', '.join(taken)} is the server's own: give it another")
    limit = dispatcher.settings.payload_limit
    return [
        *((JOBS_PATH + name, JobEntrance(handler, drafts, prefix=prefix, limit=limit)) for name, handler in app.handlers.items()),
        *((path, DocumentEntrance(document, drafts, each, prefix=prefix)) for path, document in app.documents.items()),
    ]


def _keyed(entrance: Entrance, jobs: Sequence[Job], body: bytes, key: bytes, options: Options) -> Submission:
    return Submission(jobs=jobs, key=checked_key(key.decode("latin-1")), digest=digest_of(digested_name(entrance.name, options), body))


def digested_name(name: str, options: Options) -> str:
    """Where a body was sent and how, for its digest: the same body with other options is another request."""
    if options is PLAIN:
        return name
    return f"{name}?{'&'.join(f'{name}={value}' for name, value in msgspec.structs.asdict(options).items() if value is not None)}"


def checked_key(key: str) -> str:
    """The key, if it can be one.

    Raises:
        KeyUnusable: it cannot.
    """
    try:
        check_key(key)
    except SettingError as error:
        raise KeyUnusable(str(error)) from None
    return key
