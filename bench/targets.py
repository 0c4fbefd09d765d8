"""What the HTTP ingest must reach and should reach (DESIGN section 7), and what it did reach."""

from collections.abc import Iterator, Sequence

import msgspec

from bench.contender import Name
from bench.figures import Row
from bench.sample import Case


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio to the Go original's rate in memory, for one contender and one size; any connections, if none are named."""

    contender: Name
    payloads: int
    connections: int | None
    must: float
    goal: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    contender: Name
    case: Case
    asked: str
    reached: str
    met: str


RATES = (
    Target(contender=Name.MEMORY, payloads=1, connections=None, must=1.3, goal=1.7),
    Target(contender=Name.DURABLE, payloads=1, connections=64, must=0.65, goal=0.8),
    Target(contender=Name.DURABLE, payloads=1, connections=256, must=0.85, goal=1.1),
)
DOCUMENT_OF = 10  # payloads; a durable document of this size has a rate of its own to reach
DOCUMENT_MUST = 200_000  # payloads/s
DOCUMENT_GOAL = 1.0  # of the Go original


def verdicts(rows: Sequence[Row]) -> Iterator[Verdict]:
    """One for each target that this run can judge."""
    go = {row.case: row for row in rows if row.contender is Name.GO}
    for row in rows:
        beside = go.get(row.case)
        if row.against_go is None or beside is None or row.contender is Name.GO:
            continue
        ratio = row.against_go.median
        for target in RATES:
            if judges(target, row):
                asked = f"≥ {target.must:g} x Go, goal {target.goal:g} x"
                yield verdict(row, asked, f"{ratio:.2f} x", must=ratio >= target.must, goal=ratio >= target.goal)
        if row.contender is Name.DURABLE and row.case.payloads == DOCUMENT_OF:
            rate = row.payloads_per_s.median
            asked = f"≥ {DOCUMENT_MUST:,} payloads/s, goal {DOCUMENT_GOAL:g} x Go"
            yield verdict(row, asked, f"{rate:,.0f} payloads/s, {ratio:.2f} x", must=rate >= DOCUMENT_MUST, goal=ratio >= DOCUMENT_GOAL)
        if row.contender is Name.DURABLE:
            mine, other = row.p99_ms.median, beside.p99_ms.median
            yield verdict(row, "p99 below Go's", f"{mine:.2f} ms against {other:.2f} ms", must=mine < other, goal=mine < other)


def judges(target: Target, row: Row) -> bool:
    same = target.contender is row.contender and target.payloads == row.case.payloads
    return same and target.connections in {None, row.case.connections}


def verdict(row: Row, asked: str, reached: str, *, must: bool, goal: bool) -> Verdict:
    met = "goal" if goal else "must" if must else "missed"
    return Verdict(contender=row.contender, case=row.case, asked=asked, reached=reached, met=met)
