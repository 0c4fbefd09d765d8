"""kill -9 at random moments, in real processes on a real file: what was acknowledged is executed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).parents[2]
KILLS = 10
LONGEST_LIFE_S = 0.4


@pytest.mark.timeout(120)  # eleven processes, each of which imports, opens and works
@pytest.mark.parametrize("way", ["one", "batch"])
@pytest.mark.parametrize("seed", [1])
def test_nothing_that_was_acknowledged_is_lost_by_kills(seed: int, way: str, tmp_path: Path) -> None:
    rng = Random(seed)
    for life in range(KILLS):
        with child(tmp_path, way, str(life * 1_000_000)) as process:
            announced(process)
            time.sleep(rng.uniform(0.0, LONGEST_LIFE_S))  # the moment of the kill is what is drawn, nothing is waited for
            process.kill()
    with child(tmp_path, way) as process:
        announced(process)
        assert process.wait() == 0
    acknowledged, executed = numbers(tmp_path / "acknowledged"), numbers(tmp_path / "executed")
    assert len(acknowledged) > KILLS, "they lived long enough to do something"
    assert set(acknowledged) - set(executed) == set()
    assert len(executed) - len(set(executed)) < len(executed) / 2, "only what ran at a kill is executed again"
    assert {file.name for file in locks_of(tmp_path)} == {"next", "turn"}, "each that died was cleared away"


def child(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.flow.acknowledging", str(folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def announced(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"


def numbers(file: Path) -> list[int]:
    return [int(line) for line in file.read_bytes().split(b"\n")[:-1]]


def locks_of(folder: Path) -> list[Path]:
    return list((folder / "jobs.db-locks").iterdir())
