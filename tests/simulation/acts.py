"""What a job leaves that does what its order says, where that is no more than to return or to raise something."""

from __future__ import annotations

from cabrank import Failure, GiveUp, Snooze, TryAgain
from tests.simulation.plan import Act, Order


class Broken(Exception):
    """What a job raises because its order says so."""


def said_of(act: Act, order: Order, run: int) -> Failure | None:
    """What the call of a batch handler says of one order."""
    match act:
        case Act.RAISE:
            return Failure(Broken(order.token))
        case Act.GIVE_UP:
            return Failure("ordered", retry=False)
        case Act.TRY_AGAIN:
            return Failure("ordered", after_s=0.1)
        case Act.SNOOZE if run % 2:
            return Failure(Snooze(for_s=0.3))
        case _:
            return None


def alone(act: Act, order: Order, run: int) -> int | None:
    """What one order comes to: the number of the run, or nothing, or something raised."""
    match act:
        case Act.RAISE:
            raise Broken(order.token)
        case Act.GIVE_UP:
            raise GiveUp("ordered")
        case Act.TRY_AGAIN:
            raise TryAgain(after_s=0.1)
        case Act.SNOOZE if run % 2:
            raise Snooze(for_s=0.3)
        case _:
            return run if order.run_s else None
