"""Bugs to be planted into the SQLite store: in its statements, its turns and its holders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cabrank.stores.contract import Submission, Turn, Want
from cabrank.stores.sqlite import at_once_statements, holders, limit_statements, statements
from cabrank.stores.sqlite.holders import Holders
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.lines import Lines
from cabrank.stores.sqlite.settle import Ended
from tests.simulation import loop
from tests.simulation.bugs import Bug
from tests.simulation.home import Kind


def _ignore(*_said: Any, **_more: Any) -> None:
    pass


def _statement(name: str, changed: str) -> AbstractContextManager[object]:
    return patch.object(statements, name, changed)


def _no_fence() -> AbstractContextManager[object]:
    """A run that returns makes the job done, whichever run of it is the running one by then, and if none is."""
    return _statement("FINISH", "delete from job where id in carray(?) and ? > 0")


def _nobody_holds() -> AbstractContextManager[object]:
    """A claim does not write who claims."""
    return _statement("CLAIM", statements.CLAIM.replace("holder = ?", "holder = nullif(?1, ?1)"))


def _turn_done_twice() -> AbstractContextManager[object]:
    """A turn whose reply was lost is done once more when it is sent again."""
    turn = Ledger.turn

    def turn_again(self: Ledger, number: int, new: Sequence[Submission], ended: Ended, want: Mapping[str, Want]) -> Turn:
        self._last = None
        return turn(self, number, new, ended, want)

    return patch.object(Ledger, "turn", turn_again)


def _not_counted_back() -> AbstractContextManager[object]:
    """The jobs of a dead holder wait again, and their queue does not count them."""
    return _statement("COUNT_BACK", "select ?")


def _not_renewed() -> AbstractContextManager[object]:
    """Renewing writes nothing."""
    return _statement("RENEW", "select ?, ?")


def _no_receipt() -> AbstractContextManager[object]:
    """What a key made is not remembered."""
    return _statement("REMEMBER", "select ?, ?")


def _cancel_stays() -> AbstractContextManager[object]:
    """That a running job was cancelled is not forgotten when it has ended."""
    return _statement("FORGET_CANCELLING", "select ?")


def _not_taken_back() -> AbstractContextManager[object]:
    """Nobody is ever taken for dead."""
    return patch.object(Holders, "_is_gone", _ignore)


def _full_for_ever() -> AbstractContextManager[object]:
    """A line that was full is not looked at again when a job of it has ended."""
    return patch.object(limit_statements, "FREE", "select ?")


def _blocks_stay() -> AbstractContextManager[object]:
    """The jobs of a dead process that are in blocks stay there."""
    return patch.object(holders, "part_all", _ignore)


def _blind() -> AbstractContextManager[object]:
    """A turn in one statement does not look whether the file is as it is remembered."""
    looks = at_once_statements.TRIGGER.partition("select raise")[2].partition(";")[0]
    return patch.object(at_once_statements, "TRIGGER", at_once_statements.TRIGGER.replace(f"select raise{looks};", ""))


class _TellsEveryTime(AbstractContextManager[object]):
    """What becomes due and nobody can take is forgotten again by a turn that has nothing else to write."""

    def __enter__(self) -> None:
        self._few = patch.object(loop, "MOST_STEPS", 100_000)
        self._few.start()
        self._unwritten = patch.object(Lines, "changed", property(lambda _: False, _ignore), create=True)
        self._unwritten.start()

    def __exit__(self, *_raised: object) -> None:
        self._unwritten.stop()
        self._few.stop()


BUGS = (
    Bug("SQLite: no fence", _no_fence, Kind.SQLITE, first_seed=85),
    Bug("SQLite: a claim does not say whose it is", _nobody_holds, Kind.SQLITE),
    Bug("SQLite: a turn sent again is done again", _turn_done_twice, Kind.SQLITE),
    Bug("SQLite: what is taken back is not counted", _not_counted_back, Kind.SQLITE),
    Bug("SQLite: leases are not renewed", _not_renewed, Kind.SQLITE),
    Bug("SQLite: no receipt", _no_receipt, Kind.SQLITE),
    Bug("SQLite: a cancel outlives its run", _cancel_stays, Kind.SQLITE),
    Bug("SQLite: the jobs of the dead are not taken back", _not_taken_back, Kind.SQLITE),
    Bug("SQLite: blocks of the dead stay", _blocks_stay, Kind.SQLITE),
    Bug("SQLite: a turn at once does not look", _blind, Kind.SQLITE, first_seed=35),
    Bug("SQLite: a full line stays full", _full_for_ever, Kind.SQLITE),
    Bug("SQLite: all tell all of a due job", _TellsEveryTime, Kind.SQLITE, first_seed=35),
)
