"""`python -m bench.faults NAME`: the fault tests at their full size, one line of JSON for each.

The small samples of the same are in `make test` (tests/faults, tests/flow/test_kill.py). `rolling` needs a machine that does little else:
it asks for speed too.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from statistics import median, quantiles

import msgspec

from bench.harm import Figures, blocked, bomb, hangs, stops
from cabrank.settings import Durability
from tests.faults.cuts import Life
from tests.faults.rolling import roll
from tests.faults.suspects import serve_suspects
from tests.flow.killing import kill_at_random


def main() -> int:
    """Run one of them, print its figures, and return 0 only if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__, allow_abbrev=False)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument(
        "--trials", type=int, help="kills, turns, innocents, or jobs before and after the roll; the default is the full size"
    )
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures, passed = FAULTS[chosen.fault](Path(folder), chosen.trials, Random(chosen.seed))
    took_s = round(time.monotonic() - began, 1)
    print(msgspec.json.encode({"fault": chosen.fault, "seed": chosen.seed, **figures, "took_s": took_s}).decode())
    return 0 if passed else 1


def _kills(folder: Path, trials: int | None, rng: Random) -> tuple[Figures, bool]:
    """`SIGKILL` of a process that submits and runs, at random moments."""
    killed = kill_at_random(folder, "one", trials or 1_000, rng)
    first_s = sorted(killed.first_job_s) or [0.0, 0.0]
    figures = {
        "kills": killed.kills,
        "acknowledged": killed.acknowledged,
        "lost": killed.lost,
        "run_again": killed.repeated,
        "to_first_job_p50_s": round(median(first_s), 3),
        "to_first_job_p99_s": round(quantiles(first_s, n=100)[98], 3),
    }
    return figures, not killed.lost


def _power(folder: Path, trials: int | None, rng: Random) -> tuple[Figures, bool]:
    """The power is cut at random writes, for either durability."""
    figures: dict[str, object] = {}
    passed = True
    for durability in Durability:
        place = folder / durability
        place.mkdir()
        cuts = Life(place, durability, rng, every=12).run(trials or 2_000)
        figures[durability] = msgspec.to_builtins(cuts)
        passed = passed and not cuts.damaged and (durability is Durability.PROCESS or not (cuts.lost or cuts.undone))
    return figures, passed


def _suspects(folder: Path, trials: int | None, rng: Random) -> tuple[Figures, bool]:
    """One handler ends the whole server, among innocents."""
    del rng
    outcome = asyncio.run(serve_suspects(folder, trials or 10_000))
    return msgspec.to_builtins(outcome), not (outcome.dead or outcome.unrun) and outcome.guilty_state == "dead"


def _rolling(folder: Path, trials: int | None, rng: Random) -> tuple[Figures, bool]:
    """Four processes are replaced one by one: under a load that leaves them idle at times, and under as much as they can do."""
    del rng
    figures: dict[str, object] = {}
    passed = True
    for name, per_s in LOADS.items():
        place = folder / name
        place.mkdir()
        rolled = asyncio.run(roll(place, before=trials or 5_000, per_s=per_s))
        share = rolled.least_per_s / rolled.usual_per_s
        figures[name] = {**msgspec.to_builtins(rolled), "least_share": round(share, 2)}
        passed = passed and not (rolled.lost or rolled.repeated or any(rolled.statuses)) and share >= LEAST_SHARE
    return figures, passed


LOADS = {"half": 500.0, "all": None}  # jobs a second that are submitted
LEAST_SHARE = 0.7  # of the usual rate, in the worst second of a roll

FAULTS: Mapping[str, Callable[[Path, int | None, Random], tuple[Figures, bool]]] = {
    "kills": _kills,
    "power": _power,
    "suspects": _suspects,
    "rolling": _rolling,
    "stops": stops,
    "hangs": hangs,
    "blocked": blocked,
    "bomb": bomb,
}

if __name__ == "__main__":
    sys.exit(main())
