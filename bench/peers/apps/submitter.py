"""Submits to one peer: `submitter.py PEER HOW COUNT`. Runs where that peer is installed; prints what it measured as JSON.

`one`: one after the other; `many`: 64 at a time; `bulk`: by the library's own bulk call, else 100 at a time; `pace`: 100 a second;
`slow`: jobs of a second each. `prepare` makes the tables.
"""

import asyncio
import importlib
import inspect
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import record

SUBMITTERS = 64
BULK, GATHERED = 1_000, 100
PACE = 100  # a second


class Peer:
    def __init__(self, name: str) -> None:
        self.module: Any = importlib.import_module(f"app_{name}")
        self.asynchronous = hasattr(self.module, "open")

    async def call(self, what: str, *args: object) -> None:
        function = getattr(self.module, what, None)
        if function is not None:
            made = function(*args)
            if inspect.isawaitable(made):
                await made

    async def one(self, count: int) -> None:
        for number in range(count):
            await self.call("submit", record.payload(number))

    async def many(self, count: int, submitters: int = SUBMITTERS) -> None:
        numbers = iter(range(count))
        if self.asynchronous:

            async def submit() -> None:
                for number in numbers:
                    await self.call("submit", record.payload(number))

            await asyncio.gather(*(submit() for _ in range(submitters)))
            return
        with ThreadPoolExecutor(submitters) as pool:
            shares = [range(share, count, submitters) for share in range(submitters)]
            list(pool.map(lambda share: [self.module.submit(record.payload(number)) for number in share] and None, shares))

    async def bulk(self, count: int) -> None:
        if hasattr(self.module, "submit_bulk"):
            for first in range(0, count, BULK):
                await self.call("submit_bulk", [record.payload(number) for number in range(first, min(count, first + BULK))])
        elif self.asynchronous:
            await self.many(count, GATHERED)
        else:
            await self.one(count)

    async def pace(self, count: int) -> list[int]:
        """The moments just before each submit, in ns."""
        moments: list[int] = []
        begins_at = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, begins_at + number / PACE - time.monotonic()))
            moments.append(time.monotonic_ns())
            await self.call("submit", record.payload(number))
        return moments

    async def slow(self, count: int) -> None:
        for number in range(count):
            await self.call("submit_slow", number)


async def main(name: str, how: str, count: int) -> None:
    peer = Peer(name)
    if how == "prepare":
        await peer.call("prepare")
        print("{}")
        return
    await peer.call("open")
    began = time.perf_counter()
    moments = await getattr(peer, how)(count)
    took_s = time.perf_counter() - began
    print(
        json.dumps({"took_s": took_s, "moments": moments or [], "bulk": hasattr(peer.module, "submit_bulk"), "worker": peer.module.WORKER})
    )
    sys.stdout.flush()
    await peer.call("close")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
