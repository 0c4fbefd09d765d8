"""What tests of programs and of stores need: a clock that stands still, jobs that run where they are submitted, what was submitted,
a store that fails when told, a SQLite store without threads, the contracts of stores and workers.

`cabrank.testing.store_contract` and `cabrank.testing.worker_contract` are imported by themselves, for they need pytest.
"""

from cabrank.testing.clock import FakeClock
from cabrank.testing.faults import CALM, Faults, FaultyStore, memory_lease
from cabrank.testing.in_loop import DoerInLoop, InLoop
from cabrank.testing.inline import InlineDispatcher
from cabrank.testing.recording import Recording

__all__ = ["CALM", "DoerInLoop", "FakeClock", "Faults", "FaultyStore", "InLoop", "InlineDispatcher", "Recording", "memory_lease"]
