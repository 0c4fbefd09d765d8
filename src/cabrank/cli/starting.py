"""What `cabrank serve` and `cabrank work` have in common: their store by default, the loop they run on, and how a start is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from cabrank.dispatcher import Dispatcher
from cabrank.settings import GIB, MIB

DURABLE_STORE = "sqlite:///cabrank.db"  # whoever starts a process for jobs expects an acknowledgement to outlast it


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The quickest event loop that this machine has."""
    try:
        import uvloop  # noqa: PLC0415 -- not every platform has it
    except ImportError:
        return None
    return uvloop.new_event_loop


def who_works(dispatcher: Dispatcher) -> Sequence[str]:
    """A line for each queue, and one that says how to stop."""
    return [
        *(f"queue {queue}: {_size_of(dispatcher, queue)}" for queue in dispatcher.pools),
        f"stop with Ctrl-C: what runs may finish within {dispatcher.settings.grace_s:g} s, a second Ctrl-C hands it back at once",
    ]


def _size_of(dispatcher: Dispatcher, queue: str) -> str:
    settings = dispatcher.settings
    bound = settings.bound_of(queue, dispatcher.engine.store.capabilities.bound)
    size = f"{bound.bytes // GIB} GiB" if bound.bytes >= GIB else f"{bound.bytes // MIB} MiB"
    return f"{dispatcher.pools[queue].size} workers; at most {bound.jobs:,} jobs and {size} may wait"
