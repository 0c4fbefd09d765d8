"""What `cabrank serve` and `cabrank work` have in common: their store by default, the loop they run on, and how a start is told."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from cabrank.dispatcher import Dispatcher
from cabrank.events import logger
from cabrank.settings import GIB, MIB

LAST_CALL_S = 0.5  # for what lives after the dispatcher has stopped: they were told to end and given time before
DURABLE_STORE = "sqlite:///cabrank.db"  # whoever starts a process for jobs expects an acknowledgement to outlast it


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The quickest event loop that this machine has."""
    try:
        import uvloop  # noqa: PLC0415 -- not every platform has it
    except ImportError:
        return None
    return uvloop.new_event_loop


async def whole_life(life: Coroutine[Any, Any, None]) -> None:
    """Await `life`, and end the process without the runs that were left behind: Python would wait for them for ever.

    By then everything is recorded and the store is closed.
    """
    await life
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for one in left:
        one.cancel()
    if left and (await asyncio.wait(left, timeout=LAST_CALL_S))[1]:
        logger.error("the process ends without what does not stop: its jobs were handed back")
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


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
    workers = dispatcher.pools[queue].size
    who = f"{workers} workers" if workers else "no workers here, `cabrank work` on the same store runs its jobs"
    return f"{who}; at most {bound.jobs:,} jobs and {size} may wait"
