"""The demo carried out small, with one kill, and its verdict shown to find what it is there for."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from examples.demo.bucket import Bucket
from examples.demo.figures import Figures
from examples.demo.flights import KeyedDocument, group
from examples.demo.plan import even_points, random_points
from examples.demo.scratch import PROJECT
from examples.demo.sender import Acknowledged
from examples.demo.verdict import Verdict, compare
from examples.telemetry import Payload

FLIGHTS = 20_000
NAME = "test-demo"


@pytest.mark.timeout(180)
def test_the_demo_loses_nothing_with_one_kill() -> None:
    command = [sys.executable, "-m", "examples.demo", "--flights", str(FLIGHTS), "--kills", "1", "--name", NAME]
    environment = {name: value for name, value in os.environ.items() if name not in {"FLIGHTS", "KILL_SEED"}}
    demo = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    figures = msgspec.json.decode((PROJECT / "var" / NAME / "figures.json").read_bytes(), type=Figures)
    assert figures.kills == 1
    assert figures.payloads_acknowledged == figures.objects == FLIGHTS
    assert figures.lost == figures.invented == figures.misplaced == 0


def test_a_bucket_that_holds_the_input_is_clean(tmp_path: Path) -> None:
    assert verdict_on(tmp_path) == Counts(objects=3)


def test_a_missing_object_is_lost(tmp_path: Path) -> None:
    assert verdict_on(tmp_path, missing=["a-2"]) == Counts(objects=2, lost=1)


def test_a_payload_written_under_two_ids_is_invented(tmp_path: Path) -> None:
    assert verdict_on(tmp_path, written={"a-9": payload(1)}) == Counts(objects=4, invented=1, misplaced=1)


def test_a_changed_object_is_lost_and_invented(tmp_path: Path) -> None:
    assert verdict_on(tmp_path, written={"a-1": payload(77)}) == Counts(objects=3, lost=1, invented=1, misplaced=1)


def test_payloads_under_each_others_ids_are_misplaced(tmp_path: Path) -> None:
    assert verdict_on(tmp_path, written={"a-1": payload(2), "a-2": payload(1)}) == Counts(objects=3, misplaced=2)


def test_two_payloads_acknowledged_under_one_id_are_seen(tmp_path: Path) -> None:
    assert verdict_on(tmp_path, ids=["a-1", "a-2", "a-2"], missing=["a-3"]) == Counts(objects=2, lost=1, misplaced=1)


def test_a_staging_file_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "a-2#1").write_bytes(b"{")
    assert Bucket(tmp_path).count() == 0
    assert verdict_on(tmp_path) == Counts(objects=3)


def test_kills_are_spread_evenly() -> None:
    assert [point.share for point in even_points(1)] == [1 / 2]
    assert [point.share for point in even_points(2)] == [1 / 3, 2 / 3]


def test_a_seed_repeats_its_kill_points() -> None:
    assert random_points(2, seed=7) == random_points(2, seed=7)
    assert random_points(2, seed=7) != random_points(2, seed=8)


def test_documents_hold_all_payloads_in_order_and_fifty_at_most() -> None:
    documents = list(group(payload(number) for number in range(500)))
    assert sum(document.payloads for document in documents) == 500
    assert max(document.payloads for document in documents) <= 50
    assert len({document.key for document in documents}) == len(documents)


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    objects: int
    lost: int = 0
    invented: int = 0
    misplaced: int = 0


def verdict_on(
    folder: Path,
    *,
    ids: Sequence[str] = ("a-1", "a-2", "a-3"),
    missing: Sequence[str] = (),
    written: dict[str, Payload] | None = None,
) -> Counts:
    """Three payloads acknowledged under `ids`; objects a-1 to a-3 as they should be, but for `missing` and `written`."""
    payloads = [payload(number) for number in (1, 2, 3)]
    objects = dict(zip(("a-1", "a-2", "a-3"), payloads, strict=True)) | (written or {})
    for key, content in objects.items():
        if key not in missing:
            (folder / key).write_bytes(msgspec.json.encode(content))
    return counts(compare(payloads, [acknowledged(payloads, ids)], Bucket(folder)))


def counts(verdict: Verdict) -> Counts:
    assert len(verdict.stored_at) == verdict.objects
    return Counts(objects=verdict.objects, lost=verdict.lost, invented=verdict.invented, misplaced=verdict.misplaced)


def acknowledged(payloads: Sequence[Payload], ids: Sequence[str]) -> Acknowledged:
    body = msgspec.json.encode({"version": "1", "token": "t", "data": payloads})
    return Acknowledged(document=KeyedDocument(key="k", body=body, payloads=len(payloads)), ids=list(ids), ack_s=0.0)


def payload(flight: int) -> Payload:
    return Payload(
        device="N14228",
        recorded_at="2013-01-01T10:00:00Z",
        carrier="UA",
        flight=flight,
        origin="EWR",
        destination="IAH",
        departure_delay_min=2,
        arrival_delay_min=None,
        air_time_min=227,
        distance_miles=1400,
    )
