"""Lines out of pieces, in chunks: what a stream of any length is made of, without holding more than one chunk of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

CHUNK_BYTES = 1024 * 1024  # of lines that are stored together, unless one line alone is longer


class TooLong(msgspec.Struct, frozen=True):
    """A line that is over the limit; what it says was not kept."""

    size: int


Line = bytes | TooLong


class Chunk(msgspec.Struct, frozen=True):
    """Lines that are stored together. `first` is the number of the first of them, from 1; empty lines count, but are empty."""

    first: int
    lines: Sequence[Line]


class Lines:
    """Cuts what comes into chunks of at most `most` lines.

    `even`: a chunk is given out only when it is full, or at the end. Then the cuts depend on nothing but the lines, so that who
    sends the same lines again gets the same chunks. Else whatever is complete is given out at once.
    """

    def __init__(self, *, first: int, most: int, limit: int, even: bool) -> None:
        self._next = first
        self._most = most
        self._limit = limit
        self._even = even
        self._rest = bytearray()
        self._dropped = 0  # bytes of a line that is too long already
        self._lines: list[Line] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that `data` completes."""
        *ended, rest = data.split(b"\n")
        for piece in ended:
            yield from self._add(self._ended(piece))
        self._keep(rest)
        if not self._even and self._lines:
            yield self._cut()

    def end(self) -> Iterator[Chunk]:
        """What is left: nothing more comes. A last line needs no line end."""
        if self._rest or self._dropped:
            yield from self._add(self._ended(b""))
        if self._lines:
            yield self._cut()

    def _add(self, line: Line) -> Iterator[Chunk]:
        size = 0 if isinstance(line, TooLong) else len(line)
        if self._lines and self._size + size > CHUNK_BYTES:
            yield self._cut()
        self._lines.append(line)
        self._size += size
        if len(self._lines) >= self._most:
            yield self._cut()

    def _cut(self) -> Chunk:
        chunk = Chunk(self._next, self._lines)
        self._next += len(self._lines)
        self._lines, self._size = [], 0
        return chunk

    def _ended(self, piece: bytes) -> Line:
        self._keep(piece)
        line: Line = TooLong(self._dropped + len(self._rest)) if self._dropped else bytes(self._rest).strip()
        self._rest.clear()
        self._dropped = 0
        return line

    def _keep(self, piece: bytes) -> None:
        if self._dropped or len(self._rest) + len(piece) > self._limit:
            self._dropped += len(self._rest) + len(piece)
            self._rest.clear()
        else:
            self._rest += piece
