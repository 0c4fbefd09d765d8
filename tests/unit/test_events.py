from __future__ import annotations

import pytest

from cabrank.events import Event, Events, JobsClaimed


def test_nobody_listens_at_first() -> None:
    assert not Events()


def test_each_subscriber_hears_each_event_until_it_leaves() -> None:
    events = Events()
    one: list[Event] = []
    other: list[Event] = []
    leave = events.subscribe(one.append)
    events.subscribe(other.append)
    assert events
    first, second = JobsClaimed([]), JobsClaimed([])
    events.publish(first)
    leave()
    events.publish(second)
    assert (one, other) == ([first], [first, second])


def test_one_that_raises_is_logged_and_keeps_nobody_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise LookupError(event)

    events.subscribe(broken)
    events.subscribe(heard.append)
    events.publish(JobsClaimed([]))
    events.publish(JobsClaimed([]))
    assert len(heard) == 2
    assert caplog.text.count("an event subscriber raised") == 2
    assert "LookupError" in caplog.text


def test_one_may_leave_while_it_hears() -> None:
    events = Events()
    heard: list[Event] = []

    def once(event: Event) -> None:
        heard.append(event)
        leave()

    leave = events.subscribe(once)
    events.subscribe(heard.append)
    events.publish(JobsClaimed([]))
    events.publish(JobsClaimed([]))
    assert len(heard) == 3
