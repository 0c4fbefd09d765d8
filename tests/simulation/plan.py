"""What one run of the simulation is like, drawn from its seed: how large, how fast, and which faults."""

from __future__ import annotations

from enum import StrEnum
from random import Random

import msgspec

from cabrank.settings import Settings
from cabrank.testing import CALM, Faults


class Fate(StrEnum):
    """What happens to a process from outside."""

    KILL = "kill"
    FREEZE = "freeze"
    STOP = "stop"


class Weather(StrEnum):
    """What happens to the whole machine."""

    SUSPEND = "suspend"
    """Every process stands still, and they all go on at once."""
    STEP = "step"
    """A wall clock is set: the store's, or that of a process."""


class Deed(StrEnum):
    """What a person does with a queue."""

    PAUSE = "pause"
    RESIZE = "resize"
    DRAIN = "drain"


class Act(StrEnum):
    """What a job does when it is run."""

    RETURN = "return"
    RAISE = "raise"
    HANG = "hang"
    GIVE_UP = "give up"
    TRY_AGAIN = "try again"
    SNOOZE = "snooze"
    EXIT = "exit"
    CHILDREN = "children"


class Order(msgspec.Struct, frozen=True):
    """The payload of a simulated job: who ordered it, and what it does in its first attempt, its second …; the last for all others."""

    token: str
    acts: tuple[Act, ...]
    run_s: float
    customer: str = ""
    """The key of its limit, if it is sent to the handler that has one."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What one client asks for, again and again until it is answered, if it has a key."""

    token: str
    orders: tuple[Order, ...]
    at_s: float
    key: str
    patient: bool
    priority: int
    delay_s: float
    wants_result: bool
    limited: bool
    """Whether it goes to the handler that has a limit."""
    packed: bool
    """Whether it goes to the batch handler."""
    meddles: bool
    """Whether somebody cancels the job a while after its acknowledgement, and perhaps reopens it."""
    apart: bool = False
    """Whether it goes to a handler that runs in a worker process."""


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A person who does something with a queue in one of the processes, and after a while lets it go on."""

    deed: Deed
    queue: str
    at_s: float
    for_s: float
    workers: tuple[int, int]
    """How many there are to be from then on, at least and at most."""


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """What worker processes are like; what goes wrong with them goes wrong in the storm alone."""

    quiet: int
    """After so many runs that printed nothing calls are sent ahead."""
    hold_s: float
    """Work that a process may be sent ahead."""
    room: int
    """Bytes that fit into a connection, in each direction."""
    start_s: float
    """What a start takes at most."""
    fails: float
    """How likely a start is to fail."""
    doom: float
    """How likely a process is to be killed from outside before long."""
    mishap: float
    """How likely a run is to do something that no handler should."""
    prints: float
    """How likely a run is to print something."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    seed: int
    settings: Settings
    processes: int
    requests: tuple[Request, ...]
    storm_s: float
    """How long faults happen; then it is quiet."""
    faults: Faults
    fates: tuple[Fate, ...]
    fate_every_s: float
    weather: tuple[Weather, ...] = ()
    weather_every_s: float = 1.0
    visits: tuple[Visit, ...] = ()
    apart: Apart | None = None


QUEUES = ("work", "packs", "children")
HORIZON_S = 8.0  # a storm lasts at most so long: some leases, some retries


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = Random(seed)
    settings = Settings(
        min_free=0,  # the machine's own disk may be full, and that is no part of the run
        loop_block_s=0,  # it is the machine's time that a watch looks at, from a thread of its own
        max_workers=rng.choice((1, 2, 4)),
        max_queue=rng.choice((2, 5, 20, 100)),
        lease_s=2.0,
        renew_s=0.5,
        sweep_s=rng.choice((0.3, 1.0)),
        grace_s=rng.choice((0.0, 0.5, 2.0)),
        reserve_s=rng.choice((0.0, 0.05, 0.5)),
    )
    storm_s = rng.uniform(2.0, HORIZON_S)
    fates = tuple(fate for fate in Fate if rng.random() < 0.5)
    more = Random(f"{seed} more")  # apart from the others, so that what was drawn before this was there stays as it was
    return Plan(
        seed=seed,
        settings=settings,
        processes=rng.choice((1, 2, 3)),
        requests=tuple(_packed(_limited(_request(rng, number, storm_s), seed), seed) for number in range(rng.randint(4, 24))),
        storm_s=storm_s,
        faults=_faults(rng),
        fates=fates,
        fate_every_s=rng.uniform(0.3, 2.0),
        weather=tuple(weather for weather in Weather if more.random() < 0.25),
        weather_every_s=more.uniform(1.0, 4.0),
        visits=tuple(_visit(more, storm_s) for _ in range(more.choice((0, 0, 1, 3, 6)))),
    )


def _visit(rng: Random, storm_s: float) -> Visit:
    least = rng.randint(1, 5)
    return Visit(
        deed=rng.choice(tuple(Deed)),
        queue=rng.choice(QUEUES),
        at_s=rng.uniform(0.0, storm_s),
        for_s=rng.choice((0.0, 0.5, 3.0)),
        workers=(least, least if rng.random() < 0.7 else least + rng.randint(1, 3)),
    )


def _faults(rng: Random) -> Faults:
    if rng.random() < 0.15:
        return CALM
    return Faults(
        latency_s=(0.001, rng.choice((0.001, 0.02, 0.3, 3.0))),
        lost_request=rng.choice((0.0, 0.0, 0.05, 0.2)),
        lost_reply=rng.choice((0.0, 0.0, 0.05, 0.2)),
    )


def _request(rng: Random, number: int, storm_s: float) -> Request:
    token = f"r{number}"
    burst = rng.random() < 0.5
    return Request(
        token=token,
        orders=tuple(_order(rng, f"{token}.{part}") for part in range(rng.choice((1, 1, 1, 2)))),
        at_s=0.0 if burst else rng.uniform(0.0, storm_s),
        key=token if rng.random() < 0.7 else "",
        patient=rng.random() < 0.6,
        priority=rng.choice((5, 5, 0, 9)),
        delay_s=rng.choice((0.0, 0.0, 0.0, 0.7)),
        wants_result=rng.random() < 0.4,
        limited=False,
        packed=False,
        meddles=rng.random() < 0.15,
    )


def _limited(request: Request, seed: int) -> Request:
    """The request, perhaps to the handler that has a limit: in half of the runs half of them."""
    rng = Random(f"{seed} {request.token} limited")
    if seed % 2 or rng.random() < 0.5:
        return request
    orders = tuple(msgspec.structs.replace(order, customer=rng.choice("aab")) for order in request.orders)
    return msgspec.structs.replace(request, orders=orders, limited=True)


def _packed(request: Request, seed: int) -> Request:
    """The request, perhaps to the batch handler: in two of three runs half of them."""
    rng = Random(f"{seed} {request.token} packed")
    return request if request.limited or not seed % 3 or rng.random() < 0.5 else msgspec.structs.replace(request, packed=True)


def _order(rng: Random, token: str) -> Order:
    acts = tuple(rng.choice((Act.RETURN, Act.RETURN, *Act)) for _ in range(rng.choice((1, 1, 2, 4))))
    return Order(token, acts, rng.choice((0.0, 0.0, 0.01, 0.3, 1.2)))
