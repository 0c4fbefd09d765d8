"""Where the time of one HTTP request goes: `python -m bench.profile_ingest`. No socket and no load generator takes part.

Requests are put into the lane's protocol objects as if they had come from so many kept-alive connections, one at a time each, and what
would be sent is counted. So everything is measured but the system's calls for reading, sending and waiting; those add about
10 µs to each request.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import msgspec
import uvicorn
import uvloop
from uvicorn.server import ServerState

import cabrank
from bench.document import document
from bench.noop_app import app
from cabrank.server.access import Access
from cabrank.server.known import KnownHeads
from cabrank.server.lane import Lane
from cabrank.server.pace import Crowd
from cabrank.server.reception import Reception
from cabrank.server.replies import Heads
from cabrank.server.round import Rounds

HEAD = "POST /telemetry HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
ROOM = 100_000
SAMPLE_S = 0.001
PARTS = {
    "reads the head and looks at the connection": ("lane.py", "known.py", "pace.py", "httptools_impl.py", "access.py"),
    "decodes and encodes payloads": ("codec.py", "foreign.py"),
    "calls the function of the document": ("noop_app.py", "handler.py"),
    "makes jobs of it and finds them room": (
        "entrances.py",
        "reception.py",
        "round.py",
        "drafts.py",
        "way.py",
        "plain.py",
        "block.py",
        "intake.py",
        "pending.py",
        "ids.py",
        "fullness.py",
    ),
    "writes the answer": ("replies.py",),
    "runs the jobs": ("coroutine.py", "pool.py", "queue.py", "crew.py"),
    "takes turns of the store": tuple(
        f"{name}.py"
        for name in (
            *("committer", "gathering", "dispatcher", "engine", "handle", "store", "writer", "ledger"),
            *("line", "lines", "kept", "bell", "clock", "events", "job"),
        )
    ),
    "stands for the clients (not the server's)": ("profile_ingest.py",),
}
PART_OF = {file: part for part, files in PARTS.items() for file in files}


class Client(asyncio.Transport):
    """One kept-alive connection: what is written to it is read at once, and counted."""

    def __init__(self, answered: Callable[[Client, int], None]) -> None:
        super().__init__()
        self._answered = answered
        self.lane: Lane

    def write(self, data: Any) -> None:
        """Count the answers."""
        self._answered(self, data.count(b"HTTP/1.1 202"))

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """An address on loopback."""
        return {"peername": ("127.0.0.1", 40_000), "sockname": ("127.0.0.1", 8_000)}.get(name, default)


class Bench:
    """So many connections to one open dispatcher."""

    def __init__(self, dispatcher: cabrank.Dispatcher, connections: int, request: bytes) -> None:
        heads = Heads(dispatcher.engine.handles.durability)
        reception = Reception(dispatcher)
        crowd = Crowd(most=10_000, most_each=10_000)
        lane = partial(Lane, reception, heads, Access(), crowd, KnownHeads(), Rounds(reception, heads, crowd))
        config = uvicorn.Config(cast(Any, None), http=cast(Any, lane), ws="none", lifespan="off", interface="asgi3", log_config=None)
        config.loaded, config.loaded_app = True, cast(Any, None)
        config.ws_protocol_class = None
        self._dispatcher = dispatcher
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._left = self._unanswered = 0
        self._ready: list[Client] = []
        self._over = asyncio.Event()
        self._clients = [Client(self._answered) for _ in range(connections)]
        state = ServerState()
        for client in self._clients:
            client.lane = lane(config=config, server_state=state, app_state={})
            client.lane.connection_made(client)

    @property
    def turns(self) -> int:
        """Turns of the store so far."""
        return self._dispatcher.engine.counters.turns

    async def run(self, requests: int) -> None:
        """Each connection asks again when it has its answer, until so many requests are answered and their jobs done."""
        self._left, self._unanswered = requests - len(self._clients), requests
        self._over.clear()
        self._ready = list(self._clients)
        self._ask()
        await self._over.wait()
        await self._dispatcher.join()

    def _answered(self, client: Client, answers: int) -> None:
        self._unanswered -= answers
        if self._left > 0:
            self._left -= 1
            if not self._ready:
                self._loop.call_soon(self._ask)
            self._ready.append(client)
        elif not self._unanswered:
            self._over.set()

    def _ask(self) -> None:
        ready, self._ready = self._ready, []
        request = self._request
        for client in ready:
            client.lane.data_received(request)


class Options(msgspec.Struct, kw_only=True):
    store: str
    payloads: int
    connections: int
    requests: int
    rounds: int
    functions: int
    calls: bool
    parts: bool


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.profile_ingest", description=__doc__)
    parser.add_argument("--store", choices=("memory", "durable"), default="memory")
    parser.add_argument("--payloads", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--functions", type=int, default=0, help="list so many of the functions that take most, of the loop's thread")
    parser.add_argument("--calls", action="store_true", help="count the calls of each function a request")
    parser.add_argument(
        "--parts", action="store_true", help="say how the time of the loop's thread is shared between the parts of the route"
    )
    return msgspec.convert(vars(parser.parse_args(arguments)), Options)


async def profile(options: Options, folder: Path) -> None:
    store = "memory://" if options.store == "memory" else f"sqlite:///{folder}/jobs.db"
    body = document(payloads=options.payloads)
    request = HEAD.format(len(body)).encode() + body
    async with cabrank.Dispatcher(app, store=store, max_workers=100, max_queue=ROOM) as dispatcher:
        bench = Bench(dispatcher, options.connections, request)
        await bench.run(options.requests // 4)
        gc.collect()
        taken: list[tuple[float, float, int]] = []
        for _ in range(options.rounds):
            before = time.process_time(), time.thread_time(), bench.turns
            await bench.run(options.requests)
            taken.append((time.process_time() - before[0], time.thread_time() - before[1], bench.turns - before[2]))
        for name, at in (("process", 0), ("loop's thread", 1)):
            each = sorted(one[at] / options.requests * 1e6 for one in taken)
            print(f"{name}: {each[0]:.2f} µs a request at best, {each[len(each) // 2]:.2f} in the middle, {each[-1]:.2f} at worst")
        print(f"requests a turn: {options.requests * options.rounds / sum(one[2] for one in taken):.1f}")
        if options.parts:
            await sample(bench, options.requests * options.rounds)
        if options.functions:
            profiler = cProfile.Profile()
            profiler.enable()
            await bench.run(options.requests)
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(options.functions)
        if options.calls:
            await count(bench, options.requests)


async def sample(bench: Bench, requests: int) -> None:
    """Look each millisecond of CPU time at where the loop's thread is, and share the time that it took since then between `PARTS`."""
    taken: dict[str, float] = defaultdict(float)
    last = time.thread_time()

    def look(number: int, frame: FrameType | None) -> None:
        nonlocal last
        del number
        last, before = time.thread_time(), last
        while frame is not None and Path(frame.f_code.co_filename).name not in PART_OF:
            frame = frame.f_back
        taken["elsewhere" if frame is None else PART_OF[Path(frame.f_code.co_filename).name]] += last - before

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)
    try:
        await bench.run(requests)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    for part, its_s in sorted(taken.items(), key=lambda one: -one[1]):
        print(f"{its_s / requests * 1e6:8.2f} µs  {part}")


async def count(bench: Bench, requests: int) -> None:
    """How often each function is called for a request, in the loop's thread."""
    calls: Counter[str] = Counter()

    def called(frame: FrameType, event: str, what: Any) -> None:
        if event == "call":
            code = frame.f_code
            calls[f"{Path(code.co_filename).name}:{code.co_qualname}"] += 1
        elif event == "c_call":
            calls[f"C {getattr(what, '__qualname__', what)}"] += 1

    sys.setprofile(called)
    try:
        await bench.run(requests)
    finally:
        sys.setprofile(None)
    for name, number in calls.most_common(120):
        if number / requests < 0.005:
            break
        print(f"{number / requests:8.3f}  {name}")
    python = sum(number for name, number in calls.items() if not name.startswith("C "))
    print(f"calls a request: {python / requests:.1f} of Python's, {(sum(calls.values()) - python) / requests:.1f} of C's")


def main() -> None:
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(profile(options, Path(folder)))


if __name__ == "__main__":
    main()
