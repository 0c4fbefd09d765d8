"""A Dispatcher for callers without a loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import cabrank.dispatcher
from cabrank.blocking.intake import Intake
from cabrank.running import RunningJob
from cabrank.settings import Workers

T = TypeVar("T")


class Dispatcher(Intake):
    """Takes jobs on and lets bounded pools of workers do them, as `cabrank.Dispatcher`, for callers without a loop.

    `async def` handlers run on its own event loop, `def` handlers on threads. In a forking web server every worker process that
    uses it has workers of its own; where one process is to work, let the others have an `Intake`.
    """

    _kind = cabrank.dispatcher.Dispatcher

    def join(self) -> None:
        """Wait until nothing waits or runs: in this process, and in the store's queues that it serves.

        Raises:
            IntakeClosed: it was stopped before that.
        """
        self._let(lambda made: made.join())

    def resize(self, queue: str, workers: Workers) -> None:
        """Let so many workers serve `queue` from now on, or as many as it needs between two numbers.

        Raises:
            UsageError: there is no such queue here.
            SettingError: fewer than 1.
        """
        self._let(lambda made: made.resize(queue, workers))

    def pause(self, queue: str | None = None) -> None:
        """Let no job of `queue` (default: of each queue here) start any more, in any process on this store, until `resume`.

        Raises:
            What `cabrank.Dispatcher.pause` raises.
        """
        self._let(lambda made: made.pause(queue))

    def resume(self, queue: str | None = None) -> None:
        """Let jobs of a paused queue start again, and take jobs on again for one that was drained; default: each queue here."""
        self._let(lambda made: made.resume(queue))

    def drain(self, queue: str | None = None, *, timeout_s: float | None = None) -> None:
        """Take on no more jobs for `queue` (default: for each queue here), and wait until none of it waits or runs.

        Raises:
            TimeoutError: `timeout_s` seconds passed. Nothing more is taken on, and calling again is safe.
            What else `cabrank.Dispatcher.drain` raises.
        """
        self._let(lambda made: made.drain(queue, timeout_s=timeout_s))

    def running(self) -> Sequence[RunningJob]:
        """What runs here now, each with its stack. It does not wait for the loop: a handler may block that."""
        return self._works(self._front.opened().made).running()

    def dump(self) -> str:
        """`running` as text."""
        return self._works(self._front.opened().made).dump()

    def _let(self, work: Callable[[cabrank.dispatcher.Dispatcher], Coroutine[Any, Any, T]]) -> T:
        opened = self._front.opened()
        return opened.thread.run(lambda: work(self._works(opened.made)))

    @staticmethod
    def _works(made: cabrank.Intake) -> cabrank.dispatcher.Dispatcher:
        assert isinstance(made, cabrank.dispatcher.Dispatcher)  # noqa: S101 -- it is what `_kind` says
        return made
