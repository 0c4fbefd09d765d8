"""The store in memory: what it keeps is gone with the process."""

from cabrank.stores.memory.ledger import Ledger
from cabrank.stores.memory.store import MemoryStore

__all__ = ["Ledger", "MemoryStore"]
