"""What tests of programs and of stores need: a clock that stands still, a store that fails when told, the stores' contract.

`cabrank.testing.store_contract` is imported by itself, for it needs pytest.
"""

from cabrank.testing.clock import FakeClock
from cabrank.testing.faults import CALM, Faults, FaultyStore, memory_lease

__all__ = ["CALM", "FakeClock", "Faults", "FaultyStore", "memory_lease"]
