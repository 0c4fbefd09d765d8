"""A server that forks its workers after the app was opened is told what to do, in each worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@contextmanager
def gunicorn(folder: Path, *options: str) -> Generator[str]:
    """A gunicorn that serves `preloaded`, and where."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environ = {**os.environ, "PRELOADED_STORE": f"sqlite:///{folder}/jobs.db"}
    ready = folder / "ready"
    os.mkfifo(ready)
    config = folder / "gunicorn.conf.py"
    config.write_text(f"def post_worker_init(worker):\n    open({str(ready)!r}, 'w').close()\n", encoding="utf-8")
    command = [sys.executable, "-m", "gunicorn", "-c", str(config), "--bind", address, *options, "tests.faults.preloaded:application"]
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        ready.read_bytes()  # returns when a worker has opened and closed it
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def said_by(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
        return str(answer.read(), "utf-8")


@pytest.mark.parametrize("preload", [True, False])
def test_a_worker_that_was_forked_names_the_hook(tmp_path: Path, preload: bool) -> None:  # noqa: FBT001 -- both are shown
    pytest.importorskip("gunicorn")
    with gunicorn(tmp_path, *(["--preload"] if preload else [])) as address:
        said = said_by(address)
    if preload:
        assert said.startswith("UsedAfterFork")
        assert "post_fork" in said
        assert "postfork" in said
    else:
        assert said.partition("-")[2].isdigit(), "without --preload each worker opens its own, and it works"
