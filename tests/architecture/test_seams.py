"""Time, chance and new asyncio tasks come from one place each, so that a simulation can own all three.

The table is the whole rule: a name, who may use it, and why nobody else may.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pytest

from tests.architecture.names import used_names
from tests.architecture.sources import Source, cabrank, planted, within

FRONTS = (
    "cabrank.loopthread",
    "cabrank.executor",
    "cabrank.blocking",
    "cabrank.client",
    "cabrank.server",
    "cabrank.cli",
    "cabrank.__main__",
)
OUTSIDE = (*FRONTS, "cabrank.testing")  # above layer 7: never simulated, or the simulation itself
THREADS = ("cabrank.stores.sqlite", "cabrank.workers.thread", "cabrank.workers.process")  # own threads or processes: real time


@dataclass(frozen=True)
class Seam:
    """Names (shell patterns) that only some modules may use."""

    names: tuple[str, ...]
    allowed: tuple[str, ...]
    reason: str
    spared: tuple[str, ...] = ()  # names that the patterns match and that are harmless

    def covers(self, name: str) -> bool:
        """Whether a name is meant. `x` means every use of x, `x()` its calls alone."""
        return name not in self.spared and any(
            fnmatchcase(name, pattern) and name.endswith("()") == pattern.endswith("()") for pattern in self.names
        )


CLOCK = "time comes in as a Clock (clock.py)"
CHANCE = "chance comes in as a random.Random"
SEAMS = (
    Seam(("time.monotonic", "time.monotonic_ns", "time.sleep"), ("cabrank.clock", *THREADS, *OUTSIDE), CLOCK),
    Seam(("time.*",), ("cabrank.clock", *OUTSIDE), CLOCK, spared=("time.monotonic", "time.monotonic_ns", "time.sleep")),
    Seam(("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"), OUTSIDE, CLOCK),
    Seam(("asyncio.sleep",), ("cabrank.clock", *OUTSIDE), f"{CLOCK}; asyncio.sleep(0) passes no time and is free"),
    Seam(("threading.Timer",), OUTSIDE, CLOCK),
    Seam(("random.*",), OUTSIDE, CHANCE, spared=("random.Random",)),
    Seam(("secrets", "secrets.*", "uuid", "uuid.*", "os.urandom"), OUTSIDE, CHANCE),
    Seam(
        ("os.fork", "os.forkpty"),
        ("cabrank.testing", "cabrank.workers.process.keeper", "cabrank.cli.first"),
        "only the keeper and process 1 of a container fork, which have one thread and no event loop: in others threads may run",
    ),
    Seam(
        (
            "asyncio.create_task",
            "asyncio.ensure_future",
            "asyncio.gather",
            "asyncio.as_completed",
            "asyncio.Task()",
            "asyncio.TaskGroup()",
            "asyncio.get_running_loop().create_task",
            "*loop.create_task",
        ),
        ("cabrank.root", *OUTSIDE),
        "root.py owns the only TaskGroup, and nothing outlives it",
    ),
    Seam(
        ("pickle", "pickle.*", "marshal", "marshal.*", "shelve", "shelve.*"),
        ("cabrank.workers.process",),
        "bytes from a store or the network are never unpickled",
    ),
)


def trespasses(modules: Iterable[Source], seams: Iterable[Seam] = SEAMS) -> list[str]:
    """Each use of a name by a module that may not use it, one line each."""
    table = tuple(seams)
    return [finding for module in modules for seam in table if not within(module.name, seam.allowed) for finding in _uses(module, seam)]


def _uses(module: Source, seam: Seam) -> Iterator[str]:
    free = set(_yields(module.tree))
    for name, node in used_names(module):
        if seam.covers(name) and node not in free:
            yield f"{module.place(node.lineno)}: {name}: {seam.reason}"


def _yields(tree: ast.Module) -> Iterator[ast.AST]:
    """The `asyncio.sleep` of each `asyncio.sleep(0)`: it lets others run and waits for nothing."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="sleep"), args=[ast.Constant(value=0)]):
                yield node.func
            case _:
                pass


def test_time_chance_and_tasks_come_in_from_outside() -> None:
    assert trespasses(cabrank()) == []


@pytest.mark.parametrize(
    "text",
    [
        "import time\nmoment = time.time()",
        "import time as clock\nmoment = clock.monotonic()",
        "from time import time_ns",
        "from time import monotonic as now",
        "import time\nnow = staticmethod(time.perf_counter)",
        "import datetime\nmoment = datetime.datetime.now(datetime.UTC)",
        "from datetime import datetime\nmoment = datetime.now()",
        "import random\nchance = random.random()",
        "from random import shuffle",
        "import random\nsource = random.SystemRandom()",
        "import uuid",
        "from uuid import uuid4",
        "import os\nname = os.urandom(8)",
        "import os\npid = os.fork()",
        "import asyncio\nasync def f() -> None:\n    await asyncio.sleep(1)",
        "from asyncio import sleep",
        "import asyncio\nasync def f() -> None:\n    asyncio.create_task(f())",
        "from asyncio import ensure_future",
        "import asyncio\nasync def f() -> None:\n    await asyncio.gather(f())",
        "import asyncio\nasync def f() -> None:\n    asyncio.get_running_loop().create_task(f())",
        "import asyncio\nasync def f(loop: asyncio.AbstractEventLoop) -> None:\n    loop.create_task(f(loop))",
        "import asyncio\nasync def f() -> None:\n    async with asyncio.TaskGroup(): ...",
        "def f() -> None:\n    import pickle\n",
        "from pickle import loads",
    ],
)
def test_a_module_that_helps_itself_is_found(text: str) -> None:
    assert len(trespasses([planted(text)])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio\nasync def f() -> None:\n    await asyncio.sleep(0)",
        "import random\ndef f(chance: random.Random) -> float:\n    return chance.random()",
        "class Time:\n    def time(self) -> float: ...\ntime = Time()\nmoment = time.time()",
        "import asyncio\nasync def f(group: asyncio.TaskGroup) -> asyncio.Task[None]:\n    return group.create_task(f(group))",
    ],
)
def test_what_came_in_may_be_used(text: str) -> None:
    assert trespasses([planted(text)]) == []


def test_the_owner_of_a_seam_may_use_it() -> None:
    text = "import time\nmoment = time.monotonic()"
    assert trespasses([planted(text, name="cabrank.stores.sqlite.writer")]) == []
    assert trespasses([planted(text, name="cabrank.stores.memory.writer")]) != []
    assert trespasses([planted("import time\nmoment = time.time()", name="cabrank.stores.sqlite.writer")]) != []
    assert trespasses([planted("import pickle", name="cabrank.workers.process")]) == []
    assert trespasses([planted("import pickle", name="cabrank.server.lane")]) != []
