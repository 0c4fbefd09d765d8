"""The bucket as the demo reads it: a local folder, one file for each object, or a bucket of an S3 server."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import msgspec
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from examples.demo.failure import DemoFailed

READERS = 16  # objects that are read at once
LIST_CHUNK = 10_000  # objects; a list call's default of 50 costs twice as much


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object: its key, when it was written, and what is in it."""

    key: str
    stored_at: float
    body: bytes


class Bucket:
    """The objects in one folder. A put that was killed leaves its staging file (`key#1`), which is no object."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def count(self) -> int:
        """How many objects there are. Cost: 0.4 us an object, a thirteenth of a listing."""
        with os.scandir(self._folder) as entries:
            return sum("#" not in entry.name for entry in entries)

    def objects(self) -> Iterator[StoredObject]:
        """Every object, as the object store lists them, in no order."""
        # One of the overloads, not this one, names a type of a package that obstore does not require.
        for chunk in LocalStore(self._folder).list(chunk_size=LIST_CHUNK):  # pyright: ignore[reportUnknownMemberType]
            for entry in chunk:
                key = entry["path"]
                yield StoredObject(key=key, stored_at=entry["last_modified"].timestamp(), body=(self._folder / key).read_bytes())


class RemoteBucket:
    """The objects below s3://name/folder. `environment` goes before the process's own."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        self._url = url
        config = cast("Any", {name.removeprefix("AWS_").lower(): value for name, value in environment.items()})
        name, _, folder = url.removeprefix("s3://").partition("/")
        self._store = S3Store(name, prefix=folder or None, config=config, client_options={"timeout": "30s", "allow_http": True})

    def check(self) -> None:
        """Put an object and take it away.

        Raises:
            DemoFailed: the bucket does not take it.
        """
        try:
            self._store.put("ready", b"")
            self._store.delete("ready")
        except (BaseError, OSError) as error:
            raise DemoFailed(f"{self._url} takes no object: {error}. AWS_ENDPOINT, AWS_ACCESS_KEY_ID … say how it is reached") from error

    def objects(self) -> Iterator[StoredObject]:
        """Every object, in no order."""
        with ThreadPoolExecutor(READERS) as readers:
            for chunk in self._store.list(chunk_size=LIST_CHUNK):  # pyright: ignore[reportUnknownMemberType] -- as above
                times = {entry["path"]: entry["last_modified"].timestamp() for entry in chunk}
                for key, body in readers.map(self._read, times):
                    yield StoredObject(key=key, stored_at=times[key], body=body)

    def _read(self, key: str) -> tuple[str, bytes]:
        return key, bytes(self._store.get(key).bytes())
