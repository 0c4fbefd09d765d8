"""What this process knows of pauses: what a turn says, unless it had begun before somebody here said otherwise."""

from __future__ import annotations

from cabrank.pauses import Pauses


def test_what_a_turn_says_counts() -> None:
    pauses = Pauses()
    assert pauses.tell(["a", "b"], 1) == {"a", "b"}
    assert pauses.tell(["b", "c"], 2) == {"c"}
    assert pauses.queues == {"b", "c"}


def test_a_turn_that_had_begun_before_a_pause_does_not_undo_it() -> None:
    pauses = Pauses()
    pauses.say("a", paused=True, turns=7)
    assert pauses.tell([], 7) == frozenset()
    assert pauses.queues == {"a"}
    pauses.tell([], 8)
    assert pauses.queues == frozenset()


def test_a_turn_that_had_begun_before_a_resume_does_not_undo_it() -> None:
    pauses = Pauses()
    pauses.tell(["a", "b"], 1)
    pauses.say("a", paused=False, turns=2)
    assert pauses.tell(["a", "b"], 2) == frozenset()
    assert pauses.queues == {"b"}
    assert pauses.tell(["a", "b"], 3) == {"a"}, "somebody else paused it again"
