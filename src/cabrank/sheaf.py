"""What became of jobs whose handles were given out one after another: those share one record of it, and nothing keeps a handle alive."""

from __future__ import annotations

import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Generic, TypeVar

from cabrank.codec import PayloadCodec
from cabrank.job import Settlement
from cabrank.states import Cause

Owner = TypeVar("Owner")

RETURNED_NONE = Settlement(0, 0, Cause.RETURNED)
"""What a handle learns of such a run: it knows the rest."""
SHEAF = 64  # handles that share a record: what is kept of one of them is kept as long as another lives


class Origin(Generic[Owner]):
    """What handles have in common: who knows of their jobs, what decodes the results, whether no app registered what is called."""

    __slots__ = ("__weakref__", "bare", "codec", "owner")

    def __init__(self, owner: Owner, codec: PayloadCodec | None, bare: bool) -> None:  # noqa: FBT001 -- a fact, not a choice
        self.owner = owner
        self.codec = codec
        self.bare = bare

    def outcome(self, number: int) -> Settlement | None:
        """How a job ended, if that is known here. It is told once, to the handle, which keeps it."""
        del number
        return None


class Sheaf(Origin[Owner]):
    """The origin of at most `SHEAF` handles of jobs with ids in a row, and what is known of those jobs."""

    __slots__ = ("_ended", "_known", "_returned", "first", "stop")

    def __init__(self, owner: Owner, codec: PayloadCodec | None, bare: bool, first: int) -> None:  # noqa: FBT001 -- as above
        super().__init__(owner, codec, bare)
        self.first = first
        self.stop = first
        """Behind the id of the last job. Whoever makes a handle moves it on."""
        self._ended = 0
        self._returned: set[int] = set()  # of whose runs nothing more is to be said than that they returned None
        self._known: dict[int, Settlement | None] = {}  # of all others that have ended; None: whoever wants to know asks the store

    def outcome(self, number: int) -> Settlement | None:
        """See `Origin`."""
        if number in self._returned:
            return RETURNED_NONE
        found = self._known.get(number)
        if found is not None:
            self._known[number] = None
        return found

    def awaits(self, number: int) -> bool:
        """Whether the end of that job is still to be told here."""
        return number not in self._returned and number not in self._known

    @property
    def over(self) -> bool:
        """Whether all of its jobs have ended."""
        return self._ended >= self.stop - self.first

    def returned(self, ids: Sequence[int]) -> None:
        """These jobs returned None."""
        self._returned.update(ids)
        self._ended += len(ids)

    def learn(self, id: int, settlement: Settlement | None) -> None:
        """How that job ended; None: it is the store that knows."""
        self._known[id] = settlement
        self._ended += 1


class Sheaves(Generic[Owner]):
    """The sheaves that somebody still has a handle of, and of whose jobs some have not ended."""

    def __init__(self) -> None:
        self._firsts: list[int] = []  # ascending
        self._sheaves: list[weakref.ref[Sheaf[Owner]]] = []

    def __bool__(self) -> bool:
        """Whether there is any; some may be dropped already."""
        return bool(self._firsts)

    def add(self, sheaf: Sheaf[Owner]) -> None:
        """Tell it from now on what becomes of its jobs."""
        place = bisect_right(self._firsts, sheaf.first)
        self._firsts.insert(place, sheaf.first)
        self._sheaves.insert(place, weakref.ref(sheaf))

    def of(self, id: int) -> Sheaf[Owner] | None:
        """That of a job which has not ended, as long as it lives."""
        place = bisect_right(self._firsts, id) - 1
        sheaf = self._sheaves[place]() if place >= 0 else None
        return sheaf if sheaf is not None and id < sheaf.stop and sheaf.awaits(id) else None

    def returned(self, ids: Sequence[int]) -> None:
        """These jobs returned None. Cost: little where nobody has handles any more."""
        if not self._firsts or not ids:
            return
        ordered = sorted(ids)
        begin = max(0, bisect_right(self._firsts, ordered[0]) - 1)
        end = bisect_right(self._firsts, ordered[-1])
        for each in self._sheaves[begin:end]:
            sheaf = each()
            if sheaf is not None:
                sheaf.returned(ordered[bisect_left(ordered, sheaf.first) : bisect_left(ordered, sheaf.stop)])
        self._forget(begin, end)

    def learn(self, id: int, settlement: Settlement | None) -> Sheaf[Owner] | None:
        """How a job ended; None: the store is to be asked. Its sheaf, if somebody has handles of that."""
        sheaf = self.of(id)
        if sheaf is not None:
            sheaf.learn(id, settlement)
        return sheaf

    def prune(self) -> None:
        """Forget those whose handles are all dropped, or whose jobs have all ended."""
        self._forget(0, len(self._sheaves))

    def _forget(self, begin: int, end: int) -> None:
        left = [(sheaf.first, each) for each in self._sheaves[begin:end] if (sheaf := each()) is not None and not sheaf.over]
        self._firsts[begin:end] = [first for first, _ in left]
        self._sheaves[begin:end] = [each for _, each in left]
