"""Takes a posted body through the intake: the same for the lane and for ASGI, so both answer alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from cabrank.block import Block, first_id, first_queue, size_of
from cabrank.dispatcher import Dispatcher
from cabrank.drafts import PLAIN, Options, beside_another
from cabrank.errors import CabrankError, DiskFull, KeyReused, QueueFull, SettingError
from cabrank.job import Job, check_key, digest_of
from cabrank.server.entrances import Entrance, HotEntrance, entrances_of
from cabrank.server.forecast import Forecast
from cabrank.server.fullness import ADVICE, Fullness
from cabrank.server.problems import Answer, KeyUnusable
from cabrank.stores.contract import STORED, Admission, Submission, Verdict

ACCEPTED = 202

Answered = Callable[[Answer], None]


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
        self.entrances: Mapping[bytes, HotEntrance] = {path.encode(): entrance for path, entrance in entrances_of(dispatcher)}

    def enter(self, entrance: Entrance, body: bytes, key: bytes, owe: Callable[[], Answered], options: Options = PLAIN) -> Answer | None:
        """Take a body on. The answer, if it is known at once.

        Else `owe` is asked for whom to tell, which is called once, when the jobs are committed or refused; perhaps before this returns.
        """
        if self.turns_away and (refusal := self.refusal(entrance, len(body), key, options)) is not None:
            return self.forecast.answer_to(refusal)
        try:
            if not key and options is PLAIN:
                return self.enter_made(entrance, entrance.made(body), owe)
            jobs = entrance.jobs(body, options)
            submission = _keyed(entrance, jobs, body, key, options) if key else Submission(jobs=jobs)
            return self._enter(entrance, beside_another(submission, options), owe)
        except CabrankError as error:
            return self.forecast.answer_to(error)

    def enter_made(self, entrance: Entrance, made: Any, owe: Callable[[], Answered]) -> Answer | None:
        """As `enter`, for what a body says that was looked at, without a key and options."""
        try:
            jobs = entrance.take(made)
        except CabrankError as error:
            return self.forecast.answer_to(error)
        if isinstance(jobs, range):
            return Answer(ACCEPTED, entrance.accepted(jobs.start, len(jobs)))
        if isinstance(jobs, Block) and jobs:
            return self._enter_block(entrance, jobs, owe)
        return self._enter(entrance, Submission(jobs=jobs), owe)

    def _enter(self, entrance: Entrance, submission: Submission, owe: Callable[[], Answered]) -> Answer | None:
        if not submission.jobs:
            return Answer(ACCEPTED, entrance.accepted(0, 0))
        self.dispatcher.enter(submission, partial(self._tell, owe(), entrance, submission))
        return None

    def _enter_block(self, entrance: Entrance, block: Block, owe: Callable[[], Answered]) -> Answer | None:
        first, count, size, queue = block.first, len(block.items), block.size, block.queue
        if self.dispatcher.plain.take(block):
            return Answer(ACCEPTED, entrance.accepted(first, count))
        answered = owe()

        def tell(outcome: Admission | CabrankError) -> None:
            if outcome is STORED:
                self.forecast.posted[queue] += count
                answered(Answer(ACCEPTED, entrance.accepted(first, count)))
            else:
                answered(self.refused(outcome, "", size if count == 1 else None))

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
    def turns_away(self) -> bool:
        """Whether anything is refused now without a look at it."""
        engine = self._engine
        return engine.closed is not None or bool(engine.shut or self._full.marks)

    def _tell(self, answered: Answered, entrance: Entrance, submission: Submission, outcome: Admission | CabrankError) -> None:
        answered(self._answer(entrance, submission, outcome))

    def _answer(self, entrance: Entrance, submission: Submission, outcome: Admission | CabrankError) -> Answer:
        jobs = submission.jobs
        if isinstance(outcome, CabrankError) or refusal_of(outcome, submission.key) is not None:
            return self.refused(outcome, submission.key, size_of(jobs) if len(jobs) == 1 else None)
        if outcome.verdict is Verdict.STORED:
            self.forecast.posted[first_queue(jobs)] += len(jobs)
            return Answer(ACCEPTED, entrance.accepted(first_id(jobs), len(jobs)))
        return Answer(ACCEPTED, entrance.accepted(outcome.first_id, outcome.count))

    def refused(self, outcome: Admission | CabrankError, key: str, size: int | None) -> Answer:
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
