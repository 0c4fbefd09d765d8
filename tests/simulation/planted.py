"""Bugs planted into the real code, one at a time: a simulation that finds none of them proves nothing.

`python -m tests.simulation.planted --table` prints how many seeds it takes to catch each.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from tests.simulation import bugs, bugs_of_people, bugs_of_processes, bugs_of_sqlite
from tests.simulation.bugs import Bug
from tests.simulation.world import simulate

MOST_SEEDS = 300
BUGS = (*bugs.BUGS, *bugs_of_people.BUGS, *bugs_of_processes.BUGS, *bugs_of_sqlite.BUGS)


class Catch(msgspec.Struct, frozen=True):
    """How a bug was caught: after how many seeds, and by what."""

    seeds: int
    violation: str

    @property
    def invariant(self) -> str:
        """Its number."""
        return self.violation.partition(":")[0]


def catch(bug: Bug) -> Catch | None:
    """The first violation that the planted bug causes, if it causes any within `MOST_SEEDS`."""
    with bug.plant():
        for seed in range(bug.first_seed, bug.first_seed + MOST_SEEDS):
            if violations := simulate(seed, store=bug.store).violations:
                return Catch(seed + 1, violations[0])
    return None


def table() -> tuple[list[str], bool]:
    """The lines of the table, and whether every bug was caught."""
    caught = [(bug.name, catch(bug)) for bug in BUGS]
    width = max(len(name) for name, _ in caught)
    lines = [f"| {'bug':{width}} | seeds until caught | invariant |", f"| {'-' * width} | ------------------ | --------- |"]
    for name, how in caught:
        seeds, invariant = ("never", "") if how is None else (how.seeds, how.invariant)
        lines.append(f"| {name:{width}} | {seeds:>18} | {invariant:9} |")
    return lines, all(how is not None for _, how in caught)


def main() -> int:
    """Print the table, or what the first violation of each bug was; 1 if one was not caught."""
    parser = argparse.ArgumentParser(description="Plant each bug and simulate until it is caught.")
    parser.add_argument("--table", action="store_true", help="as it stands in docs/internals/simulation.md")
    if parser.parse_args().table:
        lines, complete = table()
        print(*lines, sep="\n")
        return not complete
    caught = [(bug, catch(bug)) for bug in BUGS]
    for bug, how in caught:
        print(f"{bug.name}: " + ("not caught" if how is None else f"seed {how.seeds - 1}: {how.violation}"))
    return any(how is None for _, how in caught)


if __name__ == "__main__":
    sys.exit(main())
