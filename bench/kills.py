"""`python -m bench.kills`: SIGKILL under load, the Go original beside ours; then the demo, killed at random points, again and again."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import msgspec
from rich.console import Console

from bench.errors import BenchError
from bench.killed import CONNECTIONS, PAYLOADS, Killed, contenders, kill_under_load
from bench.machine import commit, processor
from bench.report import Grid, markdown, put
from examples.demo.figures import Figures
from examples.demo.plan import KillPoint, random_points
from examples.demo.scratch import PROJECT

NAME = "kills"
KILLS = 2  # in each run of the demo
WIDTH = 140
ABOUT = (
    "One server is posted to and killed with SIGKILL; ours is started again on its store and does what is left. A job takes 1 ms and "
    "writes the number of its payload into a file; 100 workers. {connections} clients post documents of {payloads} payloads, each its "
    "next one as soon as one is answered, for {seconds:g} s. *Lost* were acknowledged and never done. *Waited* were acknowledged and not "
    "done when the kill came: the original keeps them in memory, ours on disk. Ours answers when a document is on disk, so it "
    "acknowledges fewer, and its workers keep up with that."
)
DEMO = (
    "`make demo`, small ({flights:,} flights), {kills} SIGKILLs a run at random points: payloads over HTTP into a store on disk, each put "
    "into a bucket as an object. *Invented* are objects of no payload, *put again* found their object there."
)


def main() -> int:
    """Make the runs, print their tables, and return 0 only if ours lost and invented nothing in any of them."""
    parser = argparse.ArgumentParser(prog="python -m bench.kills", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5, help="of the Go original and ours; 0 leaves them out")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load before the kill")
    parser.add_argument("--runs", type=int, default=20, help="of the demo; 0 leaves it out")
    parser.add_argument("--flights", type=int, default=20_000)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the page there")
    chosen = parser.parse_args()
    console = Console()
    try:
        beside = _beside(console, chosen.rounds, chosen.seconds)
    except BenchError as error:
        sys.exit(str(error))
    demos = _demos(console, chosen.runs, flights=chosen.flights, first_seed=chosen.first_seed)
    if chosen.markdown:
        put(chosen.markdown, _page(beside, demos, chosen))
    clean = sum(figures.passed for figures in demos)
    console.print(f"demo: {clean} of {chosen.runs} runs lost and invented nothing")
    return 0 if clean == chosen.runs and not any(killed.lost for killed in beside if killed.took_s is not None) else 1


# ------------------------------------------------------------------------------------------------- beside the original


def _beside(console: Console, rounds: int, seconds: float) -> list[Killed]:
    killed: list[Killed] = []
    if not rounds:
        return killed
    with tempfile.TemporaryDirectory() as scratch:
        for contender in contenders(Path(scratch)) * rounds:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                killed.append(kill_under_load(contender, Path(folder), seconds))
            console.print(msgspec.json.encode(killed[-1]).decode(), soft_wrap=True)
    return killed


def _beside_grid(killed: Sequence[Killed]) -> Grid:
    heads = ("server", "acknowledged", "waited", "lost", "lost of 100", "run again", "MB at the kill", "until all is done")
    return Grid("Beside the Go original", heads, [_beside_cells(one) for one in killed])


def _beside_cells(one: Killed) -> list[str]:
    share = 100 * one.lost / max(1, one.acknowledged)
    took = "" if one.took_s is None else f"{one.took_s:.1f} s"
    counts = [f"{count:,}" for count in (one.acknowledged, one.waited, one.lost)]
    return [one.title, *counts, f"{share:.1f}", f"{one.again:,}", f"{one.peak_memory / 1e6:,.0f}", took]


# ------------------------------------------------------------------------------------------------------------ the demo


def _demos(console: Console, runs: int, *, flights: int, first_seed: int) -> list[Figures]:
    """As many runs as went through."""
    done: list[Figures] = []
    for seed in range(first_seed, first_seed + runs):
        console.print(f"seed {seed}: SIGKILL at {_points(seed)}")
        figures = _demo(seed, flights=flights)
        if figures is None:
            again = f"python {' '.join(_command(seed, flights)[1:])}"
            console.print(f"failed; its folder is var/{NAME}, and again: {again}", soft_wrap=True)
            break
        done.append(figures)
        console.print(" · ".join(_cells(seed, figures)))
    return done


def _demo(seed: int, *, flights: int) -> Figures | None:
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


def _demo_grid(demos: Sequence[Figures], first_seed: int) -> Grid:
    heads = ("seed", "acknowledged", "objects", "lost", "invented", "put again", "from each restart to its first job")
    return Grid("The demo, killed at random points", heads, [_cells(seed, figures) for seed, figures in enumerate(demos, first_seed)])


def _cells(seed: int, figures: Figures) -> list[str]:
    to_first_job = ", ".join("none" if one is None else f"{one:.2f} s" for one in figures.restarts_to_first_job_s)
    counts = (figures.payloads_acknowledged, figures.objects, figures.lost, figures.invented + figures.misplaced, figures.written_again)
    return [str(seed), *(f"{count:,}" for count in counts), to_first_job]


# ------------------------------------------------------------------------------------------------------------ the page


def _page(beside: Sequence[Killed], demos: Sequence[Figures], chosen: argparse.Namespace) -> str:
    parts = [
        "# SIGKILL under load",
        f"Made by `python -m bench.kills` at commit `{commit()}`. One 2-core machine ({processor()}), clients on it.",
    ]
    if beside:
        about = ABOUT.format(connections=CONNECTIONS, payloads=PAYLOADS, seconds=chosen.seconds)
        parts += ["## Beside the Go original", fill(about, WIDTH), markdown(_beside_grid(beside))]
    if demos:
        about = DEMO.format(flights=chosen.flights, kills=KILLS)
        parts += ["## The demo, killed at random points", fill(about, WIDTH), markdown(_demo_grid(demos, chosen.first_seed))]
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
