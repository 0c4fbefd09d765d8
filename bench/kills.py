"""`python -m bench.kills`: the demo run again and again, small, killed at random points; what each run lost."""

import argparse
import os
import subprocess
import sys

import msgspec
from rich.console import Console
from rich.table import Table

from examples.demo.figures import Figures
from examples.demo.plan import KillPoint, random_points
from examples.demo.scratch import PROJECT

NAME = "kills"
KILLS = 2  # in each run


def main() -> int:
    """Make the runs, print their table, and return 0 only if every one of them lost and invented nothing."""
    parser = argparse.ArgumentParser(prog="python -m bench.kills", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--flights", type=int, default=20_000)
    parser.add_argument("--first-seed", type=int, default=1)
    chosen = parser.parse_args()
    console = Console()
    table = Table("seed", "acknowledged", "objects", "lost", "invented", "put again", "to the first job")
    passed = 0
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.runs):
        console.print(f"seed {seed}: SIGKILL at {_points(seed)}")
        figures = _run(seed, flights=chosen.flights)
        if figures is None:
            console.print(
                f"failed; its folder is var/{NAME}, and again: python {' '.join(_command(seed, chosen.flights)[1:])}", soft_wrap=True
            )
            break
        table.add_row(str(seed), *_cells(figures))
        passed += figures.passed
    console.print(table)
    console.print(f"{passed} of {chosen.runs} runs lost and invented nothing")
    return 0 if passed == chosen.runs else 1


def _run(seed: int, *, flights: int) -> Figures | None:
    figures = PROJECT / "var" / NAME / "figures.json"
    figures.unlink(missing_ok=True)  # else those of the run before would stand for one that did not begin
    environment = {name: value for name, value in os.environ.items() if name not in {"FLIGHTS", "KILL_SEED"}}
    demo = subprocess.run(_command(seed, flights), cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if demo.returncode != 0:
        print(demo.stdout, demo.stderr, sep="\n")
    return msgspec.json.decode(figures.read_bytes(), type=Figures) if figures.exists() else None


def _command(seed: int, flights: int) -> list[str]:
    options = {"--flights": flights, "--kills": KILLS, "--seed": seed, "--name": NAME}
    return [sys.executable, "-m", "examples.demo", *(str(part) for option in options.items() for part in option)]


def _points(seed: int) -> str:
    return ", ".join(_point(point) for point in random_points(KILLS, seed=seed))


def _point(point: KillPoint) -> str:
    return f"{point.share:.0%} of {point.part}"


def _cells(figures: Figures) -> list[str]:
    to_first_job = ", ".join("none" if one is None else f"{one:.2f} s" for one in figures.restarts_to_first_job_s)
    counts = (figures.payloads_acknowledged, figures.objects, figures.lost, figures.invented + figures.misplaced, figures.written_again)
    return [*(f"{count:,}" for count in counts), to_first_job]


if __name__ == "__main__":
    sys.exit(main())
