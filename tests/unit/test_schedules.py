"""When a schedule ticks: intervals, cron expressions, summer time, and what is due after a time when nobody looked."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cabrank
from cabrank.schedules import MISSED_LIMIT, ON_TIME_S, Missed, Schedule

BERLIN = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=BERLIN), datetime(2026, 10, 25, tzinfo=BERLIN)  # 2:00 → 3:00, 3:00 → 2:00
NEVER = cabrank.Retry(attempts=1)


def schedule(cron: str = "", *, every_s: float = 0.0, timezone: str = "Europe/Berlin", missed: Missed = Missed.ONCE) -> Schedule:
    return Schedule(name="s", handler="h", cron=cron, every_s=every_s, timezone=timezone, missed=missed)


def texts(cron: str, after: datetime, count: int) -> list[str]:
    ticks = islice(schedule(cron).ticks(after.timestamp()), count)
    return [datetime.fromtimestamp(tick, BERLIN).strftime("%d %H:%M%z") for tick in ticks]


def test_a_fixed_time_that_spring_leaves_out_comes_at_the_end_of_the_gap() -> None:
    assert texts("30 2 * * *", SPRING, 2) == ["29 03:00+0200", "30 02:30+0200"]
    assert texts("0,30 2 * * *", SPRING, 2) == ["29 03:00+0200", "30 02:00+0200"]


def test_a_fixed_time_that_autumn_has_twice_comes_once() -> None:
    assert texts("30 2 * * *", AUTUMN, 2) == ["25 02:30+0200", "26 02:30+0100"]
    between = datetime(2026, 10, 25, 2, 15, fold=1, tzinfo=BERLIN)
    assert texts("30 2 * * *", between, 1) == ["26 02:30+0100"]


def test_what_comes_round_goes_on_as_time_does() -> None:
    assert texts("*/30 * * * *", datetime(2026, 3, 29, 1, 10, tzinfo=BERLIN), 3) == ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]
    autumn = texts("0 * * * *", datetime(2026, 10, 25, 1, 10, tzinfo=BERLIN), 3)
    assert autumn == ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]


@given(
    st.sampled_from(["30 2 * * *", "0,30 2 * * *", "*/20 * * * *", "15 */2 * * *", "0 0 * * *", "0 3 29 3 *", "5 1-4 * * sun"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "UTC"]),
    st.integers(1_774_000_000, 1_794_000_000),
    st.integers(0, 200_000),
)
def test_ticks_are_the_same_wherever_one_begins_to_look(cron: str, timezone: str, start: int, later: int) -> None:
    """So processes that start at different moments agree, and none is skipped or comes twice when the clocks are set."""
    its = schedule(cron, timezone=timezone)
    end = start + 260_000
    ticks = list(its._until(start, end))
    assert all(one < next_ for one, next_ in pairwise(ticks))
    assert list(its._until(start + later, end)) == [tick for tick in ticks if tick > start + later]
    if ticks:
        assert its.next_after(ticks[0] - 0.5) == ticks[0]


def test_intervals_are_counted_from_1970_for_everybody() -> None:
    assert list(islice(schedule(every_s=90).ticks(1_000), 3)) == [1_080, 1_170, 1_260]
    assert schedule(every_s=90).next_after(1_080) == 1_170
    third = schedule(every_s=10 / 3)
    ticks = list(islice(third.ticks(1.7e9), 1_000))
    assert all(third.next_after(one) == next_ for one, next_ in pairwise(ticks))


def test_six_fields_begin_with_seconds() -> None:
    assert list(islice(schedule("*/20 * * * * *").ticks(0), 3)) == [20, 40, 60]


@pytest.mark.parametrize(
    ("missed", "away_s", "ticks"),
    [
        (Missed.ONCE, 3 * 3600 + 5, [4 * 3600.0]),
        (Missed.ONCE, 3 * 3600 + 600, [4 * 3600.0]),
        (Missed.SKIP, 3 * 3600 + 600, []),
        (Missed.SKIP, 3 * 3600 + ON_TIME_S, [4 * 3600.0]),
        (Missed.ALL, 3 * 3600 + 600, [7200.0, 3 * 3600.0, 4 * 3600.0]),
        (Missed.ALL, 1800, []),
    ],
)
def test_what_is_due_after_a_time_away(missed: Missed, away_s: float, ticks: list[float]) -> None:
    due = schedule("0 * * * *", missed=missed, timezone="UTC").due(3600, 3600 + away_s)
    assert list(due.ticks) == ticks
    assert due.until == (3600 if away_s == 1800 else 4 * 3600)
    assert due.left_out is (missed is not Missed.ALL)


@pytest.mark.parametrize("its", [schedule("* * * * * *", missed=Missed.ALL), schedule(every_s=1, missed=Missed.ALL)])
def test_a_month_away_costs_little_and_gives_the_last_hundred(its: Schedule) -> None:
    due = its.due(0, 30 * 86_400)
    assert list(due.ticks) == list(range(30 * 86_400 - MISSED_LIMIT + 1, 30 * 86_400 + 1))
    assert due.left_out


def test_rare_ticks_are_found_however_long_ago() -> None:
    due = schedule("0 0 29 2 *", missed=Missed.ALL, timezone="UTC").due(0, datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    assert len(due.ticks) == 14


def test_arguments_may_depend_on_the_tick() -> None:
    its = Schedule(name="s", handler="h", cron="0 6 * * *", timezone="Europe/Berlin", args=lambda at: (at.isoformat(),))
    assert its.arguments(its.next_after(SPRING.timestamp())) == ("2026-03-29T06:00:00+02:00",)
    assert Schedule(name="s", handler="h", every_s=5, args=[1, 2]).arguments(5) == (1, 2)


@pytest.mark.parametrize(
    ("cron", "given", "says"),
    [
        ("", {}, "give a cron expression or every_s"),
        ("* * * * *", {"every_s": 5}, "one of them"),
        ("", {"every_s": 0.5}, "from 1, not 0.5"),
        ("", {"every_s": float("inf")}, "from 1, not inf"),
        ("@daily", {}, "has not five fields"),
        ("61 * * * *", {}, "is no cron expression .bad minute."),
        ("0 0 30 2 *", {}, "is no cron expression .bad day-of-month."),
        ("0 0 * * *", {"timezone": "Berlin"}, "time zone 'Berlin' is unknown: write one like Europe/Berlin"),
        ("0 0 * * *", {"timezone": "../etc"}, "is unknown"),
        ("0 0 * * *", {"name": "no spaces"}, "cannot name a schedule"),
        ("0 0 * * *", {"missed": "never"}, "it is one of skip, once, all"),
        ("0 0 * * *", {"args": (1,)}, "its args are not what 'work' takes"),
        ("0 0 * * *", {"args": ("a", "b")}, "its args are not what 'work' takes"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(cron: str, given: dict[str, object], says: str) -> None:
    app = cabrank.App()

    @app.job
    async def work(name: str) -> None: ...

    with pytest.raises(cabrank.RegistrationError, match=says):
        app.schedule(cron, **{"args": ("a",), **given})(work)  # type: ignore[arg-type]
    assert app.schedules == {}


def test_a_schedule_stands_above_a_job_of_its_app_and_two_have_two_names() -> None:
    app = cabrank.App()

    @app.schedule("0 7 * * mon", name="weekly")
    @app.schedule(every_s=60, missed="skip")
    @app.job
    async def work() -> None: ...

    assert {name: its.spec for name, its in app.schedules.items()} == {"work": "every 60 s", "weekly": "0 7 * * mon UTC"}
    with pytest.raises(cabrank.RegistrationError, match="named 'weekly' already"):
        app.schedule(every_s=60, name="weekly")(work)
    with pytest.raises(cabrank.RegistrationError, match=r"above its @app\.job"):
        app.schedule(every_s=60)(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(cabrank.RegistrationError, match=r"above its @app\.job"):
        cabrank.App().schedule(every_s=60)(work)


def test_an_option_that_cannot_be_meant_is_refused_when_a_dispatcher_is_made() -> None:
    app = cabrank.App()

    @app.schedule(every_s=60, priority=10)
    @app.job
    async def work() -> None: ...

    with pytest.raises(cabrank.RegistrationError, match="schedule 'work': priority is 0"):
        cabrank.Dispatcher(app)
