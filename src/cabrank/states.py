"""The states of a job and what moves it from one to the next.

`TRANSITIONS` is the whole truth: stores, tests and the diagram in the docs read it, and nothing else compares states.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job stands. *Ready* is not a state: it is a waiting job whose due time has come."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    HELD = "held"


class Cause(StrEnum):
    """Why a job left a state."""

    CLAIMED = "claimed"
    RETURNED = "returned"
    RETRIED = "retried"
    SNOOZED = "snoozed"
    RELEASED = "released"
    CRASHED = "crashed"
    GAVE_UP = "gave_up"
    WORKER_LOST = "worker_lost"
    CANCELLED = "cancelled"
    DROPPED = "dropped"
    UNREADABLE = "unreadable"
    REOPENED = "reopened"


TRANSITIONS: dict[tuple[State, Cause], State] = {
    (State.WAITING, Cause.CLAIMED): State.RUNNING,
    (State.WAITING, Cause.CANCELLED): State.CANCELLED,
    (State.WAITING, Cause.DROPPED): State.EXPIRED,
    (State.RUNNING, Cause.RETURNED): State.DONE,
    (State.RUNNING, Cause.RETRIED): State.WAITING,  # it raised or timed out, and the policy lets it try again
    (State.RUNNING, Cause.SNOOZED): State.WAITING,  # it asked to be run later; no failure
    (State.RUNNING, Cause.RELEASED): State.WAITING,  # its dispatcher stopped; no failure
    (State.RUNNING, Cause.CRASHED): State.WAITING,  # its holder died
    (State.RUNNING, Cause.GAVE_UP): State.DEAD,
    (State.RUNNING, Cause.WORKER_LOST): State.DEAD,  # its holders died `max_crashes` times
    (State.RUNNING, Cause.CANCELLED): State.CANCELLED,
    (State.RUNNING, Cause.DROPPED): State.EXPIRED,  # its deadline had passed when a worker took it
    (State.RUNNING, Cause.UNREADABLE): State.HELD,  # its payload does not decode here
    (State.DEAD, Cause.REOPENED): State.WAITING,  # this and the rest: by a person
    (State.CANCELLED, Cause.REOPENED): State.WAITING,
    (State.EXPIRED, Cause.REOPENED): State.WAITING,
    (State.HELD, Cause.REOPENED): State.WAITING,
    (State.HELD, Cause.CANCELLED): State.CANCELLED,
}

UNFINISHED = frozenset({State.WAITING, State.RUNNING, State.HELD})
FAILURES = frozenset({Cause.RETRIED, Cause.GAVE_UP})
"""The causes of runs that raised or timed out."""
DEATHS = frozenset({Cause.GAVE_UP, Cause.WORKER_LOST})
"""The causes of jobs that were given up."""
CRASHES = frozenset({Cause.CRASHED, Cause.WORKER_LOST})
"""The causes of runs whose process died."""


def after(state: State, cause: Cause) -> State:
    """The state that `cause` leads to.

    Raises:
        ValueError: a job in that state cannot leave it for that cause.
    """
    try:
        return TRANSITIONS[state, cause]
    except KeyError:
        raise ValueError(f"a {state} job cannot be {cause}") from None
