"""What every store promises, as tests. Run them over your own store: derive a test class and say how a store is opened.

    pytest.register_assert_rewrite("cabrank.testing.store_contract")  # in conftest.py: failures then show the values

    class TestMyStore(StoreContract):
        @pytest.fixture
        def stores(self, clock: FakeClock) -> Stores:
            return MyStores(clock)

They need pytest and pytest-asyncio. What a store cannot do, as its `Capabilities` say, is skipped.
"""

from __future__ import annotations

import pytest

from cabrank.testing.store_contract.admission import AdmissionContract
from cabrank.testing.store_contract.aging import AgingContract
from cabrank.testing.store_contract.claims import ClaimContract
from cabrank.testing.store_contract.holding import HolderContract
from cabrank.testing.store_contract.limits import LimitContract
from cabrank.testing.store_contract.opened import Opened, Stores, submission
from cabrank.testing.store_contract.overflow import OverflowContract
from cabrank.testing.store_contract.past import PastContract
from cabrank.testing.store_contract.pausing import PauseContract
from cabrank.testing.store_contract.people import PeopleContract
from cabrank.testing.store_contract.settlements import SettlementContract
from cabrank.testing.store_contract.suspects import SuspectContract
from cabrank.testing.store_contract.ticks import TickContract
from cabrank.testing.store_contract.timeline import TimelineContract
from cabrank.testing.store_contract.turns import TurnContract
from cabrank.testing.store_contract.unique import UniqueContract

__all__ = ["Opened", "StoreContract", "Stores", "submission"]


@pytest.mark.asyncio
class StoreContract(
    AdmissionContract,
    ClaimContract,
    SuspectContract,
    SettlementContract,
    HolderContract,
    PeopleContract,
    LimitContract,
    TurnContract,
    UniqueContract,
    PauseContract,
    PastContract,
    TimelineContract,
    OverflowContract,
    TickContract,
    AgingContract,
):
    """All promises of `Store` and `Inspector`."""
