"""A `concurrent.futures.Future` that costs a third: the condition at which waiters meet is made when somebody waits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import FINISHED, PENDING, RUNNING
from typing import Any, TypeVar

R = TypeVar("R")

Call = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""What is to be called with what, and whom to tell."""

# What `Promise` builds itself, and what the rest of the base class uses. Where Python has it otherwise, the base is taken as it is.
ATTRIBUTES = {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}

_states = threading.RLock()  # guards each change of state of a future that has no condition yet, and the making of conditions


class Promise(Future[R]):
    """As long as nobody waits for it, its state changes under one lock for all; from then on as the base has it."""

    def __init__(self) -> None:  # the base's would make the condition
        self._met: threading.Condition | None = None
        self._state = PENDING
        self._result: Any = None
        self._exception = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override] # an attribute of the base
        if self._met is None:
            with _states:
                if self._met is None:
                    self._met = threading.Condition()
        return self._met

    def set_running_or_notify_cancel(self) -> bool:
        """As the base has it."""
        with _states:
            if self._met is None and self._state is PENDING:
                self._state = RUNNING
                return True
        return super().set_running_or_notify_cancel()

    def set_result(self, result: R) -> None:
        """As the base has it."""
        with _states:
            if self._met is None and self._state is RUNNING:
                self._result = result
                self._state = FINISHED  # last: `result` reads it without a lock
                return
        super().set_result(result)

    def result(self, timeout: float | None = None) -> R:
        """As the base has it."""
        if self._state is FINISHED and self._exception is None:
            return self._result  # type: ignore[no-any-return] # as the base keeps it
        return super().result(timeout)


def promised() -> Future[Any]:
    """A new future."""
    return _kind()


_kind: type[Future[Any]] = Promise if vars(Future()).keys() == ATTRIBUTES else Future


def _after_fork_in_child() -> None:
    global _states  # noqa: PLW0603 -- a thread that is not here may hold it
    _states = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
