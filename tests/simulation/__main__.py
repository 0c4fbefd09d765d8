"""`python -m tests.simulation --seed 17 --trace` repeats one run; `--seeds 0-2000` carries out many, on all cores."""

from __future__ import annotations

import argparse
import math
import sys

from tests.simulation.home import Kind
from tests.simulation.many import simulate_many
from tests.simulation.world import simulate


def main() -> int:
    """Print what was violated; 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="one run")
    parser.add_argument("--store", type=Kind, choices=tuple(Kind), default=Kind.MEMORY, help="what the jobs are kept in")
    parser.add_argument("--seeds", default="0-2000", help="many runs, as in 0-2000")
    parser.add_argument("--within", type=float, default=math.inf, metavar="S", help="begin no more of them after so many seconds")
    parser.add_argument("--trace", action="store_true", help="print every step of the one run")
    options = parser.parse_args()
    if options.seed is not None:
        outcome = simulate(options.seed, store=options.store, tracing=options.trace)
        print(*outcome.trace, *outcome.violations, sep="\n")
        return bool(outcome.violations)
    first, last = map(int, options.seeds.split("-"))
    many = simulate_many(range(first, last), store=options.store, within_s=options.within)
    for seed, violation in many.broken:
        print(f"seed {seed}: {violation}")
    print(many.summary)
    return bool(many.broken)


if __name__ == "__main__":
    sys.exit(main())
