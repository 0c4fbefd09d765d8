from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cabrank
from cabrank import Limit
from cabrank.drafts import limit_key
from cabrank.errors import PayloadInvalid, RegistrationError, SettingError

RATES = st.builds(Limit, per_s=st.floats(0.01, 2_000), burst=st.none() | st.floats(1, 50))
STEPS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 100)), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        ({}, "running="),
        ({"running": 0}, "running"),
        ({"running": 1.5}, "running"),
        ({"per_s": 0}, "per_s"),
        ({"per_s": math.inf}, "per_s"),
        ({"per_s": "10"}, "per_s"),
        ({"running": 3, "burst": 2}, "burst"),
        ({"per_s": 3, "burst": 0.5}, "burst"),
        ({"running": 3, "key": "customer"}, "key"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(given_: dict[str, Any], word: str) -> None:
    with pytest.raises(SettingError, match=rf"Limit.*{word}"):
        Limit(**given_)


def test_a_handler_takes_a_limit_and_nothing_else_for_it() -> None:
    app = cabrank.App()
    with pytest.raises(RegistrationError, match=r"limit is a cabrank\.Limit"):
        app.job(limit=4)(work)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_so_many_run_at_once() -> None:
    limit = Limit(running=4)
    assert [limit.open(running=running, full_at=0, now=5, most=3) for running in (0, 1, 2, 4, 9)] == [3, 3, 2, 0, 0]
    assert limit.spend(full_at=0, now=5, jobs=4) == 0


def test_a_bucket_is_full_at_first_then_a_job_may_start_each_time_a_token_comes() -> None:
    limit = Limit(per_s=10, burst=3)
    assert limit.open(running=0, full_at=0, now=100, most=9) == 3
    full_at = limit.spend(full_at=0, now=100, jobs=3)
    assert limit.open(running=0, full_at=full_at, now=100, most=9) == 0
    assert limit.next_at(full_at=full_at, now=100) == pytest.approx(100.1)
    assert limit.open(running=0, full_at=full_at, now=100.1, most=9) == 1
    assert limit.open(running=0, full_at=full_at, now=100.25, most=9) == 2
    assert limit.open(running=0, full_at=full_at, now=200, most=9) == 3


@pytest.mark.parametrize(("per_s", "burst"), [(1, 1), (10, 1), (50, 5), (0.1, 1)])
def test_the_burst_is_a_tenth_of_a_second_by_default_and_at_least_one(per_s: float, burst: float) -> None:
    assert Limit(per_s=per_s).capacity == burst


def test_a_moment_of_another_clock_empties_the_bucket_and_no_more() -> None:
    """The machine's clock begins anew when it boots."""
    limit = Limit(per_s=2, burst=4)
    assert limit.open(running=0, full_at=90_000, now=10, most=9) == 0
    assert limit.next_at(full_at=90_000, now=10) == pytest.approx(10.5)


@given(limit=RATES, steps=STEPS, start=st.floats(0, 1e6))
def test_in_no_stretch_of_time_more_start_than_the_burst_and_what_the_rate_gives(
    limit: Limit, steps: list[tuple[float, int]], start: float
) -> None:
    now, full_at = start, 0.0
    starts: list[tuple[float, int]] = []
    for wait_s, wanted in steps:
        now += wait_s
        jobs = limit.open(running=0, full_at=full_at, now=now, most=wanted)
        full_at = limit.spend(full_at=full_at, now=now, jobs=jobs)
        starts.append((now, jobs))
    assert limit.per_s is not None
    for first, last in itertools.combinations_with_replacement(range(len(starts)), 2):
        started = sum(jobs for _, jobs in starts[first : last + 1])
        assert started <= limit.capacity + limit.per_s * (starts[last][0] - starts[first][0]) + 1e-3


@given(limit=RATES, start=st.floats(0, 1e6), greedy=st.integers(1, 200))
def test_who_waits_for_the_next_token_may_start_then(limit: Limit, start: float, greedy: int) -> None:
    full_at = 0.0
    for _ in range(3):
        jobs = limit.open(running=0, full_at=full_at, now=start, most=greedy)
        full_at = limit.spend(full_at=full_at, now=start, jobs=jobs)
    if not limit.open(running=0, full_at=full_at, now=start, most=1):
        assert limit.open(running=0, full_at=full_at, now=limit.next_at(full_at=full_at, now=start), most=1) == 1


def work(customer: str) -> None:
    del customer


def _keyed(key: Any) -> cabrank.Handler[[str], None]:
    return cabrank.App().job(limit=Limit(running=1, key=key))(work)


@pytest.mark.parametrize(
    ("key", "made"),
    [(None, ""), (lambda c: c, "acme"), (lambda _: 7, "7"), (lambda c: f"é{c}", "éacme")],
    ids=["none", "text", "int", "utf8"],
)
def test_a_key_is_what_the_function_says_of_the_arguments(key: Any, made: str) -> None:
    assert limit_key(_keyed(key), ("acme",)) == made


@pytest.mark.parametrize(
    "key",
    [lambda c: c.missing, lambda _: None, lambda c: c * 65, lambda _: "\udcff", lambda _: "a\0b", lambda: "", lambda _: 1 / 0],
    ids=["attribute", "none", "long", "surrogate", "zero", "arguments", "raises"],
)
def test_a_key_that_cannot_be_had_is_an_invalid_payload(key: Any) -> None:
    with pytest.raises(PayloadInvalid, match="work: the key of its limit cannot be had"):
        limit_key(_keyed(key), ("acme",))
