from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cabrank.errors import SettingError
from cabrank.settings import MEMORY_BOUND, Bound, Kind, Settings, Workers, load, reasons, sources


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
        ({"CABRANK_MAX_WORKERS": "uploads=0-4"}, "max_workers must be at least 1"),
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
    with pytest.raises(SettingError, match=r"no setting named max_worker; did you mean max_workers\?"):
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
        ((4, 64), "others", Kind.THREAD, (4, 64)),
        ({"uploads": (4, 64)}, "uploads", Kind.ASYNC, (4, 64)),
    ],
)
def test_workers_by_queue_and_kind(given: Any, queue: str, kind: Kind, workers: Workers) -> None:
    assert Settings(max_workers=given).workers_of(queue, kind, cores=2) == workers


@pytest.mark.parametrize(
    ("text", "workers"), [("8", 8), ("4-64", (4, 64)), ("uploads=4-64,thread=4", {"uploads": (4, 64), "thread": 4}), ("a=1", {"a": 1})]
)
def test_workers_are_read_as_numbers_or_as_the_least_and_the_most(text: str, workers: object) -> None:
    assert load({"CABRANK_MAX_WORKERS": text}).max_workers == workers


@pytest.mark.parametrize(
    ("text", "words"), [("64-4", "not 64-4"), ("0-4", "at least 1"), ("4-", "give a number"), ("a=4-b", "give a number")]
)
def test_a_least_and_a_most_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        load({"CABRANK_MAX_WORKERS": text})


def test_the_room_of_a_queue_is_one_number() -> None:
    with pytest.raises(SettingError, match="CABRANK_MAX_QUEUE"):
        load({"CABRANK_MAX_QUEUE": "4-64"})


def test_threads_have_a_limit_on_large_machines() -> None:
    assert Settings().workers_of("thread", Kind.THREAD, cores=96) == 32


def test_bounds_by_queue() -> None:
    assert Settings().bound_of("a", MEMORY_BOUND) == MEMORY_BOUND
    assert Settings(max_queue=5).bound_of("a", MEMORY_BOUND) == Bound(5, MEMORY_BOUND.bytes)
    assert Settings(max_queue={"a": 5}).bound_of("b", MEMORY_BOUND) == MEMORY_BOUND


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "cabrank.toml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


def test_a_variable_goes_before_the_file_and_the_file_before_the_default(file: Callable[[str], str]) -> None:
    path = file("grace_s = 1\nlease_s = 60\nsweep_s = 3\n")
    settings = load({"CABRANK_CONFIG": path, "CABRANK_LEASE_S": "90"}, grace_s=2.0)
    assert (settings.grace_s, settings.lease_s, settings.sweep_s, settings.renew_s) == (2.0, 90.0, 3.0, 10.0)
    assert load({"CABRANK_CONFIG": "/nowhere"}, config=path).grace_s == 1.0, "a keyword goes before the variable"
    assert load({}, config=path, otherwise={"grace_s": 5.0, "port": 1}).port == 1
    assert load({}, config=path, otherwise={"grace_s": 5.0}).grace_s == 1.0


def test_each_source_is_named(file: Callable[[str], str]) -> None:
    path = file('# ours\ngrace_s = 1\n\n[max_workers]\nuploads = 2\n[ "max_queue" ]\na = 1\n')
    made = sources({"CABRANK_PORT": "1"}, config=path, host="::1")
    assert {name: source.place for name, source in made.items()} == {
        "grace_s": f"{path}:2",
        "max_workers": f"{path}:4",
        "max_queue": f"{path}:6",
        "port": "CABRANK_PORT",
        "host": "host",
    }
    assert made["max_workers"].value == {"uploads": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grace_s = 1\nmax_worker = 3\n", r"cabrank.toml:2: no setting named max_worker; did you mean max_workers\?"),
        ("[uploads]\nworkers = 3\n", "cabrank.toml:1: no setting named uploads; there are store"),
        ("\ngrace_s = 'soon'\n", "cabrank.toml:2: grace_s='soon'"),
        ("max_workers = 'many'\n", "cabrank.toml:1: max_workers='many'.*uploads=200"),
        ("grace_s: 10\n", "line 1.*grace_s = 10"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(file: Callable[[str], str], text: str, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        load({}, config=file(text))


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"nowhere\.toml: the file of settings cannot be read"):
        load({}, config=str(tmp_path / "nowhere.toml"))
    (tmp_path / "blob").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingError, match="not a text file"):
        load({}, config=str(tmp_path / "blob"))
