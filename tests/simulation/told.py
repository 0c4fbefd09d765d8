"""What one life of a process was told by people and by the turns of its store, as far as it has to keep to it from then on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from cabrank.job import Progress, Settlement
from cabrank.stores.contract import NOTHING_RETURNED, Returned, Submission, Turn, Want
from cabrank.testing import FaultyStore


class Told:
    """`most` workers may run jobs of a queue; nothing of a queue in `paused` may start; nothing may be taken on for one in `shut`."""

    def __init__(self, workers: Mapping[str, int]) -> None:
        self.most = dict(workers)
        self.paused: set[str] = set()
        self.shut: set[str] = set()
        self._heard = Counter[str]()
        self._before: dict[int, Counter[str]] = {}

    def pause(self, queue: str) -> None:
        """Somebody paused the queue here, and was told that it is paused."""
        self.paused.add(queue)
        self._heard[queue] += 1

    def resume(self, queue: str) -> None:
        """Somebody asks to let the queue go on here, or was told that it does."""
        self.paused.discard(queue)
        self.shut.discard(queue)
        self._heard[queue] += 1

    def turn_begins(self, number: int) -> None:
        """A turn is sent, perhaps not for the first time."""
        self._before.setdefault(number, self._heard.copy())

    def turn_says(self, number: int, paused: Collection[str]) -> None:
        """A turn is answered. Of a queue that somebody here paused or resumed since it began it may say what was before."""
        before = self._before[number]
        unsure = {queue for queue, times in self._heard.items() if times != before[queue]}
        self.paused = (self.paused & unsure) | (set(paused) - unsure)


class Way(FaultyStore):
    """The bad way to the store; what the answers of turns say is told to `told`."""

    told: Told

    async def turn(
        self,
        number: int,
        *,
        new: Sequence[Submission],
        settlements: Sequence[Settlement],
        want: Mapping[str, Want],
        returned: Returned = NOTHING_RETURNED,
        progress: Sequence[Progress] = (),
    ) -> Turn:
        """As `FaultyStore.turn`."""
        self.told.turn_begins(number)
        turn = await super().turn(number, new=new, settlements=settlements, want=want, returned=returned, progress=progress)
        self.told.turn_says(number, turn.paused)
        return turn
