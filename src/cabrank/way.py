"""The short way of plain submits in memory: what is the same for every call of one function is looked up once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cabrank.block import Block, Call
from cabrank.codec import UNENCODABLE
from cabrank.drafts import Drafts
from cabrank.engine import Engine
from cabrank.errors import PayloadInvalid
from cabrank.handle import JobHandle
from cabrank.handler import AnyHandler
from cabrank.pending import MERGED, MERGED_BYTES
from cabrank.sheaf import SHEAF
from cabrank.stores.contract import TURN_ROWS, Room

Take = Callable[[tuple[Any, ...]], JobHandle[Any] | None]


def no_way(args: tuple[Any, ...]) -> JobHandle[Any] | None:
    """A `Way.take` that takes nothing."""
    del args
    return None


class Way:
    """For calls of one function without a key, options or a limit, where the store judges here and now whether there is room.

    Jobs that follow each other go to the store as one `Block`: it is added to until a turn takes it. Their handles have a `Sheaf`
    together, which stands beside the block, so that nothing here keeps it when their handles are dropped.
    """

    def __init__(self, function: Callable[..., Any], handler: AnyHandler, drafts: Drafts, engine: Engine, room: Room) -> None:
        self._function = function
        self._handler = handler
        self._bare = drafts.is_bare(handler)
        self._queue = handler.queue
        self._checked = drafts.payload_of(handler)
        self._exact, self._encode, self._limit = handler.codec.exact, handler.codec.encode_exact, drafts.limit
        self._engine = engine
        self._ids = engine.ids
        self._pending = engine.committer.pending
        self._waiting, self._most_jobs, self._most_bytes = room.waiting, room.jobs, room.bytes
        self._one = True  # whether each call has one argument
        self._block = self._begun(0)
        self._items: list[Any] = self._block.items
        self._payloads: list[bytes] = []  # of `_block`
        self._next: int = 0  # the id that `_block` goes on with
        self._full_at: int = 0  # the id that needs another sheaf, or another block

    def take(self, args: tuple[Any, ...]) -> JobHandle[Any] | None:
        """Take one call on. None: it must go the long way, and nothing was done.

        Raises:
            PayloadInvalid, PayloadTooLarge: the arguments are not what it takes.
        """
        one, payload, size = len(args) == 1, b"", 0
        item: Any = args[0] if one else args
        if not self._bare:
            encode, checked = self._encode, self._checked
            try:
                payload = encode(item) if item.__class__ is self._exact else checked(args)
            except UNENCODABLE:
                payload = checked(args)
            size = len(payload)
            if size > self._limit:
                checked(args)
        waiting = self._waiting  # in its `Room`: what `Room.take` does, for very many
        if waiting.count >= self._most_jobs or waiting.size + size > self._most_bytes:
            return None
        pending, id = self._pending, self._ids.next
        if id != self._next or id == self._full_at or pending.open is not self._block or one is not self._one:
            if not self._may_begin(id):
                return None
            self._begin(id, one)
        waiting.count += 1
        self._items.append(item)
        if size:
            waiting.size += size
            self._block.size += size
            self._payloads.append(payload)
        sheaf = pending.beside
        self._ids.next = self._next = sheaf.stop = id + 1
        return JobHandle(id, sheaf)

    def _may_begin(self, id: int) -> bool:
        """Whether jobs may be added to nothing that is open."""
        engine, queue = self._engine, self._queue
        barred = engine.closed is not None or queue in engine.shut or queue in engine.committer.lines
        return not barred and id < self._ids.end

    def _begin(self, id: int, one: bool) -> None:  # noqa: FBT001 -- a fact
        """Begin another sheaf, and another block if the last one cannot be gone on with."""
        pending, block = self._pending, self._block
        if pending.open is not block or id != self._next or one is not self._one or len(block) >= TURN_ROWS:
            self._one = one
            self._block = block = self._begun(id)
            self._items, self._payloads = block.items, block.payloads
            pending.begin(block)
        pending.beside = self._engine.handles.sheaf(id, self._handler.codec, self._bare)
        self._full_at = min(id + SHEAF, self._ids.end)

    def _begun(self, first: int) -> Block:
        handler, call, bare = self._handler, Call.ONE if self._one else Call.ARGS, self._bare
        return Block(first, [], call, handler.name, handler.queue, self._function if bare else None, None if bare else [], 0)


class EachWay:
    """For calls of one handler that come many together, one for each of some items: what `Way` is for single ones, without handles."""

    def __init__(self, handler: AnyHandler, engine: Engine, room: Room, *, limit: int) -> None:
        """`limit` is for the bytes of one payload."""
        self._handler = handler
        self._queue = handler.queue
        self._size_of = handler.codec.size_of_each
        self._limit = limit
        self._engine = engine
        self._shut = engine.shut
        self._ids = engine.ids
        self._in_line = engine.committer.lines
        self._pending = engine.committer.pending
        self._take_room = room.take
        self._block = Block(0, [], Call.ONE, handler.name, handler.queue, None, handler.codec.encode_each, 0)
        self._next: int = 0  # the id that `_block` goes on with

    def take(self, items: list[object]) -> int:
        """Take on one call for each of the items, all or none: the first id. 0: they must go the long way, and nothing was done."""
        ids, queue, block = self._ids, self._queue, self._block
        if self._engine.closed is not None or queue in self._shut or queue in self._in_line:
            return 0
        try:
            size, jobs = self._size_of(items), len(items)
        except PayloadInvalid:
            return 0  # and there it is said
        first = ids.next
        behind = first + jobs
        if size is None or size > self._limit or behind > ids.end or not self._take_room(jobs, size):
            return 0
        ids.next = behind
        if block is self._pending.open and first == self._next and len(block.items) + jobs <= MERGED and block.size + size <= MERGED_BYTES:
            block.items += items
            block.size += size
        else:
            handler = self._handler
            self._block = Block(first, items[:], Call.ONE, handler.name, queue, None, handler.codec.encode_each, size)
            self._pending.begin(self._block)
        self._next = behind
        return first
