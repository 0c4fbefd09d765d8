"""`cabrank.blocking` offers what `cabrank` does: the same names, with the same arguments and defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import cabrank
from cabrank import blocking

INNER = {
    "accept",  # what the committer asks of a dispatcher
    "wants",
    "make_way",
    "halt",
    "lose",
    "enter",  # for fronts
    "take_block",
    "feed",
    "expect",  # of a handle: for maps
    "learn",
    "origin",
    "owner",
    "fail",
    "within",  # of a handle without a loop
}
IN_OTHER_WORDS = {"aclose": "close"}
LOOPLESS = {"__aiter__": "__iter__", "__anext__": "__next__", "__aenter__": "__enter__", "__aexit__": "__exit__"}
PAIRS = [
    (cabrank.Intake, blocking.Intake),
    (cabrank.Dispatcher, blocking.Dispatcher),
    (cabrank.JobHandle, blocking.JobHandle),
    (cabrank.Results, blocking.Results),
    (cabrank.Mapped, blocking.Mapped),
]


def offered(one: type) -> set[str]:
    """The public names of a class, but for those that people do not call."""
    return {IN_OTHER_WORDS.get(name, name) for name in dir(one) if not name.startswith("_")} - INNER


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda one: one.__qualname__)
def test_the_names_are_the_same(ours: type, theirs: type) -> None:
    instance_made = {"item", "handle"} if ours is cabrank.Mapped else set[str]()
    assert offered(theirs) == offered(ours) | instance_made
    for with_loop, without in LOOPLESS.items():
        assert hasattr(ours, with_loop) is hasattr(theirs, without), without


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda one: one.__qualname__)
def test_arguments_and_defaults_are_the_same(ours: type, theirs: type) -> None:
    told = {name: parameters(getattr(ours, name)) for name in offered(ours) if callable(getattr(ours, name, None))}
    assert {name: parameters(getattr(theirs, name)) for name in told} == told


@pytest.mark.parametrize("name", ["Intake", "Dispatcher"])
def test_they_are_made_of_the_same_but_for_what_cannot_be_shared_by_processes(name: str) -> None:
    """A store that is open, a clock, chance and workers of one's own are of one process; a blocking front makes them anew in each."""
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (cabrank, blocking))
    assert list(theirs) == [one for one in ours if one not in {"clock", "rng", "spawn", "keep"}]
    assert {one: ours[one].annotation for one in theirs if one != "store"} == {
        one: theirs[one].annotation for one in theirs if one != "store"
    }


@pytest.mark.parametrize("name", ["submit", "try_submit", "submit_many", "map", "map_unordered", "resize", "pause", "resume", "drain"])
def test_the_options_have_the_same_types(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(one, name)).parameters for one in (cabrank.Dispatcher, blocking.Dispatcher))
    asynchronous = "Iterable[Any] | AsyncIterable[Any]"
    assert {one: theirs[one].annotation for one in theirs} == {
        one: "Iterable[Any]" if ours[one].annotation == asynchronous else ours[one].annotation for one in ours
    }
