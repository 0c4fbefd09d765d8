"""How much a connection may send before it is understood, how slow it may be, and how many there may be. No clock: seconds are counted."""

from __future__ import annotations

import ipaddress
from collections import Counter
from enum import IntEnum

URL_LIMIT = 8 * 1024  # bytes of a path with its parameters
HEADERS_LIMIT, HEAD_LIMIT = 64, 16 * 1024  # headers, and bytes of them
HEAD_TICKS = 5  # seconds until the headers of a request that has begun must be there
BODY_TICKS, BODY_RATE = 5, 1024  # seconds until a body must have come at so many bytes a second
UNREAD_TICKS = 30  # seconds that a client may leave its answers unread, then they are not kept for it


class Stage(IntEnum):
    """What of a request is on its way."""

    NONE = 0
    HEAD = 1
    BODY = 2


class Pace:
    """How one connection gets on with the request that is being read. `fresh`: its head began in the piece that came last."""

    __slots__ = ("fresh", "patient", "size", "stage", "ticks", "unread_ticks")

    def __init__(self) -> None:
        self.stage = Stage.NONE
        self.size = 0
        """Bytes: of the head in earlier pieces than that in which it began, then of the body."""
        self.ticks = 0
        """Seconds since the head began."""
        self.unread_ticks = 0
        self.fresh = False
        self.patient = False
        """The body may come as slowly as it likes: a stream."""

    def begin(self) -> None:
        """A head begins."""
        self.stage = Stage.HEAD
        self.size = self.ticks = 0
        self.fresh = True
        self.patient = False

    def grows(self, size: int) -> bool:
        """A piece came and the head has not ended. Whether that is too much of a head."""
        if not self.fresh:  # the piece may hold much that came before a head that begins in it
            self.size += size
        return self.size > URL_LIMIT + HEAD_LIMIT

    def late(self, *, paused: bool) -> bool:
        """A second has passed. Whether the request has taken too long. `paused`: it is us who do not read."""
        if self.stage is Stage.NONE or paused:
            return False
        self.ticks += 1
        if self.stage is Stage.HEAD:
            return self.ticks > HEAD_TICKS
        return not self.patient and self.ticks > BODY_TICKS and self.size < (self.ticks - BODY_TICKS) * BODY_RATE

    def unread(self, *, paused: bool) -> bool:
        """A second has passed. Whether the client has not read for too long."""
        self.unread_ticks = self.unread_ticks + 1 if paused else 0
        return self.unread_ticks > UNREAD_TICKS


class Crowd:
    """The connections, counted in all and by address. Those of this machine are counted in all alone: proxies come from there."""

    def __init__(self, *, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self.all = 0
        """How many there are."""
        self._by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one in, which leaves later in any case. Whether there was room for it."""
        self.all += 1
        if _is_ours(address):
            return self.all <= self._most
        self._by_address[address] += 1
        return self.all <= self._most and self._by_address[address] <= self._most_each

    def leave(self, address: str) -> None:
        """Count one out."""
        self.all -= 1
        if not _is_ours(address):
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


def _is_ours(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True  # a socket that has no address
