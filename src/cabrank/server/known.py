"""Heads of requests that came before, byte for byte: a client sends the same ones again and again, and they need no second reading.

What a head means depends on nothing but its bytes and on what never changes while a server runs: its paths, its names, its tokens.
So a head that once went the lane goes it again, if all of its bytes are the same and it begins where a request may begin.
"""

from __future__ import annotations

from cabrank.server.reception import Entrance

HEAD_END = b"\r\n\r\n"
MOST_KNOWN = 1024  # heads; when there are more, all are forgotten: those that are used come again
LONGEST_KNOWN = 1024  # bytes of a head, so that all of them take 1 MiB


class KnownHeads:
    """The heads that were read and went the lane: each with its entrance, and how many bytes of a body follow it."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Entrance, int]] = {}
        self.find = self._known.get
        """Where a head leads, None if it is not known."""

    def note(self, request: bytes, entrance: Entrance, body: bytes) -> None:
        """`request` was read from a fresh beginning and was one request with `body`, for `entrance`; or more than that came."""
        head = request[: len(request) - len(body)]
        if len(head) > LONGEST_KNOWN or head.find(HEAD_END) != len(head) - len(HEAD_END) or not request.endswith(body):
            return  # it is not this head alone
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[head] = entrance, len(body)
