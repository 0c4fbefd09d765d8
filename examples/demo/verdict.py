"""The comparison of the bucket with the input, object by object."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from examples.demo.bucket import Bucket
from examples.demo.sender import Acknowledged
from examples.telemetry import Document, Payload


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the bucket holds against what was sent. `stored_at` are the moments of all objects, in order."""

    objects: int
    lost: int  # payloads of the input that no object holds
    invented: int  # objects beyond the input: a payload that was never sent, or one that is there twice
    misplaced: int  # objects whose key is not the id that their payload was acknowledged with
    stored_at: list[float]

    @property
    def clean(self) -> bool:
        return self.lost == self.invented == self.misplaced == 0


def compare(payloads: Iterable[Payload], acknowledged: Iterable[Acknowledged], bucket: Bucket) -> Verdict:
    """Read every object back; the input is counted as a multiset, and the ids of each 202 say what lies where."""
    balance = Counter(msgspec.json.encode(payload) for payload in payloads)
    expected = _expected(acknowledged)
    misplaced = 0
    stored_at: list[float] = []
    for entry in bucket.objects():
        content = bucket.read(entry.key)
        balance[content] -= 1
        misplaced += expected.get(entry.key) != content
        stored_at.append(entry.stored_at)
    return Verdict(
        objects=len(stored_at),
        lost=sum(count for count in balance.values() if count > 0),
        invented=-sum(count for count in balance.values() if count < 0),
        misplaced=misplaced,
        stored_at=sorted(stored_at),
    )


def _expected(acknowledged: Iterable[Acknowledged]) -> dict[str, bytes]:
    decoder = msgspec.json.Decoder(Document)
    return {
        id_: msgspec.json.encode(payload)
        for one in acknowledged
        for id_, payload in zip(one.ids, decoder.decode(one.document.body).data, strict=True)
    }
