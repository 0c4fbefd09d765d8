from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cabrank.errors import SettingError
from cabrank.settings import MEMORY_BOUND, Bound, Kind, Settings, load, reasons


def test_a_keyword_goes_before_a_variable_and_a_variable_before_the_default() -> None:
    environ = {"CABRANK_MAX_WORKERS": "8", "CABRANK_LEASE_S": "60", "OTHER": "x"}
    settings = load(environ, max_workers=4, store=None)
    assert (settings.max_workers, settings.lease_s, settings.store, settings.sweep_s) == (4, 60.0, "memory://", 5.0)


@pytest.mark.parametrize(
    ("text", "meant"), [("8", 8), ("uploads=200,thread=4", {"uploads": 200, "thread": 4}), (" uploads = 2 , ", {"uploads": 2})]
)
def test_counts_are_given_for_all_queues_or_by_name(text: str, meant: object) -> None:
    assert load({"CABRANK_MAX_QUEUE": text}).max_queue == meant
    assert load({}, max_queue=meant).max_queue == meant


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"CABRANK_MAX_WORKERS": "many"}, "CABRANK_MAX_WORKERS='many'.*uploads=200"),
        ({"CABRANK_MAX_WORKERS": "0"}, "max_workers must be at least 1"),
        ({"CABRANK_MAX_QUEUE": "a=0"}, "max_queue must be at least 1"),
        ({"CABRANK_LEASE_S": "soon"}, "CABRANK_LEASE_S='soon'"),
        ({"CABRANK_LEASE_S": "0"}, "lease_s must be more than 0"),
        ({"CABRANK_GRACE_S": "-1"}, "grace_s"),
        ({"CABRANK_RENEW_S": "20"}, r"renew_s \(20\) must be at most half of lease_s \(30\)"),
        ({"CABRANK_PAYLOAD_LIMIT": "0"}, "payload_limit must be at least 1"),
    ],
)
def test_what_cannot_be_used_is_named(environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        load(environ)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingError, match=r"no setting named max_worker;.*max_workers"):
        load({}, max_worker=3)


def test_every_setting_has_a_reason() -> None:
    assert reasons().keys() == {field.name for field in msgspec.structs.fields(Settings)}
    assert all(len(reason) > 10 for reason in reasons().values())


@pytest.mark.parametrize(
    ("given", "queue", "kind", "workers"),
    [
        (None, "async", Kind.ASYNC, 100),
        (None, "thread", Kind.THREAD, 6),
        (None, "process", Kind.PROCESS, 2),
        (7, "uploads", Kind.ASYNC, 7),
        ({"uploads": 3}, "uploads", Kind.ASYNC, 3),
        ({"uploads": 3}, "others", Kind.THREAD, 6),
    ],
)
def test_workers_by_queue_and_kind(given: Any, queue: str, kind: Kind, workers: int) -> None:
    assert Settings(max_workers=given).workers_of(queue, kind, cores=2) == workers


def test_threads_have_a_limit_on_large_machines() -> None:
    assert Settings().workers_of("thread", Kind.THREAD, cores=96) == 32


def test_bounds_by_queue() -> None:
    assert Settings().bound_of("a", MEMORY_BOUND) == MEMORY_BOUND
    assert Settings(max_queue=5).bound_of("a", MEMORY_BOUND) == Bound(5, MEMORY_BOUND.bytes)
    assert Settings(max_queue={"a": 5}).bound_of("b", MEMORY_BOUND) == MEMORY_BOUND
