"""A simulated keeper: it starts simulated worker processes, kills and reaps them, and dies with them or without them."""

from __future__ import annotations

import asyncio
import contextvars
import errno
from collections.abc import Sequence
from random import Random

import msgspec

from cabrank.workers.process import wire
from cabrank.workers.process.keeper import COMMAND, KILL, START, Event, Kept, Orders
from cabrank.workers.process.near import NearWorker
from tests.simulation import loop as simulated
from tests.simulation.child import Child, FarEnds
from tests.simulation.ends import Wires
from tests.simulation.floor import Floor

IMPORT_S = 0.05  # at most
REAP_S = (0.0, 0.0002, 0.005)  # after a death


class Machine:
    """Starts the keepers of one life of a process; see `cabrank.workers.process.near.Keep`."""

    def __init__(self, floor: Floor, rng: Random) -> None:
        self.floor = floor
        self._rng = rng
        self._wires = Wires(floor.loop, rng, room=floor.apart.room)
        self._keepers: list[Keeper] = []

    @property
    def left(self) -> list[str]:
        """What lives."""
        keepers = [keeper.life.name for keeper in self._keepers if not keeper.life.dead]
        return [*keepers, *sorted(child.life.name for child in self.floor.alive)]

    def keep(self, orders: Orders) -> Keeper:
        """A new keeper."""
        del orders
        keeper = Keeper(self.floor, self._wires, self._rng, f"{self.floor.name}/k{len(self._keepers) + 1}")
        self._keepers.append(keeper)
        return keeper

    def dispatcher_died(self) -> None:
        """Its ends are closed, and its keepers see that."""
        for keeper in self._keepers:
            keeper.let_go()

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.floor.stormy = False

    def bury(self) -> None:
        """Tidy up after the simulation."""
        for keeper in self._keepers:
            keeper.end_all()
            keeper.bury_all()


class Keeper:
    """Both sides of one: what its dispatcher has of it (`near.NearKeeper`), and what it does."""

    def __init__(self, floor: Floor, wires: Wires, rng: Random, name: str) -> None:
        self.life = simulated.Life(name)
        self.connection, self._far = wires.pair()
        self._floor = floor
        self._wires = wires
        self._rng = rng
        self._children: dict[int, Child] = {}
        self._unsaid: list[Event] = []
        self._to_say: asyncio.Future[None] | None = None
        self._context = contextvars.Context()
        self._context.run(simulated.LIFE.set, self.life)
        for work in (self._serve(), self._talk()):
            floor.begin(work, self._context.copy())
        if floor.chance(2 * floor.apart.doom):
            floor.loop.call_later(rng.choice((0.02, 0.5, 2.0, 5.0)), self._doom, context=contextvars.Context())

    # -------------------------------------------------------------------------------------------------- the near side of it

    def start(self, number: int) -> NearWorker:
        if self._floor.chance(self._floor.apart.fails / 4):
            self._floor.excuse()
            self._floor.note(f"{self.life.name}/w{number} cannot be started")
            raise OSError(errno.EMFILE, "too many open files")
        connection, tokens, out, err = (self._wires.pair() for _ in range(4))
        tokens[1].holders += 1
        ends = FarEnds(connection[1], tokens[1], out[1], err[1])
        child = self._children[number] = Child(self._floor, number, ends, self._rng, self._reap_later)
        if self.life.dead:
            child.die(-9)
        self._command(START, number, 0)
        return NearWorker(connection[0], tokens, (out[0], err[0]))

    def signal(self, number: int, signal: int) -> None:
        self._command(KILL, number, signal)

    def let_go(self) -> None:
        self.connection.shutdown()

    def bury(self, left: Sequence[int]) -> None:
        self.connection.close()
        for number, child in self._children.items():
            if number in left:
                child.die(-9)
            else:  # it dies by itself, and its dispatcher takes it for dead now
                self._floor.charges(child)

    def forked(self) -> None:
        raise NotImplementedError("nothing forks here")

    def _command(self, what: int, number: int, signal: int) -> None:
        try:
            self.connection.send(COMMAND.pack(what, number, signal))
        except BrokenPipeError:
            return

    # --------------------------------------------------------------------------------------------------- the far side of it

    def end_all(self) -> None:
        """It ends with all below it."""
        for child in self._children.values():
            child.die(-9)
        self._end()

    def bury_all(self) -> None:
        """Tidy up after the simulation."""
        for life in (self.life, *(child.life for child in self._children.values())):
            life.bury()

    def _doom(self) -> None:
        """It is killed. What it has started dies with it, a moment later."""
        if self._floor.stormy and not self.life.dead:
            self._end()
            for child in self._children.values():
                self._floor.loop.call_later(self._rng.choice((0.0, 0.001)), child.die, -9, context=contextvars.Context())

    def _end(self) -> None:
        if not self.life.dead:
            self._floor.note(f"{self.life.name} ends")
            self._floor.loop.kill(self.life)
            self._far.close()

    async def _serve(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.001, IMPORT_S))
        self._tell(Event(Kept.READY))
        while True:
            await self._far.arrival()
            commands = self._far.recv(COMMAND.size)
            if not commands:
                break
            what, number, signal = COMMAND.unpack(commands)
            if what == START:
                self._fork(number)
            else:
                self._children[number].signal(signal)
        await asyncio.sleep(self._rng.choice(REAP_S))
        self._floor.loop.call_soon(self.end_all, context=contextvars.Context())
        await self._floor.loop.create_future()

    def _fork(self, number: int) -> None:
        self._children[number].start()
        self._tell(Event(Kept.STARTED, number, number))

    def _reap_later(self, child: Child, code: int) -> None:
        self._floor.loop.call_later(self._rng.choice(REAP_S), self._reap, child, code, context=self._context.copy())

    def _reap(self, child: Child, code: int) -> None:
        self._tell(Event(Kept.ENDED, child.number, code))

    def _tell(self, event: Event) -> None:
        self._unsaid.append(event)
        if self._to_say is not None and not self._to_say.done():
            self._to_say.set_result(None)

    async def _talk(self) -> None:
        while True:
            while not self._unsaid:
                self._to_say = self._floor.loop.create_future()
                await self._to_say
            try:
                await self._far.say(wire.framed(msgspec.msgpack.encode(self._unsaid.pop(0))))
            except BrokenPipeError:
                await self._floor.loop.create_future()
