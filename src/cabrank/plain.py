"""The shortest ways of plain jobs: without options, a key, a limit, or anybody who waits for room or keeps a handle."""

from __future__ import annotations

from collections.abc import Callable

from cabrank.app import App
from cabrank.block import Block
from cabrank.engine import Engine
from cabrank.gathering import Answered
from cabrank.handler import AnyHandler, Jobs
from cabrank.settings import Bound, Settings
from cabrank.stores.contract import Submission
from cabrank.way import EachWay

Enter = Callable[[Submission, Answered], None]


class Plain:
    """Takes them on here and now where the store can judge whether there is room, else to the store together with others."""

    def __init__(self, app: App, engine: Engine, settings: Settings, *, least: Bound, enter: Enter) -> None:
        """`least` fits into each queue; `enter` says what is to be said of what is not taken on."""
        self._handlers = app.handlers
        self._engine = engine
        self._settings = settings
        self._least = least
        self._enter = enter
        self._ways: dict[AnyHandler, EachWay] = {}

    def take_each(self, jobs: Jobs) -> int:
        """Take the jobs of a document on here and now: the first of their ids. 0: they go the long way, and nothing was done."""
        if len(jobs.parts) != 1 or self._engine.closed is not None:
            return 0
        handler, items = jobs.parts[0]
        way = self._ways.get(handler)
        if way is None:
            room = self._engine.store.room(handler.queue)
            if room is None or handler.limit is not None or self._handlers.get(handler.name) is not handler:
                return 0
            way = self._ways[handler] = EachWay(handler, self._engine, room, limit=self._settings.payload_limit)
        return way.take(items if isinstance(items, list) else list(items))

    def take(self, block: Block) -> bool:
        """Take jobs on here and now. False: that needs a turn, or there is no room, or nothing is taken on; then nothing was done."""
        if block.queue in self._engine.committer.lines or not self.may_enter(block):
            return False
        room = self._engine.store.room(block.queue)
        if room is None or not room.take(len(block.items), block.size):
            return False
        self._engine.committer.pending.add(block)
        return True

    def enter(self, block: Block, answered: Answered) -> None:
        """Offer jobs to the store, perhaps together with those of others, which changes nothing for each; see `Intake.enter`."""
        if self.may_enter(block):
            self._engine.committer.offer_block(block, answered)
        else:
            self._enter(Submission(jobs=block), answered)

    def may_enter(self, block: Block) -> bool:
        """Whether jobs are taken on here, and are not more than can ever be stored together."""
        engine, least = self._engine, self._least
        fits = len(block.items) <= least.jobs and block.size <= least.bytes
        return fits and engine.closed is None and block.queue not in engine.shut
