"""From samples to figures: medians over the rounds, and ratios that are made within one round."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from bench.contender import Name
from bench.machine import Machine
from bench.sample import Case, Sample


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """All that one run measured; the raw file holds this and nothing else."""

    machine: Machine
    seconds: int
    fsync_p50_s: Sequence[float]
    """One for each round."""
    samples: Sequence[Sample]


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    median: float
    low: float
    high: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One contender in one case, over all rounds. `against_go` is None where the Go original did not take part."""

    contender: Name
    case: Case
    rounds: int
    requests_per_s: Spread
    payloads_per_s: Spread
    against_go: Spread | None
    p50_ms: Spread
    p99_ms: Spread
    cpu_us: Spread
    peak_memory: Spread


def rows(samples: Sequence[Sample]) -> Iterator[Row]:
    """A row for each contender and case, cases in the order in which they were measured."""
    for case in dict.fromkeys(sample.case for sample in samples):
        of_case = [sample for sample in samples if sample.case == case]
        for name in Name:
            if mine := [sample for sample in of_case if sample.contender is name]:
                yield row(mine, go={sample.round: sample for sample in of_case if sample.contender is Name.GO})


def row(samples: Sequence[Sample], *, go: dict[int, Sample]) -> Row:
    ratios = [sample.load.requests_per_s / go[sample.round].load.requests_per_s for sample in samples if sample.round in go]

    def over_rounds(figure: Callable[[Sample], float]) -> Spread:
        return spread(map(figure, samples))

    return Row(
        contender=samples[0].contender,
        case=samples[0].case,
        rounds=len(samples),
        requests_per_s=over_rounds(lambda sample: sample.load.requests_per_s),
        payloads_per_s=over_rounds(lambda sample: sample.payloads_per_s),
        against_go=spread(ratios) if ratios else None,
        p50_ms=over_rounds(lambda sample: sample.load.p50_ms),
        p99_ms=over_rounds(lambda sample: sample.load.p99_ms),
        cpu_us=over_rounds(lambda sample: sample.cpu_us),
        peak_memory=over_rounds(lambda sample: sample.peak_memory),
    )


def spread(values: Iterable[float]) -> Spread:
    listed = list(values)
    return Spread(median=statistics.median(listed), low=min(listed), high=max(listed))


def p50_p99(values: Iterable[float]) -> tuple[float, float]:
    """The median, and what 99 of 100 values do not exceed."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
