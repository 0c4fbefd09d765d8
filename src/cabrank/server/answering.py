"""One connection that answers in the order of its requests, whichever way each of them went: the lane's replies and ASGI's responses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from cabrank.server.backpressure import LINE_LIMIT, Backpressure
from cabrank.server.known import Read
from cabrank.server.problems import Answer
from cabrank.server.replies import Heads, Replies, Reply


class Answering(Backpressure):
    """Holds what the lane owes. An ASGI request starts only when all of that is out. It is an `Asker`."""

    def __init__(
        self,
        heads: Heads,
        answer_to: Callable[[Exception], Answer],
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._heads = heads
        self._replies = Replies(heads, self._fulfilled, answer_to)
        self._owed = self._replies.line
        self.owe = self._replies.owe
        self.coming = False
        """Whether a request has not left its round yet."""
        self._read: list[Read] = []  # complete, not entered yet
        self._running: RequestResponseCycle | None = None  # the ASGI request that was started last; `cycle` may be one behind it
        self._entering = False
        self._sending = False  # a `_send` is on its way
        self._last = False  # close when the replies are out
        self._deferred: tuple[RequestResponseCycle, ASGI3Application] | None = None  # starts when the replies are out

    def answer(self, answer: Answer) -> None:
        """See `Asker`."""
        self._replies.add(answer)
        self._send()

    def write(self, response: bytes) -> None:
        """See `Asker`."""
        if not self.transport.is_closing():
            self.server_state.total_requests += 1
            self.transport.write(response)

    def fulfil(self, reply: Reply, response: bytes) -> bool:
        """See `Asker`."""
        owed = self._owed
        if len(owed) != 1 or owed[0] is not reply or self._last or self._deferred is not None or self.flow.read_paused:
            return False  # more than to write it is to be done
        owed.popleft()
        self.write(response)
        return True

    def fail(self, error: Exception) -> None:
        """See `Asker`."""
        self.loop.call_exception_handler({"message": "a request could not be entered", "exception": error, "protocol": self})
        self.transport.abort()

    def _fulfilled(self) -> None:
        """A reply has its answer. One turn of the store answers many: they are sent together."""
        if self._entering or self._sending:
            return
        if len(self._owed) > 1:
            self._sending = True
            self.loop.call_soon(self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._sending = False
        responses = self._replies.take(last=self._last)
        if responses and not self.transport.is_closing():
            self.server_state.total_requests += len(responses)
            self.transport.write(responses[0] if len(responses) == 1 else b"".join(responses))
        if (self._last or self._deferred is not None) and not self._owed:
            self._go_on()
        if self.flow.read_paused and self._may_read:
            self.flow.resume_reading()

    def _go_on(self) -> None:
        """All replies are out."""
        if self._last:
            self.transport.close()
        elif self._deferred is not None:
            (cycle, app), self._deferred = self._deferred, None
            self._running = cycle
            super()._start_asgi_task(cycle, app)

    @property
    def _may_read(self) -> bool:
        return super()._may_read and not (self._last or self._deferred is not None or len(self._owed) >= LINE_LIMIT // 2)

    @property
    def _owes(self) -> bool:
        """Whether a request that came the lane is unanswered."""
        return bool(self._owed or self._read)

    @property
    def _owes_ordinary(self) -> bool:
        """Whether a request that went the ordinary way is unanswered."""
        return not getattr(self.cycle, "response_complete", True)  # there is no cycle before the first such request

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Start an ASGI request, behind what the lane owes."""
        if self._owes:
            self._deferred = (cycle, app)
            self.flow.pause_reading()
        else:
            self._running = cycle
            super()._start_asgi_task(cycle, app)
