"""What a submitter without a loop holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import cabrank.handle
from cabrank.built import Built
from cabrank.job import Progress
from cabrank.loopthread import LoopThread
from cabrank.states import State
from cabrank.timeline import Happening

R = TypeVar("R")


class JobHandle(Generic[R]):
    """One submitted job, as `cabrank.JobHandle`, for callers that wait without a loop. Dropping it costs nothing and stops nothing."""

    __slots__ = ("_handle", "_thread")

    def __init__(self, handle: cabrank.handle.JobHandle[R], thread: LoopThread) -> None:
        self._handle = handle
        self._thread = thread

    @property
    def number(self) -> int:
        """The job's id as a number, within its store."""
        return self._handle.number

    @property
    def id(self) -> str:
        """The job's id as text: what `handle` and `GET /jobs/{id}` take."""
        return self._handle.id

    @property
    def durability(self) -> str:
        """What it means that the job was taken on: `disk`, `process` or `memory`."""
        return self._handle.durability

    @property
    def settled(self) -> bool:
        """Whether this process knows that the job has ended."""
        return self._handle.settled

    def state(self) -> State:
        """The job's state now.

        Raises:
            UnknownJob: it ended and is no longer kept.
        """
        return self._thread.run(self._handle.state)

    def progress(self) -> Progress | None:
        """How far the job's run is, as its handler said it; None if it said nothing, or does not run."""
        return self._thread.run(self._handle.progress)

    def timeline(self) -> Sequence[Happening]:
        """See `cabrank.JobHandle.timeline`."""
        return self._thread.run(self._handle.timeline)

    def cancelling(self) -> bool:
        """Whether the job runs and was told to stop by a cancel.

        Raises:
            UnknownJob: it ended and is no longer kept.
        """
        return self._thread.run(self._handle.cancelling)

    def cancel(self) -> bool:
        """Cancel the job. False: it had ended. A running one is asked to stop; whoever settles first wins."""
        return self._thread.run(self._handle.cancel)

    def result(self, *, timeout_s: float | None = None) -> R:
        """What the handler returned, once it has. Raises what `cabrank.JobHandle.result` raises."""
        return self._thread.run(lambda: self._handle.result(timeout_s=timeout_s))

    def within(self) -> tuple[cabrank.handle.JobHandle[R], LoopThread]:
        """What it is in the loop, and where that runs."""
        return self._handle, self._thread

    def __repr__(self) -> str:
        return repr(self._handle)


class JobHandles(Built[cabrank.handle.JobHandle[R], JobHandle[R]], Generic[R]):
    """The handles of a bulk submit, each built when it is asked for."""

    def __init__(self, chunks: Sequence[Sequence[cabrank.handle.JobHandle[R]]], thread: LoopThread) -> None:
        super().__init__(chunks, lambda handle: JobHandle(handle, thread))
