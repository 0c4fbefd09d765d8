"""With `?wrapped=true` each item of a batch or a stream is `{"payload": …}`, with the options of its own job beside it.

A job with a unique key may turn out to be there already, so it is stored by itself: what comes between two of them goes together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec

from cabrank.app import CALLER_OPTIONS
from cabrank.dispatcher import Dispatcher
from cabrank.drafts import PLAIN, Drafts, Options, beside_another
from cabrank.errors import CabrankError, DiskFull, Fault, KeyReused, PayloadInvalid, PayloadMalformed, QueueFull, SettingError
from cabrank.faults import fault_of
from cabrank.handler import AnyHandler
from cabrank.job import KEY_LIMIT, Conflict, Job, check_tags, digest_of
from cabrank.server.batch import Batch, faults_at
from cabrank.server.parameters import moment_of
from cabrank.server.problems import ParameterUnusable
from cabrank.server.reception import digested_name, refusal_of
from cabrank.server.views import Batched
from cabrank.stores.contract import Admission, Submission, Verdict

SOME = (QueueFull, DiskFull, KeyReused)  # what may be said of some jobs of a batch; anything else is of all
WHEN = frozenset({"delay_s", "due_at"})  # who says one of them for a job means it instead of what is said for all


class ItemOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of one job; they go before those that are said for all."""

    delay_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    due_at: float | datetime | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    deadline_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    tags: list[str] | None = None
    unique: Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_LIMIT)] | None = None
    on_conflict: Conflict | None = None
    unique_over: list[str] | None = None


class Wrapped(ItemOptions, frozen=True, forbid_unknown_fields=True):
    """The same with its payload."""

    payload: msgspec.Raw = msgspec.Raw(b"")


class Item(msgspec.Struct, frozen=True, gc=False):
    """A payload that was found good, what it stands for, and the options of its job."""

    payload: bytes
    args: tuple[object, ...]
    options: Options


class Unwrapping:
    """What the items of one request are looked at with. `common` are the options of all, `allowed` those that an item may have."""

    def __init__(self, handler: AnyHandler, drafts: Drafts, *, common: Options, allowed: Collection[str]) -> None:
        self._handler = handler
        self._drafts = drafts
        self._common = {name: value for name, value in msgspec.structs.asdict(common).items() if value not in {None, ()}}
        self._allowed = allowed
        self._decoder = msgspec.json.Decoder(Wrapped)

    def examined(self, items: Sequence[bytes]) -> list[Item | PayloadInvalid]:
        """Each item, or what is wrong with it."""
        return [self._examined(item) for item in items]

    def jobs(self, items: Sequence[Item]) -> list[Job]:
        """Their jobs, the ids in a row."""
        arrivals = [(item.payload, item.args) for item in items]
        return self._drafts.arrived_each(self._handler, arrivals, [item.options for item in items])

    def _examined(self, item: bytes) -> Item | PayloadInvalid:
        try:
            wrapped = self._decoder.decode(item)
        except msgspec.ValidationError as error:
            fault = fault_of(str(error))
            return PayloadInvalid(f'an item is {{"payload": …}} with its options: {error}', [fault])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return PayloadMalformed(f"not valid JSON: {error}")
        payload = bytes(wrapped.payload)
        [args] = self._drafts.examined(self._handler, [payload])
        if isinstance(args, PayloadInvalid):
            return type(args)(str(args), faults_at("/payload", args)) if type(args) is PayloadInvalid else args
        try:
            return Item(payload, args, self._options(wrapped))
        except (SettingError, ParameterUnusable) as error:
            return PayloadInvalid(str(error))

    def _options(self, wrapped: Wrapped) -> Options:
        own: dict[str, Any] = {name: value for name in CALLER_OPTIONS if (value := getattr(wrapped, name)) is not None}
        for name in own.keys() - set(self._allowed):
            raise ParameterUnusable(f"this app does not let callers set {name}; they may set {', '.join(self._allowed) or 'nothing'}")
        if isinstance(wrapped.due_at, datetime):
            own["due_at"] = moment_of(wrapped.due_at)
        if wrapped.tags is not None:
            own["tags"] = check_tags(wrapped.tags)
        if not (own or self._common):
            return PLAIN
        common = {name: value for name, value in self._common.items() if not (name in WHEN and own.keys() & WHEN)}
        return Options(**(common | own))


