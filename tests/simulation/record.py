"""What the outside world knows: what was acknowledged or refused, what ran where, what was done to whom. And what is wrong."""

from __future__ import annotations

from collections.abc import Callable

from cabrank.states import State
from tests.simulation.home import Home


class Record:
    """Kept by clients, jobs and fate; compared with what the store shows, which it only reads."""

    def __init__(self, ledger: Home) -> None:
        self.ledger = ledger
        self.violations: list[str] = []
        self.acked: dict[str, int] = {}
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.returned: set[tuple[int, int]] = set()
        self.begun: set[tuple[int, int]] = set()
        """Runs that a worker process has begun."""
        self.lost: set[tuple[int, int]] = set()
        """Runs that a worker process had begun, or that were the first which it was sent, when it died."""
        self.excused = 0
        """Jobs of worker processes whose runs cannot be known, but which may have failed or crashed."""
        self.reopened: set[int] = set()
        """Jobs that a person may have reopened."""
        self.cancels: set[int] = set()
        """Jobs that a person may have cancelled."""
        self.doomed: set[int] = set()
        """Holders that were killed or frozen: their jobs may be taken back."""
        self.outcomes: list[tuple[int, State]] = []
        """What `JobHandle.result` said, in order."""
        self.broken: Callable[[], None] = lambda: None
        """Called when an invariant does not hold."""
        self.trace: list[str] = []
        self.tracing = False

    def note(self, text: str) -> None:
        """One line of the trace."""
        if self.tracing:
            folder = self.ledger.folder
            said = text.replace(folder, "") if folder else text
            self.trace.append(f"{self.ledger.clock.monotonic():9.4f}  {said}")

    def violated(self, invariant: str, what: str) -> None:
        """An invariant does not hold."""
        self.note(f"{invariant} VIOLATED: {what}")
        self.violations.append(f"{invariant}: {what}")
        self.broken()

    def acknowledged(self, token: str, id: int) -> None:
        """A client got an id for what it sent."""
        self.note(f"client: {token} is job {id}")
        if not self.known(id):
            self.violated("I15", f"{token} was acknowledged as job {id}, which the store does not have")
        if self.acked.setdefault(token, id) != id:
            self.violated("I12", f"{token} was acknowledged as job {self.acked[token]} and as job {id}")

    def known(self, id: int) -> bool:
        """Whether the store has the job, or remembers that it is done."""
        return self.ledger.knows(id) or self.done(id) is not None

    def done(self, id: int) -> int | None:
        """The run that made the job done; 0 if it had no result."""
        return self.ledger.done(id)
