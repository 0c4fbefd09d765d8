"""How simulated processes of one file wake each other, in the place of datagrams: some are lost, and nobody hears who is dead."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from random import Random

from cabrank.stores.contract import Arrival
from tests.simulation.loop import LIFE, SimulatedLoop

LOST = 0.1  # of what is rung: far more than a machine loses


class Exchange:
    """The folder of all bells."""

    def __init__(self, loop: SimulatedLoop, rng: Random) -> None:
        self.loop = loop
        self.rng = rng
        self.bells: list[VirtualBell] = []

    def hang(self, folder: str, rng: Random, heard: Callable[[Arrival], None]) -> VirtualBell:
        """See `Bells`."""
        bell = VirtualBell(self, heard)
        self.bells.append(bell)
        return bell


class VirtualBell:
    """See `Rings`. It belongs to the life that hung it."""

    def __init__(self, exchange: Exchange, heard: Callable[[Arrival], None]) -> None:
        self._exchange = exchange
        self._heard = heard
        self._context = copy_context()

    @property
    def alone(self) -> bool:
        return len(self._exchange.bells) == 1

    def ring(self, arrival: Arrival) -> None:
        exchange = self._exchange
        for other in [bell for bell in exchange.bells if bell is not self]:
            life = other._context.get(LIFE)
            if life is not None and life.dead:
                exchange.bells.remove(other)
            elif exchange.rng.random() >= LOST:
                exchange.loop.call_soon(other._heard, arrival, context=other._context.copy())

    def close(self) -> None:
        if self in self._exchange.bells:
            self._exchange.bells.remove(self)
