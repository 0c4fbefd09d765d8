"""Ten thousand calls of an API that allows 50 a second and 4 at once, without ever being refused.

    python -m examples.slow_api                             # 3.5 minutes
    python -m examples.slow_api --calls 1000 --per-s 500    # 2 seconds

The API is a server on this machine that counts what comes: a call that is the 51st within any second, or the 5th at once, is answered
with `over`. It is a process-local stand-in for somebody else's server, reached over a real socket.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque

import msgspec

import cabrank

AT_ONCE = 4


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the API saw. `used` is the share of what it allowed, from the first call to the last."""

    calls: int
    over: int
    most_in_a_second: int
    most_at_once: int
    took_s: float
    used: float


class SlowApi:
    """Answers `ok` or `over` to each line, and counts."""

    def __init__(self, per_s: int) -> None:
        self.per_s = per_s
        self.takes_s = 0.5 * AT_ONCE / per_s
        self.calls = self.over = self.running = self.most_at_once = self.most_in_a_second = 0
        self.open = 0
        self.came_at: list[float] = []
        self._second: deque[float] = deque()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one call after another."""
        self.open += 1
        while await reader.readline():
            allowed = self._count(time.monotonic())
            self.running += 1
            await asyncio.sleep(self.takes_s)
            self.running -= 1
            writer.write(b"ok\n" if allowed else b"over\n")
        writer.close()
        self.open -= 1

    def figures(self) -> Figures:
        """All that it saw."""
        took_s = self.came_at[-1] - self.came_at[0]
        return Figures(
            calls=self.calls,
            over=self.over,
            most_in_a_second=self.most_in_a_second,
            most_at_once=self.most_at_once,
            took_s=took_s,
            used=(self.calls - 1) / took_s / self.per_s,
        )

    def _count(self, now: float) -> bool:
        self.calls += 1
        self.came_at.append(now)
        self._second.append(now)
        while self._second[0] <= now - 1.0:
            self._second.popleft()
        self.most_in_a_second = max(self.most_in_a_second, len(self._second))
        self.most_at_once = max(self.most_at_once, self.running + 1)
        allowed = len(self._second) <= self.per_s and self.running < AT_ONCE
        self.over += not allowed
        return allowed


class Connections:
    """To the API: as many as may call at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self) -> str:
        """Call it once."""
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"call\n")
        answer = await reader.readline()
        self._free.append((reader, writer))
        return answer.decode().strip()

    def close(self) -> None:
        """Close them all."""
        for _, writer in self._free:
            writer.close()


async def run(calls: int, per_s: int, *, use: float = 0.96) -> Figures:
    """Make so many calls. `use` is how much of the allowance is asked for: the rest is room for a burst, and for late packets."""
    api = SlowApi(per_s)
    app = cabrank.App()
    limit = cabrank.Limit(running=AT_ONCE, per_s=use * per_s, burst=max(1.0, 0.03 * per_s))
    async with await asyncio.start_server(api.answer, "127.0.0.1") as server:
        connections = Connections(server.sockets[0].getsockname()[1])

        @app.job(queue="api", limit=limit)
        async def call(number: int) -> None:
            answer = await connections.call()
            if answer != "ok":
                raise cabrank.GiveUp(f"call {number}: {answer}")

        async with cabrank.Dispatcher(app, max_workers=AT_ONCE) as dispatcher:
            await dispatcher.submit_many(call, range(calls))
            await dispatcher.join()
        connections.close()
        while api.open:  # noqa: ASYNC110 -- they end with the next turns of this loop
            await asyncio.sleep(0)
    return api.figures()


def main() -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--per-s", type=int, default=50)
    given = parser.parse_args()
    figures = asyncio.run(run(given.calls, given.per_s))
    print(f"| calls | allowed | most in a second | most at once | refused | took | used |\n|{'---|' * 7}")
    print(
        f"| {figures.calls:,} | {given.per_s} a second, {AT_ONCE} at once | {figures.most_in_a_second} | {figures.most_at_once} "
        f"| {figures.over} | {figures.took_s:.1f} s | {figures.used:.1%} |"
    )


if __name__ == "__main__":
    main()
