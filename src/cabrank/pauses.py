"""Which queues are paused, as far as this process knows: what the turns say, and at once what was said here."""

from __future__ import annotations

from collections.abc import Collection

import msgspec


class _Said(msgspec.Struct, frozen=True):
    paused: bool
    before: int


class Pauses:
    """A turn that had begun when somebody here paused or resumed a queue may not have seen that: it does not count for this queue."""

    def __init__(self) -> None:
        self.queues: frozenset[str] = frozenset()
        self._said: dict[str, _Said] = {}

    def say(self, queue: str, *, paused: bool, turns: int) -> None:
        """The store knows now that somebody here paused or resumed a queue; `turns` had begun by then."""
        self._said[queue] = _Said(paused, turns)
        self.queues = self.queues | {queue} if paused else self.queues - {queue}

    def tell(self, paused: Collection[str], number: int) -> frozenset[str]:
        """What turn `number` says. What comes back are the queues that were not paused before."""
        if not paused and not self.queues and not self._said:
            return self.queues
        now = set(paused)
        for queue, said in tuple(self._said.items()):
            if number > said.before:
                del self._said[queue]
            elif said.paused:
                now.add(queue)
            else:
                now.discard(queue)
        before, self.queues = self.queues, frozenset(now)
        return self.queues - before
