"""Submits what a schedule says, when it is due: one child of the root task for each schedule of the app."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import partial
from typing import Protocol

from cabrank.admitting import answer
from cabrank.app import App
from cabrank.drafts import Drafts, Options
from cabrank.engine import Engine
from cabrank.errors import CabrankError, IntakeClosed, RegistrationError, SettingError, StoreUnavailable
from cabrank.events import logger
from cabrank.gathering import Answered
from cabrank.job import Job
from cabrank.schedules import ON_TIME_S, Schedule
from cabrank.stores.contract import Admission, Submission, Tick

LOOK_S = 30.0  # how long is slept at most: so soon a clock that was set, or a machine that slept, is noticed
AGAIN_S = 1.0  # after which a tick is tried again that could not be submitted


class Enter(Protocol):
    """See `Intake.enter`."""

    def __call__(self, submission: Submission, answered: Answered, *, patient: bool) -> None:
        """Take a submission to the store."""
        ...


class Ticking:
    """The schedules of one dispatcher. That each tick is submitted once, over all of them, is judged by the store in its turn."""

    def __init__(self, app: App, *, engine: Engine, drafts: Drafts, enter: Enter) -> None:
        """Check what the app does not.

        Raises:
            RegistrationError: a schedule has an option that cannot be meant.
        """
        self._app = app
        self._engine = engine
        self._drafts = drafts
        self._enter = enter
        self._last: dict[str, float] = {}
        self._options: dict[str, Options] = {}
        for schedule in app.schedules.values():
            try:
                self._options[schedule.name] = Options(**schedule.options)
            except SettingError as error:
                raise RegistrationError(f"schedule {schedule.name!r}: {error}") from None

    async def look(self) -> None:
        """See which ticks were the last. From here on none is lost.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        for schedule in self._app.schedules.values():
            self._last[schedule.name] = await self._engine.store.last_tick(schedule.name, schedule.spec)

    def begin(self) -> None:
        """Submit from now on."""
        for schedule in self._app.schedules.values():
            self._engine.root.start(self._keep(schedule, self._last[schedule.name]), name=f"schedule/{schedule.name}")

    async def _keep(self, schedule: Schedule, last_at: float) -> None:
        clock = self._engine.clock
        while self._engine.closed is None:
            now = clock.now()
            wait_s = schedule.next_after(last_at) - now
            if wait_s > 0:
                await clock.sleep(min(wait_s, LOOK_S))
                continue
            due = schedule.due(last_at, now)
            if due.left_out or now - due.until > ON_TIME_S:
                since = datetime.fromtimestamp(last_at, schedule.zone).isoformat(timespec="seconds")
                logger.warning("schedule %s missed ticks since %s; jobs for them: %d", schedule.name, since, len(due.ticks))
            for tick in due.ticks:
                await self._submit(schedule, tick)
            last_at = due.until

    async def _submit(self, schedule: Schedule, tick: float) -> None:
        """Submit the job of one tick, however long that takes. What cannot be submitted at all is told and left."""
        while self._engine.closed is None:
            try:
                job = await self._draft(schedule, tick)
                await self._offer(Submission(jobs=(job,), tick=Tick(schedule.name, tick)))
            except (StoreUnavailable, IntakeClosed):  # its queue is drained, or nobody knows: the store takes it once
                await self._engine.clock.sleep(AGAIN_S)
            except CabrankError as error:
                if self._engine.closed is None:
                    logger.error("the tick %.0f of schedule %s is left out: %s", tick, schedule.name, error)
                return
            else:
                return

    async def _draft(self, schedule: Schedule, tick: float) -> Job:
        await self._engine.ids.need(1)
        handler = self._app.handler(schedule.handler)
        try:
            args = schedule.arguments(tick)
        except Exception as error:
            raise RegistrationError(f"its args cannot be had: {type(error).__name__}: {error}") from error
        return self._drafts.job(handler, handler.function, args, self._options[schedule.name])

    def _offer(self, submission: Submission) -> asyncio.Future[Admission]:
        future: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._enter(submission, partial(answer, future), patient=True)
        return future
