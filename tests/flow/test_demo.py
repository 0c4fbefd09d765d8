"""The demo carried out small, with one kill, and its verdict shown to find what it is there for."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
from examples.demo.weed import Weed
from examples.telemetry import Line, Payload

FLIGHTS = 20_000
NAME = "test-demo"


@pytest.mark.timeout(180)
def test_the_demo_loses_nothing_with_one_kill() -> None:
    figures = run_demo(NAME)
    assert figures.kills == 1
    assert figures.payloads_acknowledged == figures.objects == FLIGHTS
    assert figures.lost == figures.invented == figures.misplaced == 0


@pytest.mark.timeout(240)
def test_packed_on_a_real_s3_server_it_loses_nothing_either() -> None:
    figures = run_demo("test-demo-packed", "--pack")
    assert figures.kills == 1
    assert figures.payloads_acknowledged == figures.payloads_stored == FLIGHTS
    assert figures.lost == figures.invented == figures.misplaced == 0
    assert figures.objects < FLIGHTS / 20, "many payloads are in one object"


@pytest.mark.timeout(240)
def test_it_writes_to_any_bucket_of_an_s3_server(tmp_path: Path) -> None:
    with Weed(tmp_path / "s3") as weed:
        figures = run_demo("test-demo-bucket", "--bucket", weed.url, flights=2_000, environment=weed.environment)
    assert figures.payloads_acknowledged == figures.objects == figures.payloads_stored == 2_000
    assert figures.lost == figures.invented == figures.misplaced == 0


def test_an_s3_server_whose_port_was_taken_meanwhile_starts_on_others(tmp_path: Path) -> None:
    weed = Weed(tmp_path / "s3")
    endpoint = weed.environment["AWS_ENDPOINT"]
    with socket.create_server(("127.0.0.1", int(endpoint.rpartition(":")[2]))), weed:
        assert weed.environment["AWS_ENDPOINT"] != endpoint


def run_demo(name: str, *options: str, flights: int = FLIGHTS, environment: Mapping[str, str] | None = None) -> Figures:
    command = [sys.executable, "-m", "examples.demo", "--flights", str(flights), "--kills", "1", "--name", name, *options]
    own = {name: value for name, value in os.environ.items() if name not in {"FLIGHTS", "KILL_SEED", "PACK", "BUCKET"}}
    demo = subprocess.run(command, cwd=PROJECT, env=own | dict(environment or {}), capture_output=True, text=True, check=False)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    return msgspec.json.decode((PROJECT / "var" / name / "figures.json").read_bytes(), type=Figures)


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


def test_what_is_in_two_packed_objects_counts_once(tmp_path: Path) -> None:
    payloads = [payload(number) for number in (1, 2, 3)]
    lines = [Line(f"a-{number}", one) for number, one in enumerate(payloads, 1)]
    for name, its in (("a-1-2-x.ndjson", lines[:2]), ("a-2-2-x.ndjson", lines[1:])):
        (tmp_path / name).write_bytes(msgspec.json.Encoder().encode_lines(its))
    verdict = compare(payloads, [acknowledged(payloads, ["a-1", "a-2", "a-3"])], Bucket(tmp_path))
    assert (counts(verdict), verdict.payloads, verdict.twice) == (Counts(objects=2), 3, 1)


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
