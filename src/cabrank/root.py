"""The one task that holds the one `TaskGroup`: everything that runs lives in it, and nothing outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any

STUBBORN_S = 5.0  # what does not end within this of being told to is said not to, and at a stop left behind


class Root:
    """A task group that is entered in one task and may be left in another.

    A child that raises ends all others; `failure` is then what it raised, and `on_failure` is called with it.
    """

    def __init__(self, name: str, *, on_failure: Callable[[BaseException], None]) -> None:
        self._name = name
        self._on_failure = on_failure
        self._task: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._over = asyncio.Event()
        self.failure: BaseException | None = None

    async def open(self) -> None:
        """Start the root task and wait until children can be started."""
        up = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._hold(up), name=self._name)  # this and `apart` are the permitted ones
        await up.wait()

    def start(self, child: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run `child` in the group."""
        if self._group is None:
            child.close()
            raise RuntimeError("the root task is not open")
        started = self._group.create_task(child, name=f"{self._name}/{name}")
        started.add_done_callback(self._ended)
        return started

    async def close(self, *, patience_s: float) -> None:
        """Wait until every child has ended; leave those behind that do not end within `patience_s` of being told to.

        A cancel of the caller does not cut that short; it is raised afterwards.
        """
        self._over.set()
        if self._task is not None:
            await outlast([self._task], timeout_s=patience_s)

    def cancel(self) -> None:
        """Cancel every child."""
        if self._task is not None:
            self._task.cancel()

    def _ended(self, child: asyncio.Task[None]) -> None:
        """Tell the first failure at once: the other children may take their time to end."""
        failure = None if child.cancelled() else child.exception()
        if failure is not None and self.failure is None:
            self.failure = failure
            self._on_failure(failure)

    async def _hold(self, up: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as self._group:
                up.set()
                await self._over.wait()
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup:
            pass  # `_ended` has told
        finally:
            self._group = None


def apart(work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """Run what ends a root, and so cannot live in it. Whoever calls this keeps what is returned."""
    return asyncio.get_running_loop().create_task(work, name=name, context=Context())


async def outlast(futures: Sequence[asyncio.Future[Any]], *, timeout_s: float | None = None) -> None:
    """Wait until all `futures` are done or the time is up, whatever cancels come; one that came is raised at the end."""
    loop = asyncio.get_running_loop()
    ends_at = None if timeout_s is None else loop.time() + timeout_s
    cancelled: asyncio.CancelledError | None = None
    while pending := [future for future in futures if not future.done()]:
        left = None if ends_at is None else ends_at - loop.time()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait(pending, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
