"""`python -m tests.simulation --seed 17 --trace` repeats one run; `--seeds 0-2000` carries out many."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.world import simulate


def main() -> int:
    """Print what was violated; 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="one run")
    parser.add_argument("--seeds", default="0-500", help="many runs, as in 0-500")
    parser.add_argument("--trace", action="store_true", help="print every step of it")
    options = parser.parse_args()
    first, last = (options.seed, options.seed + 1) if options.seed is not None else map(int, options.seeds.split("-"))
    began_at, broken, simulated_s, acked = time.perf_counter(), 0, 0.0, 0
    for seed in range(first, last):
        outcome = simulate(seed, tracing=options.trace)
        simulated_s += outcome.simulated_s
        acked += outcome.acknowledged
        if options.trace:
            print(*outcome.trace, sep="\n")
        if outcome.violations:
            broken += 1
            print(f"seed {seed}: {outcome.violations[0]}")
    took_s = time.perf_counter() - began_at
    print(f"{last - first} runs, {broken} broken; {simulated_s / 3600:.1f} simulated hours, {acked:,} acknowledged jobs, {took_s:.1f} s")
    return broken > 0


if __name__ == "__main__":
    sys.exit(main())
