"""`POST /jobs/{handler}/batch`: many payloads of one handler, stored in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cabrank.drafts import PLAIN, Drafts, Options
from cabrank.errors import CabrankError, Fault, PayloadInvalid, PayloadMalformed
from cabrank.faults import MOST
from cabrank.handler import AnyHandler
from cabrank.job import Job
from cabrank.server.problems import DocumentTooLarge
from cabrank.server.views import Batched
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS

LINES_MEDIA = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")


class Batch:
    """One request. All its jobs are stored or none; if it is `partial`, those that are good. See `Entrance`.

    `lines`: the body has one payload a line, else it is one JSON array.
    """

    def __init__(self, handler: AnyHandler, drafts: Drafts, *, prefix: str, lines: bool, partial: bool) -> None:
        self.name = f"{handler.name}/batch{'/partial' if partial else ''}"
        self.queue = handler.queue
        self.limit = TURN_BYTES
        self._handler = handler
        self._drafts = drafts
        self._prefix = prefix
        self._lines = lines
        self._partial = partial
        self._stored: list[bool] = []
        self._faults: list[Fault] = []

    def too_large(self, size: int) -> CabrankError:
        """See `Entrance`."""
        return DocumentTooLarge(f"the batch has {size:,} bytes, the limit is {self.limit:,}: send it in parts, or to …/stream")

    def jobs(self, body: bytes, options: Options) -> Sequence[Job]:
        """One job for each payload that is good."""
        payloads = self.payloads(body)
        examined = self._drafts.examined(self._handler, payloads)
        self.check(examined)
        good = [(payload, each) for payload, each in zip(payloads, examined, strict=True) if not isinstance(each, PayloadInvalid)]
        return self._drafts.arrived(self._handler, good, options)

    def made(self, body: bytes) -> Sequence[Job]:
        """Its jobs."""
        return self.jobs(body, PLAIN)

    def take(self, made: Sequence[Job]) -> Sequence[Job]:
        """See `Entrance`."""
        return made

    def payloads(self, body: bytes) -> list[bytes]:
        """The payloads, each as it came."""
        payloads = payloads_by_line(body) if self._lines else payloads_of_array(body)
        if len(payloads) > TURN_ROWS:
            raise DocumentTooLarge(f"the batch has {len(payloads):,} jobs, the limit is {TURN_ROWS:,}: send it in parts, or to …/stream")
        return payloads

    def check(self, examined: Sequence[object]) -> None:
        """Note for the answer what is wrong with payloads.

        Raises:
            PayloadInvalid: some are bad, and that is not allowed, or all are.
        """
        self._stored = [not isinstance(each, PayloadInvalid) for each in examined]
        self._faults = [
            fault
            for place, each in enumerate(examined)
            if isinstance(each, PayloadInvalid)
            for fault in faults_at(f"/{place}", each)[:MOST]
        ]
        bad = self._stored.count(False)
        if bad and not (self._partial and bad < len(examined)):
            raise PayloadInvalid(f"{bad:,} of {len(examined):,} payloads are not what {self._handler.name} takes", self._faults[:MOST])

    def accepted(self, first_id: int, count: int) -> bytes:
        """All ids in the order of the payloads, null for those that are not stored."""
        numbers = iter(range(first_id, first_id + count))
        ids = [f"{self._prefix}-{next(numbers)}" if stored else None for stored in self._stored]
        return msgspec.json.encode(Batched(ids=ids, errors=self._faults))


def payloads_of_array(body: bytes) -> list[bytes]:
    """The items of a JSON array, each as it came.

    Raises:
        PayloadMalformed, PayloadInvalid: it is none.
    """
    try:
        return [bytes(item) for item in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except msgspec.ValidationError as error:
        raise PayloadInvalid(f"a batch is a JSON array, or one payload a line as application/x-ndjson: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PayloadMalformed(f"not valid JSON: {error}") from None


def payloads_by_line(body: bytes) -> list[bytes]:
    """The lines, but for empty ones."""
    return [line for line in map(bytes.strip, body.split(b"\n")) if line]


def faults_at(pointer: str, error: PayloadInvalid) -> list[Fault]:
    """The faults of a payload that is part of something larger, where it stands at `pointer`."""
    return [Fault(pointer + fault.pointer, fault.reason) for fault in error.faults] or [Fault(pointer, str(error))]
