"""How one process is, beside the work that it does: written by what watches it and by its store, read by `/readyz` and `/metrics`."""

from __future__ import annotations


class Condition:
    """Plain attributes, so that any thread may read and write them."""

    def __init__(self) -> None:
        self.holds = True
        """Whether the store is to renew the leases. Not while the event loop has been blocked for longer than `max_loop_block_s`."""
        self.unfit = ""
        """Why this process should be sent no work, in words; empty if it is well."""
        self.log_bytes = 0
        """The size of the store's log of changes, as it was at the last renewal."""
