"""What was submitted, as a test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cabrank.events import Event, JobsAdmitted
from cabrank.handler import Handler
from cabrank.intake import Intake
from cabrank.job import BARE, Job


class Recording:
    """The jobs that an intake, or a dispatcher, has taken on since this was made.

    With `cabrank.Intake(app, store="memory://")` they wait and nothing runs them; nothing is replaced by something that only looks
    like it. Cost: each job is kept until this is dropped.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._jobs: list[Job] = []
        intake.engine.events.subscribe(self._take)

    async def jobs(self, function: Callable[..., Any] | None = None) -> Sequence[Job]:
        """All of them, or those that call `function`, in the order in which they were taken on."""
        await self._intake.engine.handles.caught_up()
        return [job for job in self._jobs if function is None or _calls(job, function)]

    async def was_submitted(self, function: Callable[..., Any], *args: Any, times: int | None = None) -> bool:
        """Whether `function` was submitted with these arguments (none: any), at least once, or as often as said."""
        count = len(_with(await self.jobs(function), args))
        return count > 0 if times is None else count == times

    async def assert_submitted(self, function: Callable[..., Any], *args: Any, times: int | None = None) -> Sequence[Job]:
        """Those jobs, with their options, such as `due_at`, `priority` and `tags`.

        Raises:
            AssertionError: `was_submitted` says no. The message has what was submitted instead.
        """
        jobs = await self.jobs(function)
        found = _with(jobs, args)
        if (not found) if times is None else len(found) != times:
            expected = "" if times is None else f" {times} times, but {len(found)} times"
            called = f"{_name(function)}({', '.join(map(repr, args)) if args else '…'})"
            others = "\n".join(f"  {_name(function)}({', '.join(map(repr, job.args or ()))})" for job in jobs) or "  nothing"
            raise AssertionError(f"{called} was not submitted{expected}; of {_name(function)} was:\n{others}")
        return found

    async def assert_nothing_submitted(self) -> None:
        """Nothing is returned.

        Raises:
            AssertionError: something was submitted. The message says what.
        """
        if jobs := await self.jobs():
            listed = "\n".join(f"  {job.handler}({', '.join(map(repr, job.args or ()))})" for job in jobs)
            raise AssertionError(f"something was submitted:\n{listed}")

    def _take(self, event: Event) -> None:
        if isinstance(event, JobsAdmitted):
            self._jobs += event.jobs


def _calls(job: Job, function: Callable[..., Any]) -> bool:
    if isinstance(function, Handler):
        return job.handler == function.name  # pyright: ignore[reportUnknownMemberType] -- isinstance cannot tell the parameters
    return job.handler == BARE and job.function == function


def _with(jobs: Sequence[Job], args: tuple[Any, ...]) -> Sequence[Job]:
    return [job for job in jobs if not args or job.args == args]


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
