"""Where ids come from: out of a block that the store gave to this process, so that making one asks nobody."""

from __future__ import annotations

from cabrank.errors import StoreUnavailable
from cabrank.stores.contract import ID_BLOCK, Store


class Ids:
    """Ids out of a block that the store gave to this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.next = 0
        """The next to be given out, if it is below `end`."""
        self.end = 0
        self._following = 0

    def take(self, count: int) -> int:
        """The first of `count` ids in a row.

        Raises:
            StoreUnavailable: the block is used up and the store has not given another yet.
        """
        first = self.next
        if first + count > self.end:
            if not self._following:
                raise StoreUnavailable("the store has not answered with new ids: try again")
            first, self.end, self._following = self._following, self._following + ID_BLOCK, 0
        self.next = first + count
        return first

    def enough(self, count: int) -> bool:
        """Whether `count` ids can be taken without asking the store."""
        return bool(self._following) or self.end - self.next >= count

    @property
    def low(self) -> bool:
        """Whether the next block should be fetched now."""
        return not self._following and self.end - self.next < ID_BLOCK // 2

    async def need(self, count: int) -> None:
        """Have so many ids to take, asking the store if it must be."""
        if not self.enough(count):
            await self.refill()

    async def refill(self) -> None:
        """Fetch the next block."""
        if not self.end:
            self.next = await self._store.take_ids()
            self.end = self.next + ID_BLOCK
        elif not self._following:
            self._following = await self._store.take_ids()
