"""The interpreter's switch interval while a file is open, and afterwards."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

from cabrank.settings import Settings
from cabrank.stores.contract import Terms
from cabrank.stores.sqlite import store as opener
from cabrank.stores.sqlite.switching import Switching
from tests.contract.sqlite.files import Files

PYTHONS = 0.005


@pytest.fixture(autouse=True)
def interval() -> Generator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(PYTHONS)
    yield
    sys.setswitchinterval(before)


def now() -> float:
    return round(sys.getswitchinterval(), 7)


def test_the_least_that_is_wanted_counts_and_the_last_puts_back_what_was() -> None:
    switching = Switching()
    switching.hasten(0.001)
    switching.hasten(0.0002)
    assert now() == 0.0002
    switching.relent(0.0002)
    assert now() == 0.001
    switching.relent(0.001)
    assert now() == PYTHONS


def test_nobody_is_made_slower_and_nothing_is_touched_for_0() -> None:
    switching = Switching()
    switching.hasten(0.1)
    switching.hasten(0)
    assert now() == PYTHONS
    switching.relent(0.1)
    switching.relent(0)
    assert now() == PYTHONS


def test_what_somebody_else_has_set_meanwhile_stays() -> None:
    switching = Switching()
    switching.hasten(0.0002)
    sys.setswitchinterval(0.003)
    switching.hasten(0.0001)
    assert now() == 0.003
    switching.relent(0.0002)
    switching.relent(0.0001)
    assert now() == 0.003


async def test_it_is_short_as_long_as_a_file_is_open(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "switching", Switching())  # stores that other tests killed never took back what they wanted
    terms = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})
    seen: list[float] = []
    store, another = files.another(), files.another()
    for step in (store.open(terms), another.open(terms), store.close(), another.close()):
        await step
        seen.append(now())
    assert seen == [terms.settings.switch_s] * 3 + [PYTHONS]
