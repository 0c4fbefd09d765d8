"""The last ticks of schedules, in memory."""

from __future__ import annotations

from cabrank.stores.contract import AHEAD_S, Admission, Submission, Verdict

REPEATED = Admission(Verdict.REPEATED)


class Ticks:
    """By the name of the schedule, its spec and its last tick."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}

    def last(self, schedule: str, spec: str, now: float) -> float:
        """See `Store.last_tick`."""
        known = self._last.get(schedule)
        if known is None or known[0] != spec or known[1] > now + AHEAD_S:
            known = self._last[schedule] = spec, now
        return known[1]

    def repeated(self, submission: Submission) -> Admission | None:
        """The answer to a tick that came before."""
        tick = submission.tick
        if tick is None or tick.at > self._last.get(tick.schedule, ("", 0.0))[1]:
            return None
        return REPEATED

    def take(self, submission: Submission, admission: Admission) -> None:
        """Remember a tick that is not refused."""
        tick = submission.tick
        if tick is not None and admission.verdict in {Verdict.STORED, Verdict.UNIQUE}:
            self._last[tick.schedule] = self._last.get(tick.schedule, ("", 0.0))[0], tick.at
