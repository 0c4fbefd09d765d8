"""Whether new jobs find room in memory: in each queue and in all together, by number, bytes and age."""

from __future__ import annotations

from collections.abc import Mapping

from cabrank.job import Job
from cabrank.settings import MEMORY_BOUND, Settings
from cabrank.stores.contract import Admission, full
from cabrank.stores.memory.ledger import Ledger


def refusal(ledger: Ledger, needed: Mapping[str, tuple[int, int]], gone: Job | None, *, settings: Settings) -> Admission | None:
    """Which bound refuses jobs that need so much in each queue, if one does. `gone` is a job whose place one of them takes."""
    freed = (0, 0) if gone is None else (1, len(gone.payload))
    now = ledger.clock.now()
    for queue, (jobs, size) in needed.items():
        bound, line = settings.room_of(queue, MEMORY_BOUND), ledger.line(queue)
        said = bound.refusal(line.count, line.size, jobs - freed[0], size - freed[1])
        if not said and bound.is_timed:
            said = bound.too_old(now, oldest_at(ledger, queue))
        if said:
            return full(queue, said)
    return _of_all(ledger, needed, settings, freed, now) if settings.bounds_all else None


def _of_all(
    ledger: Ledger, needed: Mapping[str, tuple[int, int]], settings: Settings, freed: tuple[int, int], now: float
) -> Admission | None:
    bound = settings.bound_of_all
    jobs, size = sum(jobs for jobs, _ in needed.values()), sum(size for _, size in needed.values())
    there = sum(line.count for line in ledger.lines.values()), sum(line.size for line in ledger.lines.values())
    said = bound.refusal(*there, jobs - freed[0], size - freed[1])
    if not said and bound.is_timed:
        ready = [at for queue in tuple(ledger.lines) if (at := oldest_at(ledger, queue)) is not None]
        said = bound.too_old(now, min(ready, default=None))
    return full(next(iter(needed)), f"in the whole store {said}") if said else None


def oldest_at(ledger: Ledger, queue: str) -> float | None:
    """Since when the job of a queue that has been ready the longest has been, as far as its line looks at the time."""
    found = [ledger.line(queue).oldest_at(ledger.still_waits), ledger.limited.oldest_at(queue)]
    return min((at for at in found if at is not None), default=None)
