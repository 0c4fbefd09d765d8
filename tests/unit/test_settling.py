from __future__ import annotations

from random import Random

import msgspec
import pytest

from cabrank.app import App
from cabrank.handler import AnyHandler
from cabrank.job import Job, Lease
from cabrank.policy import Cancelled, Lost, Outcome, Raised, Retry, Returned, TimedOut, Unreadable
from cabrank.settings import Settings
from cabrank.settling import settle
from cabrank.states import Cause

SETTINGS = Settings(result_limit=100, error_limit=200)


async def work(number: int) -> list[int]:
    return [number]


HANDLER: AnyHandler = App().job(retry=Retry(attempts=3))(work)
LEASE = Lease(Job(id=7, handler="work", queue="async", payload=b"1"), 4, failures=1)


def settled(outcome: Outcome, handler: AnyHandler | None = HANDLER) -> tuple[Cause, str, str]:
    settlement = settle(LEASE, outcome, handler, settings=SETTINGS, rng=Random(1))
    assert (settlement.id, settlement.run) == (7, 4)
    return settlement.cause, settlement.reason, settlement.error


def test_a_result_is_kept_as_json_and_as_itself() -> None:
    value = [1, 2]
    settlement = settle(LEASE, Returned(value), HANDLER, settings=SETTINGS, rng=Random(1))
    assert (settlement.cause, settlement.result, settlement.value) == (Cause.RETURNED, b"[1,2]", value)


@pytest.mark.parametrize("value", [object(), {1, object()}, "x" * 101, 10**400])
def test_a_result_that_cannot_be_kept_gives_the_job_up(value: object) -> None:
    cause, reason, error = settled(Returned(value))
    assert cause is Cause.GAVE_UP
    assert reason == "unrecordable"
    assert "cannot be kept" in error


def test_a_result_that_comes_as_json_is_kept_as_it_came() -> None:
    settlement = settle(LEASE, Returned(msgspec.Raw(b"[1, 2]")), HANDLER, settings=SETTINGS, rng=Random(1))
    assert (settlement.cause, settlement.result, settlement.value) == (Cause.RETURNED, b"[1, 2]", None)


@pytest.mark.parametrize(("limit", "crashes", "cause"), [(3, 0, Cause.CRASHED), (3, 1, Cause.CRASHED), (3, 2, Cause.WORKER_LOST)])
def test_a_job_whose_workers_die_is_run_until_it_has_crashed_too_often(limit: int, crashes: int, cause: Cause) -> None:
    handler: AnyHandler = App().job(max_crashes=limit, retry=Retry(attempts=1))(work)
    lost = Lost(OSError("killed by SIGSEGV"))
    settlement = settle(Lease(LEASE.job, 5, crashes=crashes), lost, handler, settings=SETTINGS, rng=Random(1))
    assert (settlement.cause, settlement.error, settlement.failure) == (cause, "killed by SIGSEGV", lost.error)
    assert settle(LEASE, lost, None, settings=SETTINGS, rng=Random(1)).cause is Cause.WORKER_LOST, "a bare callable is run once"


def test_the_result_of_a_bare_callable_is_whatever_it_is() -> None:
    value = object()
    settlement = settle(LEASE, Returned(value), None, settings=SETTINGS, rng=Random(1))
    assert (settlement.cause, settlement.result) == (Cause.RETURNED, None)
    assert settlement.value is value


def test_failures_before_this_run_count() -> None:
    assert settled(Raised(ValueError("x")))[0] is Cause.RETRIED
    lease = Lease(LEASE.job, 5, failures=2)
    assert settle(lease, Raised(ValueError("x")), HANDLER, settings=SETTINGS, rng=Random(1)).cause is Cause.GAVE_UP
    assert settled(Raised(ValueError("x")), None)[0] is Cause.GAVE_UP, "a bare callable is never tried again"


def test_errors_are_told_within_their_limit() -> None:
    cause, _, error = settled(Raised(ValueError("y" * 1_000)))
    assert cause is Cause.RETRIED
    assert len(error) <= SETTINGS.error_limit + 5
    assert error.startswith("ValueError") or "Traceback" in error
    assert error.endswith("y\n")


def test_an_error_that_cannot_be_told_is_named() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    assert "Mute" in settled(Raised(Mute()))[2]


def test_a_trace_that_comes_with_the_error_is_what_is_kept() -> None:
    assert settled(Raised(ValueError("x"), trace="Traceback from elsewhere"))[2] == "Traceback from elsewhere"


def test_other_outcomes_are_told_in_words() -> None:
    assert settled(TimedOut(5))[2] == "timed out after 5 s"
    assert settled(Unreadable("no x")) == (Cause.UNREADABLE, "", "no x")
    assert settled(Cancelled()) == (Cause.CANCELLED, "", "")
