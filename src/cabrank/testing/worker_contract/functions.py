"""The handlers of the contract as plain functions, at the top of a module, so that another process can import them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import ContextVar

from cabrank.app import App
from cabrank.batch import Batch, Failure
from cabrank.inject import JobContext, context, resource
from cabrank.policy import GiveUp, Snooze, TryAgain
from cabrank.settings import Kind

MARK: ContextVar[int] = ContextVar("mark", default=0)


class Below(Exception):
    """An exception of the program's own."""


ERRORS = {
    "ValueError": ValueError,
    "SystemExit": SystemExit,
    "StopIteration": StopIteration,
    "GeneratorExit": GeneratorExit,
    "StopAsyncIteration": StopAsyncIteration,
}

_opened = 0


def open_stock() -> list[str]:
    """What `takes_a_resource` receives: opened once, it says how often it was opened before."""
    global _opened  # noqa: PLW0603 -- counts in whichever process opens
    _opened += 1
    return [f"opened {_opened}"]


def adds(a: int, b: int) -> int:
    """A result."""
    return a + b


def nothing() -> None:
    """No result."""


def echoes(text: str) -> str:
    """A result as large as its payload."""
    return text


def raises(error: str, text: str) -> None:
    """An error of one of the classes in `ERRORS`."""
    raise ERRORS[error](text)


def tries_again(after_s: float) -> None:
    """An outcome that is raised."""
    raise TryAgain("not yet", after_s=after_s)


def gives_up() -> None:
    """An outcome that is raised."""
    raise GiveUp("no such account")


def snoozes(for_s: float) -> None:
    """An outcome that is raised."""
    raise Snooze(for_s=for_s)


def marks() -> int:
    """How often this was called in this run's own context."""
    MARK.set(MARK.get() + 1)
    return MARK.get()


def describes_its_run(*, job: JobContext = context()) -> tuple[str, str, int, int, float]:
    """What the `JobContext` says."""
    return job.id, job.handler, job.run, job.attempt, job.deadline_at


def takes_a_resource(*, stock: list[str] = resource(open_stock)) -> str:
    """What was opened."""
    return stock[0]


def where() -> tuple[int, int]:
    """Which process and which thread runs this."""
    return os.getpid(), threading.get_ident()


def held(entered: str, opened: str) -> str:
    """Waits at a `Gate`, given as the paths of its two pipes."""
    with open(opened, "rb", buffering=0) as gate:  # noqa: PTH123 -- a pipe, opened first: the gate may close once this is known here
        with open(entered, "wb", buffering=0) as pipe:  # noqa: PTH123
            pipe.write(b"x")
        gate.read(1)
    return "let through"


def packs(items: list[int], *, job: JobContext = context()) -> list[Failure | None] | None:
    """A batch: None if all are above 0, else what is wrong with each; 13 is wrong for all, and beyond 100 the answer itself is."""
    if max(items) > 100:  # noqa: PLR2004
        too_many: list[Failure | None] = [None] * max(items)
        return too_many
    if 13 in items:  # noqa: PLR2004
        raise ValueError("a 13")
    if min(items) > 0:
        return None
    said: dict[int, Failure] = {
        0: Failure("a zero", after_s=1.5),
        -1: Failure(Below("below 0")),
        -2: Failure(Snooze(for_s=2.5)),
        -3: Failure(KeyError("hopeless"), retry=False),
        -4: Failure(" ".join(job.ids)),
    }
    return [said.get(item) for item in items]


FUNCTIONS: tuple[Callable[..., object], ...] = (
    adds,
    nothing,
    echoes,
    raises,
    tries_again,
    gives_up,
    snoozes,
    marks,
    describes_its_run,
    takes_a_resource,
    where,
    held,
)


def app_of(kind: Kind) -> App:
    """The functions as handlers of that kind, each under its own name."""
    app = App()
    for function in FUNCTIONS:
        app.job(kind=kind.value)(function)
    app.job(kind=kind.value, batch=Batch())(packs)
    return app


THREAD = app_of(Kind.THREAD)
PROCESS = app_of(Kind.PROCESS)
