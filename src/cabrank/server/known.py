"""Heads of requests that came before, byte for byte: a client sends the same ones again and again, and they need no second reading.

What a head means depends on nothing but its bytes and on what never changes while a server runs: its paths, its names, its tokens.
So a head that once went the lane goes it again, if all of its bytes are the same and it begins where a request may begin.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cabrank.server.entrances import HotEntrance

Read = tuple[HotEntrance, bytes, bytes]
"""A request that was read: where it goes, its body, its idempotency key."""

AT_HAND = 16 * 1024  # bytes of a body that mostly came together with its headers: to refuse it before it is read would save nothing
HEAD_END = b"\r\n\r\n"
MOST_KNOWN = 1024  # heads; when there are more, all are forgotten: those that are used come again
LONGEST_KNOWN = 1024  # bytes of a head, so that all of them take 1 MiB


class Head(msgspec.Struct, frozen=True, gc=False):
    """A head: its bytes, where it leads, how many bytes of a body follow."""

    data: bytes
    entrance: HotEntrance
    length: int


class KnownHeads:
    """The heads that were read and went the lane."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self.find = self._known.get
        """A head by its bytes, None if it is not known."""

    def take(self, data: bytes, read: list[Read]) -> tuple[Head | None, bytes]:
        """Add the requests with known heads that stand first in what came to those that were read; the last head, and what is left."""
        begins, last = 0, None
        while (head := self.find(data[begins : (at := data.find(HEAD_END, begins) + len(HEAD_END))])) is not None:
            ends = at + head.length
            if len(data) < ends:
                break
            read.append((head.entrance, data[at:ends], b""))
            begins, last = ends, head
        return last, data[begins:]

    def note(self, data: bytes, read: Sequence[Read]) -> None:
        """`data` was read from a fresh beginning to an end, and these requests were read; note the head, if it is that of one alone."""
        if len(read) != 1:
            return
        entrance, body, key = read[0]
        head = data[: len(data) - len(body)]
        if key or len(body) > AT_HAND or len(head) > LONGEST_KNOWN or not data.endswith(body):
            return
        if head.find(HEAD_END) != len(head) - len(HEAD_END):
            return  # more than this request came
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[head] = Head(head, entrance, len(body))
