"""A dispatcher in a process of its own, to be killed: one job sits in a worker process."""

from __future__ import annotations

import asyncio
import sys

import cabrank
from tests.faults.program import app, sits


async def main(where: str) -> None:
    async with cabrank.Dispatcher(app, max_workers=1) as dispatcher:
        await dispatcher.submit(sits, where)
        await dispatcher.join()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
