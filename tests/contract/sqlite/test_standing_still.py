"""A process that stood still itself does not judge who was silent meanwhile, wherever it stood."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from pathlib import Path
from random import Random

import pytest

from cabrank.clock import SystemClock
from cabrank.job import Job
from cabrank.settings import Settings
from cabrank.stores.contract import Submission, Terms, Want
from cabrank.stores.sqlite.holders import made_folder
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.locks import TurnLock
from cabrank.stores.sqlite.settle import Ended

SETTINGS = Settings(sweep_s=1e-6)  # every turn looks for who is gone
LEASE_S, RENEW_S = SETTINGS.lease_s, SETTINGS.renew_s
TERMS = Terms(handlers=frozenset({"work"}), settings=SETTINGS, max_crashes={})
NOTHING_ENDED = Ended((), {})
WANT = {"line": Want(jobs=1, bytes=1000, idle=1)}


class OwnClock(SystemClock):
    """Time passes as the test says: also after so many further questions, as for a process that is stopped there."""

    def __init__(self) -> None:
        self.at = 1_000.0
        self.questions = 0
        self.stop_s = 0.0
        self.monotonic = self._ask

    def stop_after(self, questions: int, stop_s: float) -> None:
        self.questions, self.stop_s = questions, stop_s

    def _ask(self) -> float:
        told = self.at
        self.questions -= 1
        if not self.questions:
            self.at += self.stop_s
        return told


class Two:
    """Two holders of a file that have been awake for a lease; `it` runs a job."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.db"
        self.clock = OwnClock()
        self.one, self.it = (Ledger(self.path, self.clock, TERMS, Random(1)) for _ in range(2))
        self.turns = 0
        for _ in range(4):
            self.clock.at += RENEW_S
            self.one.renew()
            self.it.renew()
        job = Job(id=self.it.take_ids(), handler="work", queue="line", payload=b"1")
        assert self.it.turn(1, [Submission(jobs=(job,))], NOTHING_ENDED, WANT).claimed

    def takes(self) -> bool:
        """Whether the one takes what the other runs."""
        self.turns += 1
        return bool(self.one.turn(self.turns, (), NOTHING_ENDED, WANT).claimed)

    @contextlib.contextmanager
    def stopped_in_its_turn(self) -> Generator[None]:
        """While a third process is stopped there. The one begins to renew its lease, and waits."""
        lock = TurnLock(made_folder(self.path))
        renewing = threading.Thread(target=self.one.renew)
        with contextlib.closing(lock), lock.held():
            renewing.start()
            while not self.one.waits_for_another:
                renewing.join(0.001)
            yield
        renewing.join()


@pytest.fixture
def two(tmp_path: Path) -> Generator[Two]:
    two = Two(tmp_path)
    yield two
    two.it.close()
    two.one.close()


def test_who_is_silent_alone_is_taken_from(two: Two) -> None:
    for _ in range(int(LEASE_S / RENEW_S)):
        assert not two.takes()
        two.clock.at += RENEW_S
        two.one.renew()
    assert two.takes()


def test_a_newcomer_takes_nothing_from_who_is_only_silent(two: Two) -> None:
    """All may have stood still together until just now: it has not seen it. After a lease it has."""
    two.clock.at += 2 * LEASE_S
    newcomer = Ledger(two.path, two.clock, TERMS, Random(1))
    taken = []
    for number in range(1, int(LEASE_S / RENEW_S) + 2):
        taken.append(bool(newcomer.turn(number, (), NOTHING_ENDED, WANT).claimed))
        two.clock.at += RENEW_S
        newcomer.renew()
    newcomer.close()
    assert taken == [False, False, False, True]


def test_a_wait_behind_a_stopped_process_is_a_standstill(two: Two) -> None:
    """The other was about to renew when the stop began, this one had just done so: it looks at once when the stop is over."""
    two.clock.at += 0.9 * RENEW_S
    two.one.renew()
    two.clock.at += RENEW_S
    with two.stopped_in_its_turn():
        two.clock.at += LEASE_S - 1.8 * RENEW_S
    assert not two.takes()


@pytest.mark.parametrize("questions", range(1, 9))
def test_who_was_stopped_before_it_judges_takes_nothing(two: Two, questions: int) -> None:
    """It holds the turn, so the other cannot have renewed meanwhile."""
    two.clock.stop_after(questions, 2 * LEASE_S)
    assert not two.takes()
    two.it.renew()
    assert not two.takes()
