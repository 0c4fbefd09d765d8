"""`acknowledging` killed again and again at random moments, and what is left of what it acknowledged."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

ROOT = Path(__file__).parents[2]
LONGEST_LIFE_S = 0.4


class Killed(msgspec.Struct, kw_only=True):
    """What came of the kills. `repeated` jobs ran more than once, `lost` were acknowledged and did not run."""

    kills: int
    acknowledged: int
    lost: int
    repeated: int
    first_job_s: list[float]
    """From each start that found something to do to its first job."""


def kill_at_random(folder: Path, way: str, kills: int, rng: Random) -> Killed:
    """Start it and kill it so many times, then let it run what is left. `way`: see `acknowledging`."""
    executed, first_job_s = folder / "executed", list[float]()
    for life in range(kills):
        with child(folder, way, str(life * 1_000_000)) as process:
            announced(process)
            before = _size(executed)
            began = time.monotonic()
            for moment in _until(began + rng.uniform(0.0, LONGEST_LIFE_S)):  # the moment of the kill is what is drawn
                if before is not None and _size(executed) != before:
                    first_job_s.append(moment - began)
                    before = None
            process.kill()
    with child(folder, way) as process:
        announced(process)
        assert process.wait() == 0
    acknowledged, ran = numbers(folder / "acknowledged"), numbers(executed)
    return Killed(
        kills=kills,
        acknowledged=len(acknowledged),
        lost=len(set(acknowledged) - set(ran)),
        repeated=len(ran) - len(set(ran)),
        first_job_s=first_job_s,
    )


def child(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.flow.acknowledging", str(folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def announced(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"


def numbers(file: Path) -> list[int]:
    return [int(line) for line in file.read_bytes().split(b"\n")[:-1]]


def _until(moment: float) -> Iterator[float]:
    while (now := time.monotonic()) < moment:
        yield now
        time.sleep(0.002)


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.exists() else 0
