"""The answers that a lane owes, in the order of its requests, and the bytes that they become."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from cabrank.server.problems import Answer, AnswerLate
from cabrank.server.reception import ACCEPTED

NOSNIFF = b"x-content-type-options: nosniff\r\n"  # what a client wrote and a refusal repeats is never taken for a page
LATE_TICKS = 10  # seconds until a request whose turn does not come is answered 503; most clients wait 30


class Reply:
    """The answer that one request will have. Calling it with that answer is what fulfils it; a second one comes too late."""

    __slots__ = ("_fulfilled", "answer", "tick")

    def __init__(self, fulfilled: Callable[[], None], tick: int) -> None:
        self._fulfilled = fulfilled
        self.answer: Answer | None = None
        self.tick = tick

    def __call__(self, answer: Answer) -> None:
        if self.answer is None:
            self.answer = answer
            self._fulfilled()


class Replies:
    """The replies of one connection, first come first sent."""

    def __init__(self, heads: Heads, fulfilled: Callable[[], None], answer_to: Callable[[Exception], Answer]) -> None:
        self._heads = heads
        self._answer_to = answer_to
        self._fulfilled = fulfilled
        self.line: deque[Reply] = deque()
        """Those that are owed, in their order. Always the same object."""

    @property
    def ready(self) -> bool:
        """Whether the first of them can be sent."""
        return bool(self.line) and self.line[0].answer is not None

    def owe(self) -> Reply:
        """One more reply, behind all others."""
        reply = Reply(self._fulfilled, self._heads.tick)
        self.line.append(reply)
        return reply

    def add(self, answer: Answer) -> None:
        """One more reply, behind all others, that is known already."""
        reply = Reply(self._fulfilled, self._heads.tick)
        reply.answer = answer
        self.line.append(reply)

    def take(self, *, last: bool) -> Sequence[bytes]:
        """The responses that can be sent now. `last`: the connection closes behind the last one that is owed."""
        line = self.line
        taken: list[bytes] = []
        while line and (answer := line[0].answer) is not None:
            line.popleft()
            taken.append(self._heads.response(answer, closes=last and not line))
        return taken

    def give_up_late(self) -> None:
        """Answer those that have waited too long."""
        since = self._heads.tick - LATE_TICKS
        for reply in [reply for reply in self.line if reply.tick < since]:
            reply(self._answer_to(AnswerLate()))

    def drop(self) -> None:
        """Forget them: nobody is there to read them."""
        self.line.clear()


class Heads:
    """The parts of a response that all share, made anew each second because they hold the date."""

    def __init__(self, durability: str) -> None:
        self._durability = b"cabrank-durability: %b\r\n" % durability.encode()
        self.tick = -1
        """Counts seconds since the start."""
        self.renew(())

    def renew(self, default_headers: Sequence[tuple[bytes, bytes]]) -> None:
        """A second has passed."""
        self.tick += 1
        self._common = b"".join([b"%b: %b\r\n" % header for header in default_headers])
        head = STATUS_LINE[ACCEPTED] + self._common + self._durability
        self._accepted = b"%bcontent-type: application/json\r\ncontent-length: " % head

    def response(self, answer: Answer, *, closes: bool) -> bytes:
        """The bytes of a whole response."""
        body = answer.body
        if answer.status == ACCEPTED and not closes:
            return b"%b%d\r\n\r\n%b" % (self._accepted, len(body), body)
        retry = b"retry-after: %d\r\n" % answer.retry_after_s if answer.retry_after_s else b""
        close = b"connection: close\r\n" if closes else b""
        common = self._common + self._durability if answer.status == ACCEPTED else self._common
        head = b"%b%bcontent-type: %b\r\n%b%b%b" % (STATUS_LINE[answer.status], common, answer.media, NOSNIFF, retry, close)
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
