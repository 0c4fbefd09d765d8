"""The comparison of the bucket with the input, object by object."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from examples.demo.bucket import Bucket, RemoteBucket, StoredObject
from examples.demo.sender import Acknowledged
from examples.telemetry import Document, Line, Payload


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the bucket holds against what was sent. `stored_at` are the moments of all objects, in order."""

    objects: int
    payloads: int  # by id: what is in two packed objects counts once
    lost: int  # payloads of the input that no object holds
    invented: int  # payloads beyond the input: one that was never sent, or one that is there under two ids
    misplaced: int  # payloads that are there under another id than they were acknowledged with
    twice: int = 0  # payloads that are in two packed objects, under the same id: their first run was killed
    stored_at: list[float]

    @property
    def clean(self) -> bool:
        return self.lost == self.invented == self.misplaced == 0


def compare(payloads: Iterable[Payload], acknowledged: Iterable[Acknowledged], bucket: Bucket | RemoteBucket) -> Verdict:
    """Read every object back; the input is counted as a multiset, and the ids of each 202 say what is where."""
    balance = Counter(msgspec.json.encode(payload) for payload in payloads)
    expected = _expected(acknowledged)
    misplaced = twice = 0
    seen: set[str] = set()
    stored_at: list[float] = []
    for entry in bucket.objects():
        stored_at.append(entry.stored_at)
        for id_, content in _contents(entry):
            misplaced += expected.get(id_) != content
            if id_ in seen:
                twice += 1
                continue
            seen.add(id_)
            balance[content] -= 1
    return Verdict(
        objects=len(stored_at),
        payloads=len(seen),
        twice=twice,
        lost=sum(count for count in balance.values() if count > 0),
        invented=-sum(count for count in balance.values() if count < 0),
        misplaced=misplaced,
        stored_at=sorted(stored_at),
    )


def _contents(entry: StoredObject) -> Iterable[tuple[str, bytes]]:
    """The payloads of an object, each with its id."""
    if not entry.key.endswith(".ndjson"):
        return [(entry.key, entry.body)]
    lines = msgspec.json.Decoder(Line).decode_lines(entry.body)
    return [(line.id, msgspec.json.encode(line.payload)) for line in lines]


def _expected(acknowledged: Iterable[Acknowledged]) -> dict[str, bytes]:
    decoder = msgspec.json.Decoder(Document)
    return {
        id_: msgspec.json.encode(payload)
        for one in acknowledged
        for id_, payload in zip(one.ids, decoder.decode(one.document.body).data, strict=True)
    }
