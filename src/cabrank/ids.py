"""Where ids come from: out of a block that the store gave to this process, so that making one asks nobody."""

from __future__ import annotations

from cabrank.errors import StoreUnavailable
from cabrank.stores.contract import ID_BLOCK, Store


class Ids:
    """Ids out of a block that the store gave to this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = 0
        self._end = 0
        self._following = 0

    def take(self, count: int) -> int:
        """The first of `count` ids in a row.

        Raises:
            StoreUnavailable: the block is used up and the store has not given another yet.
        """
        first = self._next
        if first + count > self._end:
            if not self._following:
                raise StoreUnavailable("the store has not answered with new ids: try again")
            first, self._end, self._following = self._following, self._following + ID_BLOCK, 0
        self._next = first + count
        return first

    def take_one(self) -> int:
        """The next id; 0 if the store must be asked for more first."""
        first = self._next
        if first >= self._end:
            return self.take(1) if self._following else 0
        self._next = first + 1
        return first

    def enough(self, count: int) -> bool:
        """Whether `count` ids can be taken without asking the store."""
        return bool(self._following) or self._end - self._next >= count

    @property
    def low(self) -> bool:
        """Whether the next block should be fetched now."""
        return not self._following and self._end - self._next < ID_BLOCK // 2

    async def refill(self) -> None:
        """Fetch the next block."""
        if not self._end:
            self._next = await self._store.take_ids()
            self._end = self._next + ID_BLOCK
        elif not self._following:
            self._following = await self._store.take_ids()
