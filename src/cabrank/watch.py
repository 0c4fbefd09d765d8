"""Watches the event loop from a thread: who blocks it is named while it is blocked, in one line of the log, and counted."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence

from cabrank.clock import SystemClock
from cabrank.condition import Condition
from cabrank.events import Counters, logger
from cabrank.job import text_id
from cabrank.running import name_of
from cabrank.stacks import calling, frame_of, lines_of
from cabrank.workers.coroutine import stepping

RECOVERY_S = 1.0  # how long a loop that was blocked for too long must turn before its process counts as well
LOOKS = 4  # within the time after which a loop counts as blocked
SHOWN = 6  # calls of a stack that are said, the innermost: the whole of it is in a dump


class LoopWatch:
    """Asks the loop for a sign of life, again and again, and names who keeps it from giving one.

    Time is the machine's own whatever clock a dispatcher has: it is the machine's thread that is blocked. Code outside Python that
    keeps the interpreter's lock stops this thread too; it is named when it lets go.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        counters: Counters,
        condition: Condition,
        *,
        block_s: float,
        most_s: float = math.inf,
        prefix: str,
        monotonic: Callable[[], float] = SystemClock.monotonic,
    ) -> None:
        """To be made in the loop's thread. `block_s`: from when on it counts as blocked; `most_s`: and its leases are not renewed."""
        self.looks_every_s = block_s / LOOKS
        self.blocked_since: float | None = None
        """On the monotonic clock, None while it turns."""
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._counters = counters
        self._condition = condition
        self._most_s = most_s
        self._well_at = 0.0
        self._block_s = block_s
        self._prefix = prefix
        self._monotonic = monotonic
        self._looked_at = self._asked_at = self._answered_at = monotonic()
        self._who = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cabrank-watch", daemon=True)

    def start(self) -> None:
        """Watch until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """See whether the loop has answered, and ask again if so. Called `LOOKS` times within `block_s`, never by two threads."""
        now = self._monotonic()
        slept_s, self._looked_at = now - self._looked_at, now
        if slept_s >= self._block_s + self.looks_every_s:
            self._stood_still(slept_s)
        elif self._answered_at >= self._asked_at:
            if self.blocked_since is not None:
                self._goes_on(self._answered_at - self.blocked_since)
            if self._condition.unfit and now >= self._well_at:
                self._condition.unfit = ""
            self._asked_at = now
            self._answered_at = now - 1.0
            self._loop.call_soon_threadsafe(self._answer)
        elif self.blocked_since is None and now - self._asked_at >= self._block_s:
            self.blocked_since = self._asked_at
            self._who = self._name_who()
            self._counters.loop_blocks += 1
            logger.error("the event loop has been blocked for %.2f s by %s", now - self._asked_at, self._who)
        elif self.blocked_since is not None and self._condition.holds and now - self.blocked_since >= self._most_s:
            self._let_go(now - self.blocked_since)

    def _watch(self) -> None:
        while not self._over.wait(self.looks_every_s):
            try:
                self.look()
            except RuntimeError:  # the loop is closed
                return

    def _answer(self) -> None:
        self._answered_at = self._monotonic()

    def _let_go(self, blocked_s: float) -> None:
        """Nothing is settled here any more, so others shall have the jobs."""
        self._condition.holds = False
        self._condition.unfit = f"its event loop was blocked for more than max_loop_block_s ({self._most_s:g} s) by {self._who}"
        self._counters.leases_let_go += 1
        logger.error(
            "the event loop has been blocked for %.2f s, longer than max_loop_block_s: the leases of this process are not renewed any"
            " more, and other processes run its jobs when they have run out; it was blocked by %s",
            blocked_s,
            self._who,
        )

    def _goes_on(self, blocked_s: float) -> None:
        self.blocked_since = None
        self._condition.holds = True
        self._well_at = self._monotonic() + RECOVERY_S
        logger.warning("the event loop goes on: it was blocked for %.2f s by %s", blocked_s, self._who)

    def _stood_still(self, still_s: float) -> None:
        """No thread ran: the process was stopped, or code outside Python kept the interpreter's lock, and then it is still in it."""
        self._asked_at = self._looked_at  # else what is over would be said again
        if stepping(frame_of(self._loop_thread)) is None:
            logger.warning("this process stood still for %.2f s: it was stopped, or had no processor", still_s)
            return
        self._counters.loop_blocks += 1
        logger.error("the event loop, and every other thread, was blocked for %.2f s by %s", still_s, self._name_who())

    def _name_who(self) -> str:
        frame = frame_of(self._loop_thread)
        found = stepping(frame)
        lease = None if found is None else found[0].lease
        if found is None or lease is None:
            return f"no job; it stands at {_said(lines_of(reversed(list(calling(frame)))))}"
        return f"job {text_id(self._prefix, lease.job.id)} of {name_of(lease)}, run {lease.run}; it stands at {_said(found[1])}"


def _said(stack: Sequence[str]) -> str:
    return " > ".join(stack[-SHOWN:])
