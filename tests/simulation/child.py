"""A simulated worker process: it speaks the protocol of `cabrank.workers.process.child`, and does what its orders and its luck say."""

from __future__ import annotations

import asyncio
import contextvars
import math
import signal
from collections.abc import Callable, Sequence
from enum import StrEnum
from random import Random
from typing import Any, NamedTuple

from cabrank.workers.process import wire
from tests.simulation import loop as simulated
from tests.simulation.acts import alone, said_of
from tests.simulation.ends import End, ignore
from tests.simulation.floor import Floor
from tests.simulation.plan import Act, Order

WORK_S = (0.0001, 0.0003, 0.001)  # what a run takes beyond what its order says
CLOSE_S = (0.1, 1.0, 5.0)  # what it may take to close what it opened
LATE_S = (0.01, 0.5, 3.0)  # when a run that was told to stop and does not answers all the same
DIES = -signal.SIGSEGV


class Mishap(StrEnum):
    """What a run does that no handler should."""

    DIE_FIRST = "die before anything"
    DIE = "die in the middle"
    DIE_SAYING = "die while it answers"
    DIE_AFTER = "die when it has answered"
    EXIT = "exit"
    DEAF = "hang, and ignore to be told to stop"
    LATE = "hang, and answer late after it was told to stop"
    CLEAN_UP = "hang, and take its time when it is told to stop"


class ToldToStop(BaseException):
    """As in a real one."""


class FarEnds(NamedTuple):
    """What a worker process is given."""

    connection: End
    tokens: End
    out: End
    err: End