def parts_of(jobs: Sequence[Job], items: Sequence[Item]) -> Iterator[tuple[int, Submission]]:
    """What is stored together, with the place of its first job: a job with a unique key alone, what comes between two of them together."""
    first = 0
    for place, job in enumerate(jobs):
        if not job.unique:
            continue
        if first < place:
            yield first, Submission(jobs=jobs[first:place], mixed=True)
        yield place, beside_another(Submission(jobs=(job,)), items[place].options)
        first = place + 1
    if first < len(jobs):
        yield first, Submission(jobs=jobs[first:], mixed=True)


def keyed(part: Submission, key: str, place: int, digest: bytes) -> Submission:
    """A part of a request that is repeatable: each part has a receipt. No key that a client can send has a line end in it."""
    return msgspec.structs.replace(part, key=f"{key}\n{place}", digest=digest)


def ids_of(part: Submission, admission: Admission) -> list[int]:
    """The ids that the jobs of a part have in the end."""
    first = part.jobs[0].id if admission.verdict is Verdict.STORED else admission.first_id
    return list(range(first, first + len(part.jobs)))


async def outcomes_of(dispatcher: Dispatcher, parts: Sequence[Submission], *, patient: bool) -> list[Admission | CabrankError]:
    """Take parts to the store, all at once and in their order; what became of each."""

    def note(outcome: asyncio.Future[Admission | CabrankError], said: Admission | CabrankError) -> None:
        if not outcome.done():
            outcome.set_result(said)

    outcomes: list[asyncio.Future[Admission | CabrankError]] = []
    for part in parts:
        outcome: asyncio.Future[Admission | CabrankError] = asyncio.get_running_loop().create_future()
        outcomes.append(outcome)
        dispatcher.enter(part, partial(note, outcome), patient=patient)
    return list(await asyncio.gather(*outcomes))


class WrappedBatch(Batch):
    """A batch of items that bring their own options. If some have a unique key it has to be partial, and is stored in parts."""

    def __init__(self, handler: AnyHandler, drafts: Drafts, *, prefix: str, lines: bool, partial: bool, unwrapping: Unwrapping) -> None:
        super().__init__(handler, drafts, prefix=prefix, lines=lines, partial=partial)
        self.name = f"{handler.name}/batch{'/partial' if partial else ''}/wrapped"
        self.queue = ""  # a full one is no reason yet: jobs with unique keys may be there already
        self._unwrapping = unwrapping

    def parts(self, body: bytes, key: str, options: Options) -> list[Submission]:
        """What is stored together; if no job has a unique key, all of it.

        Raises:
            CabrankError: nothing of it can be taken on.
        """
        examined = self._unwrapping.examined(self.payloads(body))
        self.check(examined if self._partial else [_without_unique(each) for each in examined])
        items = [each for each in examined if isinstance(each, Item)]
        placed = list(parts_of(self._unwrapping.jobs(items), items))
        if not key:
            return [part for _, part in placed]
        digest = digest_of(digested_name(self.name, options), body)
        return [keyed(part, key, place, digest) for place, part in placed]

    def told(self, parts: Sequence[Submission], outcomes: Sequence[Admission | CabrankError]) -> bytes:
        """The body of the 202.

        Raises:
            CabrankError: nothing was stored, or it is unknown what was.
        """
        ids: list[str | None] = []
        refused: list[CabrankError | None] = []
        for part, outcome in zip(parts, outcomes, strict=True):
            refusal = outcome if isinstance(outcome, CabrankError) else refusal_of(outcome, part.key.partition("\n")[0])
            if refusal is not None and not isinstance(refusal, SOME):
                raise refusal
            numbers = [None] * len(part.jobs) if isinstance(outcome, CabrankError) or refusal else ids_of(part, outcome)
            ids += [None if number is None else f"{self._prefix}-{number}" for number in numbers]
            refused += [refusal] * len(part.jobs)
        first = next((refusal for refusal in refused if refusal is not None), None)
        if first is not None and not any(ids):
            raise first
        left = zip(ids, refused, strict=True)
        told = [next(left) if stored else (None, None) for stored in self._stored]
        faults = [Fault(f"/{place}", str(refusal)) for place, (_, refusal) in enumerate(told) if refusal is not None]
        return msgspec.json.encode(Batched(ids=[id for id, _ in told], errors=[*self._faults, *faults]))


def _without_unique(each: Item | PayloadInvalid) -> Item | PayloadInvalid:
    if isinstance(each, PayloadInvalid) or each.options.unique is None:
        return each
    why = "a job with a unique key is stored by itself, not with all others or not at all: send the batch with ?partial=true"
    return PayloadInvalid(why, [Fault("/unique", why)])
