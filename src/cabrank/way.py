"""The short way of plain submits in memory: what is the same for every call of one function is looked up once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cabrank.block import Block, Call
from cabrank.drafts import Drafts
from cabrank.engine import Engine
from cabrank.handle import JobHandle
from cabrank.handler import AnyHandler
from cabrank.stores.contract import TURN_ROWS

Take = Callable[[tuple[Any, ...]], JobHandle[Any] | None]


def no_way(args: tuple[Any, ...]) -> JobHandle[Any] | None:
    """A `Way.take` that takes nothing."""
    del args
    return None


class Way:
    """For calls of one function without a key, options or a limit, where the store judges here and now whether there is room.

    Jobs that follow each other go to the store as one `Block`: it is added to until a turn takes it.
    """

    def __init__(self, function: Callable[..., Any], handler: AnyHandler, drafts: Drafts, engine: Engine) -> None:
        self.function = function
        self._bare = drafts.is_bare(handler)
        self._handler = handler
        self._queue = handler.queue
        self._codec = handler.codec
        self._payload = drafts.payload_of(handler)
        self._engine = engine
        self._shut = engine.shut
        self._ids = engine.ids
        self._handles = engine.handles
        self._live = engine.handles.live
        self._in_line = engine.committer.lines
        self._pending = engine.committer.pending
        self._take_room = engine.store.take_room
        self._one = False  # whether each call has one argument
        self._block = self._begun(0)
        self._next: int = 0  # the id that `_block` goes on with
        self._full_at: int = 0  # the id behind the last one that it takes

    def take(self, args: tuple[Any, ...]) -> JobHandle[Any] | None:
        """Take one call on. None: it must go the long way, and nothing was done.

        Raises:
            PayloadInvalid, PayloadTooLarge: the arguments are not what it takes.
        """
        ids, queue, block, bare = self._ids, self._queue, self._block, self._bare
        if self._engine.closed is not None or queue in self._shut:
            return None
        payload = b"" if bare else self._payload(args)
        id, one = ids.next, len(args) == 1
        goes_on = block is self._pending.open and id == self._next and one is self._one
        if not goes_on and (id >= ids.end or queue in self._in_line):
            return None
        if not self._take_room(queue, 1, len(payload)):
            return None
        if not goes_on:
            self._one = one
            self._block = block = self._begun(id)
            self._full_at = id + TURN_ROWS
            self._pending.begin(block)
        ids.next = self._next = id + 1
        if id + 1 == self._full_at:
            self._pending.open = None
        block.items.append(args[0] if one else args)
        if not bare:
            block.payloads.append(payload)
            block.size += len(payload)
        handle: JobHandle[Any] = JobHandle(id, self._handles, self._codec, bare)
        self._live[id] = handle
        return handle

    def _begun(self, first: int) -> Block:
        handler, call, bare = self._handler, Call.ONE if self._one else Call.ARGS, self._bare
        return Block(first, [], call, handler.name, handler.queue, self.function if bare else None, None if bare else [], 0)
