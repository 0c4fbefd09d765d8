"""The load generator: wrk, one thread, connections kept alive, one fixed document."""

import shutil
import subprocess
from pathlib import Path

import msgspec

from bench.errors import RoundNotClean, ToolMissing

SCRIPT = Path(__file__).with_name("load.lua")
ANSWER_LIMIT_S = 30  # wrk's own patience with one answer; past it a request counts as broken


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What wrk saw in one run: `refused` answers were 4xx or 5xx, `broken` ones never came."""

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_s


def find_wrk() -> str:
    """The path of wrk.

    Raises: ToolMissing.
    """
    found = shutil.which("wrk")
    if found is None:
        raise ToolMissing("wrk is missing, and `make bench` needs it: apt-get install wrk")
    return found


def wrk_version() -> str:
    # wrk prints its version above its usage, and exits with 1 even though it was asked for it.
    answer = subprocess.run([find_wrk(), "--version"], check=False, capture_output=True, text=True)
    return " ".join(answer.stdout.splitlines()[0].split()[:2])


def post(url: str, *, body: Path, connections: int, seconds: int) -> Load:
    """Post that document over so many connections for so long; wrk takes whole seconds only.

    Raises: RoundNotClean, if any request was refused or broken, or none answered.
    """
    command = [find_wrk(), "--threads=1", f"--connections={connections}", f"--duration={seconds}s", "--latency"]
    command += [f"--timeout={ANSWER_LIMIT_S}s", f"--script={SCRIPT}", url, "--", str(body)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    load = msgspec.json.decode(printed.strip().splitlines()[-1], type=Load)
    if not load.requests:
        raise RoundNotClean(f"{url}: no request was answered in {seconds} s")
    if load.refused or load.broken:
        raise RoundNotClean(f"{url}: of {load.requests:,} requests {load.refused:,} were refused and {load.broken:,} broken")
    return load
