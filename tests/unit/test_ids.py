from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabrank.errors import StoreUnavailable, UnknownJob
from cabrank.ids import Ids
from cabrank.job import number_of, text_id
from cabrank.settings import Settings
from cabrank.stores.contract import ID_BLOCK, Terms
from cabrank.stores.memory import Ledger, MemoryStore
from cabrank.testing import FakeClock

PREFIXES = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=8, max_size=8)


@given(PREFIXES, st.integers(1, 2**63 - 1))
def test_a_text_id_says_its_number(prefix: str, number: int) -> None:
    assert number_of(prefix, text_id(prefix, number)) == number


def test_an_id_of_another_store_says_so() -> None:
    with pytest.raises(UnknownJob, match=r"another store.*begin with aaaaaaaa-"):
        number_of("aaaaaaaa", "bbbbbbbb-1")


@pytest.mark.parametrize(
    "id", ["", "1", "aaaaaaaa", "aaaaaaaa-", "aaaaaaaa-0", "aaaaaaaa-01", "aaaaaaaa-1x", "AAAAAAAA-1", " aaaaaaaa-1", "aaaaaaaa-1\n"]
)
def test_what_is_no_id_is_refused(id: str) -> None:
    with pytest.raises(UnknownJob, match="not a job id"):
        number_of("aaaaaaaa", id)


async def opened(ledger: Ledger) -> Ids:
    store = MemoryStore(ledger.clock, ledger=ledger)
    await store.open(Terms(handlers=frozenset(), settings=Settings(), max_crashes={}))
    ids = Ids(store)
    await ids.refill()
    return ids


async def test_ids_grow_and_are_given_once() -> None:
    ledger = Ledger(FakeClock())
    one, other = await opened(ledger), await opened(ledger)
    taken = [first + offset for ids in (one, other, one) for first in [ids.take(10)] for offset in range(10)]
    assert len(set(taken)) == 30
    assert one.take(1) > taken[-1]


async def test_a_block_that_is_used_up_is_followed_by_the_next() -> None:
    ids = await opened(Ledger(FakeClock()))
    low = [ids.low]
    first = ids.take(ID_BLOCK // 2 + 1)
    low.append(ids.low)
    await ids.refill()
    low.append(ids.low)
    assert low == [False, True, False]
    second = ids.take(ID_BLOCK // 2)
    assert second >= first + ID_BLOCK, "what does not fit is taken from the next block, in a row"


async def test_without_a_following_block_nothing_is_given_twice() -> None:
    ids = await opened(Ledger(FakeClock()))
    ids.take(ID_BLOCK)
    assert not ids.enough(1)
    with pytest.raises(StoreUnavailable):
        ids.take(1)
    await ids.refill()
    assert ids.enough(1)
    assert ids.take(1) > ID_BLOCK
