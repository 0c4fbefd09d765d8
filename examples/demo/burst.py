"""The burst: documents go in, the server is killed on the way, and the run waits until every payload is in the bucket."""

import asyncio
import signal
import time
from collections.abc import Sequence

import msgspec
from rich.console import Console

from examples.demo.bars import Bars
from examples.demo.failure import DemoFailed
from examples.demo.flights import KeyedDocument
from examples.demo.plan import KillPoint
from examples.demo.scratch import Scratch, shown
from examples.demo.sender import Acknowledged, Sender
from examples.demo.server import Life, Server
from examples.demo.tally import Tally
from examples.demo.target import Target, left_at

LOOK_S = 0.2
COUNT_SHARE = 0.05  # of the time goes into counting objects; the two cores are for the server
STALL_S = 60.0  # without any progress; a retried put waits a few seconds


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, as far as the client can tell."""

    acknowledged: list[Acknowledged]
    unanswered: int  # requests that got no answer, and were sent again
    refused: int  # requests answered 429 or 503, and sent again
    sent_from_at: float
    sent_until_at: float
    complete_at: float  # seen to be so, up to a second late
    lives: list[Life]


class Burst:
    """One burst against one server, killed at `kill_points`."""

    def __init__(self, scratch: Scratch, target: Target, documents: Sequence[KeyedDocument], kill_points: Sequence[KillPoint]) -> None:
        self._documents = documents
        self._kill_points = kill_points
        self._target = target
        self._server = Server(scratch, bucket=target.place, environment=target.environment)
        self._tally = Tally(documents=len(documents), payloads=sum(document.payloads for document in documents))
        self._sender = Sender(self._server, self._tally, target.path)
        self._sent_from_at = self._sent_until_at = self._complete_at = 0.0

    async def run(self, console: Console) -> Record:
        """Return when all is in the bucket and the server has stopped, or nothing has moved for `STALL_S`.

        Raises:
            DemoFailed: the server failed, or answered what it must not. It is stopped all the same.
        """
        if (this := asyncio.current_task()) is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
        try:
            await self._server.start()
            life = self._server.lives[-1]
            console.print(f"cabrank serve examples/telemetry.py:app is up at {self._server.url}, log: {shown(life.log)}", soft_wrap=True)
            await self._run_parts(console)
        except BaseExceptionGroup as group:
            raise _first_failure(group) or group from None
        finally:
            status = await self._server.stop()
        if status != 0:
            raise DemoFailed(self._server.with_log(f"the server was told to stop by SIGTERM and ended with status {status}, not 0"))
        return Record(
            acknowledged=self._sender.acknowledged,
            unanswered=self._sender.unanswered,
            refused=self._sender.refused,
            sent_from_at=self._sent_from_at,
            sent_until_at=self._sent_until_at,
            complete_at=self._complete_at,
            lives=self._server.lives,
        )

    async def _run_parts(self, console: Console) -> None:
        with Bars(console, self._tally) as bars:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._send())
                parts.create_task(self._kill(console))
                parts.create_task(self._watch(bars))

    async def _send(self) -> None:
        self._sent_from_at = time.time()
        await self._sender.send(self._documents)
        self._sent_until_at = time.time()

    async def _kill(self, console: Console) -> None:
        for point in self._kill_points:
            if not await self._tally.reached(point):
                return
            await asyncio.sleep(point.delay_s)
            await self._server.kill()
            tally = self._tally
            console.print(
                f"SIGKILL at {tally.documents_acknowledged:,} of {tally.documents:,} documents acknowledged,"
                f" {await self._count():,} payloads in the bucket",
                soft_wrap=True,
            )
            await self._server.start()

    async def _watch(self, bars: Bars) -> None:
        tally = self._tally
        count_at = 0.0
        moved_at, seen = time.monotonic(), (0, 0)
        while not tally.complete and time.monotonic() < moved_at + STALL_S:
            self._server.check_alive()
            if (begun_at := time.monotonic()) >= count_at:
                tally.set_objects(await self._count())
                took_s = time.monotonic() - begun_at
                count_at = begun_at + took_s / COUNT_SHARE
            if (tally.documents_acknowledged, tally.objects) != seen:
                moved_at, seen = time.monotonic(), (tally.documents_acknowledged, tally.objects)
            bars.show()
            await asyncio.sleep(LOOK_S)
        self._complete_at = time.time()
        bars.show()
        tally.close()
        if tally.documents_acknowledged < tally.documents:
            raise DemoFailed(self._server.with_log(f"no document was acknowledged for {STALL_S:.0f} s"))

    async def _count(self) -> int:
        """How many payloads are in the bucket, or at least so many."""
        if (bucket := self._target.counted) is not None:
            return await asyncio.to_thread(bucket.count)
        acknowledged = self._tally.payloads_acknowledged  # before the server is asked, which may know of more by then
        left = await left_at(self._server.url)
        return self._tally.objects if left is None else max(self._tally.objects, acknowledged - left)


def _first_failure(group: BaseExceptionGroup[BaseException]) -> DemoFailed | None:
    failure: DemoFailed | ExceptionGroup[DemoFailed] | None = group.subgroup(DemoFailed)
    while failure is not None and not isinstance(failure, DemoFailed):
        failure = failure.exceptions[0]
    return failure
