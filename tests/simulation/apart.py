"""What the process workers of one run are like, drawn from its seed: how they start, how they die, and what they are given to do."""

from __future__ import annotations

from random import Random

import msgspec

from cabrank.settings import Settings
from tests.simulation.floor import QUEUE
from tests.simulation.plan import Act, Apart, Order, Plan, Request, Visit

EVERY = 4  # so many seeds have process workers once
SHORT_S = (0.0, 0.0005, 0.001, 0.004, 0.008)  # runs that are sent ahead of each other

CALM = Apart(quiet=1, hold_s=0.005, room=1 << 16, start_s=0.01, fails=0.0, doom=0.0, mishap=0.0, prints=0.0)


def with_processes(plan: Plan) -> Plan:
    """The plan, with process workers and more to do for them, if it is one of those that have any."""
    if plan.seed % EVERY != EVERY - 1:
        return plan
    rng = Random(f"{plan.seed} apart")
    brisk = rng.random() < 0.75
    volleys = tuple(_volley(rng, number, plan.storm_s, brisk=brisk) for number in range(rng.randint(1, 4)))
    return msgspec.structs.replace(
        plan,
        apart=_apart(rng),
        settings=_settings(rng, plan.settings),
        requests=tuple(_moved(rng, request, brisk=brisk) for request in plan.requests) + volleys,
        visits=tuple(_elsewhere(rng, visit) for visit in plan.visits),
    )


def _apart(rng: Random) -> Apart:
    stormy = rng.random() < 0.85
    return Apart(
        quiet=rng.choice((0, 1, 1, 4)),
        hold_s=rng.choice((0.005, 0.05, 0.2)),
        room=rng.choice((400, 1 << 16, 1 << 16)),
        start_s=rng.choice((0.005, 0.05, 0.3)),
        fails=rng.choice((0.0, 0.0, 0.1)) * stormy,
        doom=rng.choice((0.0, 0.1, 0.3)) * stormy,
        mishap=rng.choice((0.0, 0.05, 0.1)) * stormy,
        prints=rng.choice((0.0, 0.0, 0.2)),
    )


def _settings(rng: Random, settings: Settings) -> Settings:
    return msgspec.structs.replace(
        settings,
        max_workers=rng.choice((1, 2, 2, 4)),
        max_queue=rng.choice((40, 100)),
        reserve_s=rng.choice((0.0, 0.05, 0.5, 0.5)),
        recycle_jobs=rng.choice((None, None, 3, 20)),
        recycle_age_s=rng.choice((None, None, 1.0)),
    )


def _moved(rng: Random, request: Request, *, brisk: bool) -> Request:
    """The request, perhaps to a process handler."""
    if request.limited or rng.random() < 0.5:
        return request
    orders = tuple(_short(rng, order.token, brisk=brisk) for order in request.orders) if brisk else request.orders
    return msgspec.structs.replace(request, apart=True, orders=orders)


def _elsewhere(rng: Random, visit: Visit) -> Visit:
    return visit if rng.random() < 0.5 else msgspec.structs.replace(visit, queue=QUEUE)


def _volley(rng: Random, number: int, storm_s: float, *, brisk: bool) -> Request:
    """Many short jobs at once."""
    token = f"v{number}"
    return Request(
        token=token,
        orders=tuple(_short(rng, f"{token}.{part}", brisk=brisk) for part in range(rng.randint(5, 40))),
        at_s=rng.uniform(0.0, storm_s),
        key=token,
        patient=True,
        priority=5,
        delay_s=0.0,
        wants_result=False,
        limited=False,
        packed=rng.random() < 0.1,
        meddles=rng.random() < 0.8,
        apart=True,
    )


def _short(rng: Random, token: str, *, brisk: bool) -> Order:
    longer = 0.03 if brisk else 0.2
    acts = (Act.RETURN,) if rng.random() >= longer else (rng.choice((Act.RAISE, Act.HANG, Act.GIVE_UP, Act.TRY_AGAIN)), Act.RETURN)
    return Order(token, acts, rng.choice((0.02, 0.3)) if rng.random() < longer else rng.choice(SHORT_S))
