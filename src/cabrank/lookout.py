"""What can be seen of a dispatcher from outside of its event loop: what runs, and whether the loop turns."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence

from cabrank.engine import Engine
from cabrank.pool import WorkerPool
from cabrank.running import RunningJob, left_of, running_of, text_of
from cabrank.settings import Kind
from cabrank.watch import LoopWatch
from cabrank.workers.thread import LeftBehind


class Lookout:
    """Sees from any thread, and while a handler blocks the loop. Opened in the loop's thread."""

    def __init__(self, pools: Mapping[str, WorkerPool], kinds: Mapping[str, Kind], engine: Engine, *, block_s: float) -> None:
        """`block_s`: from when on a blocked loop is told of; 0: it is not watched, and keeps its leases however long it is blocked."""
        self.left_behind = LeftBehind(engine.counters)
        """Where thread workers put down what they leave behind."""
        self._pools = pools
        self._kinds = kinds
        self._engine = engine
        self._block_s = block_s
        self._thread = 0  # the event loop's
        self._watch: LoopWatch | None = None

    def open(self) -> None:
        """Begin to watch."""
        self._thread = threading.get_ident()
        if self._block_s:
            loop, engine = asyncio.get_running_loop(), self._engine
            self._watch = LoopWatch(
                loop,
                engine.counters,
                engine.condition,
                block_s=self._block_s,
                most_s=engine.settings.max_loop_block_s,
                prefix=engine.handles.prefix,
            )
            self._watch.start()

    def close(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            self._watch.stop()

    def running(self) -> Sequence[RunningJob]:
        """See `Dispatcher.running`."""
        now, prefix = self._engine.clock.monotonic(), self._engine.handles.prefix
        by_queue = ((pool, self._kinds[queue]) for queue, pool in self._pools.items())
        running = [run for pool, kind in by_queue for run in running_of(pool, kind, prefix=prefix, now=now, thread=self._thread)]
        return [*running, *left_of(self.left_behind, prefix=prefix, now=now)]

    def dump(self) -> str:
        """See `Dispatcher.dump`."""
        return text_of(self.running(), os.getpid())
