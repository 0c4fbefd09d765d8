"""How far the run has come, for the progress bars and for whoever waits for a kill point."""

import asyncio

from examples.demo.plan import KillPoint, Part


class Tally:
    """Documents acknowledged and objects counted, out of how many."""

    def __init__(self, *, documents: int, payloads: int) -> None:
        self.documents = documents
        self.payloads = payloads
        self.documents_acknowledged = 0
        self.payloads_acknowledged = 0
        self.objects = 0
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def complete(self) -> bool:
        return self.documents_acknowledged == self.documents and self.objects >= self.payloads

    def add_acknowledged(self, payloads: int) -> None:
        self.documents_acknowledged += 1
        self.payloads_acknowledged += payloads
        self._changed.set()

    def set_objects(self, objects: int) -> None:
        self.objects = objects
        self._changed.set()

    def close(self) -> None:
        """Nothing will change any more: whoever waits stops waiting."""
        self._closed = True
        self._changed.set()

    async def reached(self, point: KillPoint) -> bool:
        """True once `point` is reached, False when the run ended before it."""
        while self._share(point.part) < point.share:
            if self._closed:
                return False
            self._changed.clear()
            await self._changed.wait()
        return not self._closed

    def _share(self, part: Part) -> float:
        match part:
            case Part.ACKNOWLEDGED:
                return self.documents_acknowledged / self.documents
            case Part.OBJECTS:
                return self.objects / self.payloads
