"""Duties that come round: each a plain or async function and how often it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from cabrank.clock import Clock


class Duty(msgspec.Struct, frozen=True):
    """Something to do every `every_s` seconds."""

    every_s: float
    do: Callable[[], Awaitable[None] | None]


async def keep_up(duties: Sequence[Duty], clock: Clock) -> None:
    """Do each duty when its time has come, for ever. A duty that is late is done once, not several times."""
    due = [clock.monotonic() + duty.every_s for duty in duties]
    while True:
        await clock.sleep(max(0.0, min(due) - clock.monotonic()))
        now = clock.monotonic()
        for index, duty in enumerate(duties):
            if due[index] <= now:
                done = duty.do()
                if done is not None:
                    await done
                due[index] = clock.monotonic() + duty.every_s