class Child:
    """One process, from its start to its death."""

    def __init__(self, floor: Floor, number: int, ends: FarEnds, rng: Random, tell: Callable[[Child, int], None]) -> None:
        self.number = number
        self.life = simulated.Life(f"{floor.name}/w{number}")
        self.replied = 0
        """How many runs it has answered."""
        self.first: Sequence[tuple[int, int]] = ()
        """The runs of the first call that it was ever sent."""
        self.between = False
        """Whether it has read the token of a call and not yet the call."""
        self._floor = floor
        self._ends = ends
        self._rng = rng
        self._tell = tell
        self._started = False
        self._since: dict[int, float] = {}
        self._token = wire.LEAVE
        self._received = bytearray()
        self._frames: list[bytes] = []
        self._mishap: Mishap | None = None
        self._told: asyncio.Future[None] | None = None
        self._replied_at = floor.loop.time()
        ends.tokens.on_send = self._was_sent
        ends.connection.on_send = self._first_sent
        floor.comes(self)

    @property
    def waits_since(self) -> float:
        """Since when what it was sent and has not begun waits for it; infinity: there is nothing."""
        return min((self._since[number] for (number,) in wire.TOKEN.iter_unpack(self._ends.tokens.here)), default=math.inf)

    def start(self) -> None:
        """Begin to run."""
        context = contextvars.Context()
        context.run(simulated.LIFE.set, self.life)
        loop = self._floor.loop
        self._floor.begin(self._live(), context)
        if self._floor.chance(self._floor.apart.doom):
            loop.call_later(self._rng.choice((0.01, 0.1, 1.0)), self._doom, context=context)

    def signal(self, number: int) -> None:
        """As `kill`."""
        if self.life.dead:
            return
        self._floor.is_told(self, number)
        if number == signal.SIGKILL or not self._started:
            self.die(-number)
        elif self._told is None:
            self.die(0)
        elif not self._told.done() and self._mishap is not Mishap.DEAF:
            self._told.set_result(None)

    def die(self, code: int) -> None:
        """Nothing of it goes on. Its ends are closed, and its keeper is told."""
        if not self.life.dead:
            self._floor.loop.kill(self.life)
            for end in self._ends:
                end.close()
            self._floor.died(self)
            self._tell(self, code)

    # ----------------------------------------------------------------------------------------------------------- within

    def _doom(self) -> None:
        if self._floor.stormy:
            self.die(-signal.SIGKILL)

    def _was_sent(self, tokens: bytes) -> None:
        for (number,) in wire.TOKEN.iter_unpack(tokens):
            if number not in self._since and number != wire.LEAVE:
                self._floor.is_sent(self, number)
            self._since.setdefault(number, self._floor.loop.time())

    def _first_sent(self, data: bytes) -> None:
        """Whatever comes first is a whole call, and perhaps others behind it."""
        self._ends.connection.on_send = ignore
        self.first = self._floor.fences_of(wire.read_call(wire.frames(bytearray(), data)[0]))
        if self.life.dead:
            self._floor.loses(self.first)

    async def _live(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.002, self._floor.apart.start_s))
        if self._floor.chance(self._floor.apart.fails):
            await self._die(1)
        self._started = True
        try:
            while (frame := await self._next()) is not None:
                await self._run(wire.read_call(frame))
        except BrokenPipeError:
            pass
        except ToldToStop:
            await self._die(128 + signal.SIGTERM)
        if self._rng.random() < self._floor.apart.mishap:
            await asyncio.sleep(self._rng.choice(CLOSE_S))
        await self._die(0)

    async def _die(self, code: int) -> None:
        self._floor.loop.call_soon(self.die, code, context=contextvars.Context())
        await self._floor.loop.create_future()

    async def _next(self) -> bytes | None:
        """As `wire.Incoming.next`."""
        token = await self._take_token()
        frame = None
        while self._token < token:
            frame = await self._frame()
            self._token += 1
        self.between = False
        if frame is not None:
            self._told = self._floor.loop.create_future()
            waited_since = max(self._since[token], self._replied_at)
            sent_ahead = self._since[token] < self._replied_at
            self._floor.takes(self, wire.read_call(frame), since=waited_since, sent_ahead=sent_ahead)
        return frame

    async def _take_token(self) -> int:
        tokens = self._ends.tokens
        while True:
            await tokens.arrival()
            try:
                data = tokens.recv(wire.TOKEN.size)
            except BlockingIOError:
                continue  # it was taken back
            if not data:
                return wire.LEAVE
            (number,) = wire.TOKEN.unpack(data)
            self.between = number != wire.LEAVE
            return int(number)

    async def _frame(self) -> bytes | None:
        while not self._frames:
            await self._ends.connection.arrival()
            data = self._ends.connection.recv(wire.RECEIVE)
            if not data:
                raise BrokenPipeError
            self._frames += wire.frames(self._received, data)
        return self._frames.pop(0)

    async def _run(self, call: wire.Call) -> None:
        rng, floor = self._rng, self._floor
        self._mishap = rng.choice(tuple(Mishap)) if floor.chance(floor.apart.mishap) else None
        if self._mishap is Mishap.DIE_FIRST:
            await self._die(DIES)
        handler = floor.handler(call.handler)
        orders = list(handler.codec.decode_each(call.payload)) if call.ids else list(handler.codec.decode(call.payload))
        if rng.random() < floor.apart.prints:
            await self._ends.out.say(b"a word\n")
        if rng.random() < 0.1:
            await self._ends.connection.say(wire.reported(call, 0.5, "half"))
        try:
            value = await self._work(call, orders)
        except (ToldToStop, GeneratorExit):  # the second: the simulation is over
            raise
        except BaseException as error:  # noqa: BLE001 -- as in a real one
            reply = wire.raised(call, error)
        else:
            self._returned(call, value)
            reply = wire.returned(call, value, lambda _, value: handler.codec.encode_result(value))
        await self._answer(reply)

    async def _answer(self, reply: wire.Reply) -> None:
        self._told = None
        frame = wire.sent(wire.Reply(reply.said, reply.body, self._rng.choice((0, 1 << 20))))
        if self._mishap is Mishap.DIE_SAYING:
            await self._ends.connection.say(frame[: len(frame) // 2])
            await self._die(DIES)
        await self._ends.connection.say(frame)
        self.replied += 1
        self._replied_at = self._floor.loop.time()
        self._floor.answers(self)
        if self._mishap is Mishap.DIE_AFTER:
            await self._die(DIES)

    def _returned(self, call: wire.Call, value: Any) -> None:
        said = value if isinstance(value, list) else [None]
        self._floor.returned(call, [id for id, one in zip(call.ids or (call.id,), said, strict=True) if one is None])

    async def _work(self, call: wire.Call, orders: list[Order]) -> Any:
        """What the handler does."""
        await self._pass(self._rng.choice(WORK_S) + max(order.run_s for order in orders))
        await self._suffer()
        acts = [order.acts[min(call.failures, len(order.acts) - 1)] for order in orders]
        if Act.HANG in acts:
            await self._pass(None)
        if Act.EXIT in acts:
            raise SystemExit(1)
        if call.ids:
            return [said_of(act, order, call.run) for act, order in zip(acts, orders, strict=True)]
        return alone(acts[0], orders[0], call.run)

    async def _suffer(self) -> None:
        match self._mishap:
            case Mishap.DIE:
                await self._die(DIES)
            case Mishap.EXIT:
                await self._die(3)
            case Mishap.DEAF:
                await self._floor.loop.create_future()
            case Mishap.LATE | Mishap.CLEAN_UP:
                try:
                    await self._pass(None)
                except ToldToStop:
                    await asyncio.sleep(self._rng.choice(LATE_S))
                    if self._mishap is Mishap.CLEAN_UP:
                        raise
            case _:
                pass

    async def _pass(self, duration_s: float | None) -> None:
        """Let time pass within the handler."""
        assert self._told is not None
        await asyncio.wait({self._told}, timeout=duration_s)
        if self._told.done():
            raise ToldToStop
