"""New jobs into the file: receipts, bounds, and one insert for all jobs that are alike but for their payloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import attrgetter

import apsw
import msgspec

from cabrank.block import Block, Leases, first_id, joined, needed_by, payloads_of, queues_of, size_of
from cabrank.job import Job, Lease
from cabrank.stores.contract import STORED, Admission, Submission, Terms, Verdict, Want
from cabrank.stores.sqlite import packed, ticks
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.blocks import Blocks
from cabrank.stores.sqlite.counts import Opening
from cabrank.stores.sqlite.lines import Lines
from cabrank.stores.sqlite.names import Names
from cabrank.stores.sqlite.room import Rooms
from cabrank.stores.sqlite.schema import Phase
from cabrank.stores.sqlite.unique import Uniques

_id, _order = attrgetter("id"), attrgetter("queue", "priority")
_shape = attrgetter("queue", "handler", "priority", "due_at", "deadline_at")


FRESH = frozenset({Verdict.STORED, Verdict.UNIQUE})  # what a receipt is written for


class _Receipt(msgspec.Struct, array_like=True, frozen=True):
    key: str
    digest: str
    first_id: int
    jobs: int


class Admitter:
    """Judges and inserts the submissions of one turn."""

    def __init__(
        self,
        connection: apsw.Connection,
        *,
        queues: Names,
        handlers: Names,
        terms: Terms,
        opening: Opening,
        lines: Lines,
        blocks: Blocks,
        now: float,
        space: str,
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._handlers = handlers
        self._settings = terms.settings
        self._known = terms.handlers
        self._limits = bool(terms.limits)
        self._opening = opening
        self._lines = lines
        self._blocks = blocks
        self._now = now
        self._uniques = Uniques(connection, handlers, opening, now)
        self._rooms = Rooms(connection, queues=queues, opening=opening, settings=terms.settings, now=now, space=space)

    def admit(self, new: Sequence[Submission], want: Mapping[str, Want]) -> tuple[list[Admission], list[Lease | Leases]]:
        """The answer to each submission, and leases for those new jobs that can start before any that waits."""
        receipts = self._receipts([submission.key for submission in new if submission.key])
        fresh: list[_Receipt] = []
        full: dict[str, Admission] = {}
        answers: list[Admission] = []
        jobs: list[Sequence[Job]] = []
        marked: list[Job] = []
        self._uniques.look(new)
        for submission in new:
            if self._uniques.pending(submission):  # what came before it in this turn is its conflict
                self._store(jobs, marked, {})
                jobs, marked = [], []
                self._uniques.look([submission])
            before = next((full[queue] for queue in queues_of(submission.jobs) if queue in full), None) if full else None
            answer = self._judge(submission, receipts, before)
            ticks.take(self._connection, submission, answer)
            answers.append(answer)
            if answer.verdict is Verdict.FULL:
                full.setdefault(answer.queue, answer)  # behind one that found no room nobody is let past it
            if answer.verdict is Verdict.STORED:
                jobs.append(submission.jobs)
                if submission.marked:
                    marked.extend(submission.jobs)
            if submission.key and answer.verdict in FRESH:
                fresh.append(receipts[submission.key])
        if fresh:
            self._connection.execute(
                sql.REMEMBER,
                (self._now + self._settings.receipts_s, packed.rows(fresh)),
            )
        return answers, self._store(jobs, marked, want)

    def _store(self, jobs: Sequence[Sequence[Job]], marked: Sequence[Job], want: Mapping[str, Want]) -> list[Lease | Leases]:
        if self._limits:
            jobs = self._stand_in_line(jobs)
        leases = self._insert(jobs, want, single=bool(marked)) if jobs else []
        self._uniques.mark(marked)
        return leases

    def _receipts(self, keys: Sequence[str]) -> dict[str, _Receipt]:
        if not keys:
            return {}
        found = self._connection.execute(sql.RECEIPTS, (packed.rows(keys), self._now)).get
        return {receipt.key: receipt for receipt in msgspec.json.decode(str(found), type=list[_Receipt])}

    def _judge(self, submission: Submission, receipts: dict[str, _Receipt], before: Admission | None) -> Admission:
        if submission.tick is not None and (there := ticks.repeated(self._connection, submission.tick)) is not None:
            return there
        if submission.key:
            receipt = receipts.get(submission.key)
            if receipt is not None:
                same = receipt.digest == submission.digest.hex()
                return Admission(Verdict.REPEATED if same else Verdict.KEY_REUSED, receipt.first_id, receipt.jobs)
        unique = submission.unique
        if unique and (there := self._uniques.conflict(submission)) is not None:
            if submission.key:
                receipts[submission.key] = _Receipt(submission.key, submission.digest.hex(), there.first_id, 1)
            return there
        if before is not None:
            return before
        replaced = self._uniques.replaceable(submission) if unique else None
        brought = needed = needed_by(submission.jobs)
        if replaced is not None:
            needed = {queue: (0, max(0, size - replaced.size)) for queue, (_, size) in brought.items()}
        if (refused := self._rooms.refusal(needed)) is not None:
            return refused
        self._rooms.take(brought)
        if submission.key:
            receipts[submission.key] = _Receipt(submission.key, submission.digest.hex(), first_id(submission.jobs), len(submission.jobs))
        return self._uniques.admit(submission, replaced) if unique else STORED

    def _stand_in_line(self, jobs: Sequence[Sequence[Job]]) -> Sequence[Sequence[Job]]:
        """Insert those that have a limit; what comes back are the others."""
        limited = [job for its in jobs if not isinstance(its, Block) for job in its if job.limit_key is not None]
        if not limited:
            return jobs
        later_at = self._lines.insert(limited, self._now)
        self._opening.aroused = True
        self._opening.lines = self._lines
        if later_at is not None:
            self._opening.due(later_at)
        for job in limited:
            self._opening.queue(self._queues.number(job.queue)).in_line = True
        return [its if isinstance(its, Block) else [job for job in its if job.limit_key is None] for its in jobs]

    def _insert(self, jobs: Sequence[Sequence[Job]], want: Mapping[str, Want], *, single: bool) -> list[Lease | Leases]:
        """Insert jobs. Those that a claim would choose, since nothing ready waits before them, are written as running at once.

        `single`: each must be a row of its own, for more is to be written about some of them.
        """
        leases: list[Lease | Leases] = []
        left = dict(want)
        parts = [(its, its[0]) for its in alike(jobs)]
        orders = {_order(first) for _, first in parts}
        for queue in {queue for queue, _ in orders} if len(orders) > 1 else ():
            if len([order for order in orders if order[0] == queue]) > 1:
                left.pop(queue, None)  # of several priorities the first come may not be the first served: let a claim choose
        for part, first in parts:
            its = left.get(first.queue)
            begun = () if its is None else self._startable(part, first, its)
            if begun and its is not None:
                start, size = len(begun), size_of(begun)
                if single or self._blocks.apart:
                    self._insert_alike(begun, first, running=True)
                    self._blocks.came_apart()
                else:
                    numbers = self._queues.number(first.queue), self._handlers.number(first.handler)
                    self._blocks.insert(begun, first, queue=numbers[0], handler=numbers[1], now=self._now)
                self._rooms.of(first.queue)[0].add(-start, -size)
                leases += [Leases(begun)] if isinstance(begun, Block) else [Lease(job, 1) for job in begun]
                left[first.queue] = Want(its.jobs - start, its.bytes - size, max(0, its.idle - start))
            if len(begun) < len(part):
                rest = part[len(begun) :]
                self._insert_alike(rest, rest[0], running=False)
        return leases

    def _startable(self, jobs: Sequence[Job], first: Job, want: Want) -> Sequence[Job]:
        """Those of these jobs that can start here before any that waits."""
        room = self._rooms.of(first.queue)[0]
        if room.ready or room.in_line or first.due_at > self._now or first.handler not in self._known:
            return ()
        start = min(len(jobs), max(0, want.jobs))
        begun = jobs if start == len(jobs) else jobs[:start]
        while begun and size_of(begun) > want.bytes:
            begun = begun[: len(begun) // 2]
        return begun

    def _insert_alike(self, jobs: Sequence[Job], first: Job, *, running: bool) -> None:
        later = first.due_at > self._now
        phase = Phase.RUNNING if running else Phase.LATER if later else Phase.READY
        queue = self._queues.number(first.queue)
        self._opening.aroused = self._opening.aroused or not running
        if later:
            self._opening.due(first.due_at)
        elif not running:
            self._opening.queue(queue).ready = True
        self._connection.execute(
            sql.INSERT,
            (
                first.id - 1,
                int(phase),
                queue,
                self._handlers.number(first.handler),
                first.priority,
                max(first.due_at, self._now),
                first.deadline_at,
                int(running),
                self._blocks.holder if running else None,
                apsw.carray(tuple(payloads_of(jobs))),
                self._now,
                self._now if running else 0.0,
            ),
        )


def alike(stored: Iterable[Sequence[Job]]) -> Iterator[Sequence[Job]]:
    """Runs of jobs whose ids follow each other and who differ in nothing but the payload."""
    for is_block, its in groupby(stored, key=lambda jobs: isinstance(jobs, Block)):
        if is_block:
            yield from joined(jobs for jobs in its if isinstance(jobs, Block))
            continue
        for _, run in groupby(chain.from_iterable(its), key=_shape):
            its_jobs = list(run)
            ids = list(map(_id, its_jobs))
            if ids == list(range(ids[0], ids[0] + len(ids))):
                yield its_jobs
            else:  # they came out of order: they had to wait for room
                for _, numbered in groupby(enumerate(its_jobs), key=lambda at: at[1].id - at[0]):
                    yield [job for _, job in numbered]
