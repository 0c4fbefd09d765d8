"""The clock of the simulated world."""

from __future__ import annotations

import asyncio

from tests.simulation.loop import SimulatedLoop

EPOCH = 1_700_000_000.0


class VirtualClock:
    """A `Clock` that reads the loop's virtual time. The wall clock of one process may be `offset_s` off the store's."""

    def __init__(self, loop: SimulatedLoop, *, offset_s: float = 0.0) -> None:
        self._offset_s = EPOCH + offset_s
        self.monotonic = loop.time
        self.sleep = asyncio.sleep
        self.call_later = loop.call_later

    def step(self, by_s: float) -> None:
        """Set the wall clock, as a person or a time server does. The monotonic one goes on."""
        self._offset_s += by_s

    def now(self) -> float:
        return self._offset_s + self.monotonic()
