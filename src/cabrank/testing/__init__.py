"""What tests of programs and of stores need: a clock that stands still, a store that fails when told, the contracts of stores and workers.

`cabrank.testing.store_contract` and `cabrank.testing.worker_contract` are imported by themselves, for they need pytest.
"""

from cabrank.testing.clock import FakeClock
from cabrank.testing.faults import CALM, Faults, FaultyStore, memory_lease

__all__ = ["CALM", "FakeClock", "Faults", "FaultyStore", "memory_lease"]
