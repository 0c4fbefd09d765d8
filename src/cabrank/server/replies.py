"""The answers that a lane owes, in the order of its requests, and the bytes that they become."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from cabrank.server.entrances import HotEntrance
from cabrank.server.problems import Answer, AnswerLate
from cabrank.server.reception import ACCEPTED

NOSNIFF = b"x-content-type-options: nosniff\r\n"  # what a client wrote and a refusal repeats is never taken for a page
MOST_PATTERNS = 100
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
        """Forget them: nobody is there to read them, and nobody is told any more."""
        self.line.clear()
        self._fulfilled = _nobody


def _nobody() -> None:
    """Who is told of a reply when its connection is gone, so that nothing here keeps that."""


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
        self.accepted = b"%bcontent-type: application/json\r\n%bcontent-length: " % (head, NOSNIFF)
        """What a 202 begins with, up to the length of its body."""

    def response(self, answer: Answer, *, closes: bool) -> bytes:
        """The bytes of a whole response."""
        body = answer.body
        if answer.status == ACCEPTED and not closes:
            return b"%b%d\r\n\r\n%b" % (self.accepted, len(body), body)
        retry = b"retry-after: %d\r\n" % answer.retry_after_s if answer.retry_after_s else b""
        close = b"connection: close\r\n" if closes else b""
        common = self._common + self._durability if answer.status == ACCEPTED else self._common
        head = b"%b%bcontent-type: %b\r\n%b%b%b" % (STATUS_LINE[answer.status], common, answer.media, NOSNIFF, retry, close)
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


class Accepted:
    """The 202s of one entrance: all that is the same in those for so many ids is put together once a second."""

    def __init__(self, heads: Heads, entrance: HotEntrance) -> None:
        self._heads = heads
        self._entrance = entrance
        self._patterns: dict[int, bytes] = {}  # by the number of ids
        self._made_for = (-1, 0)  # the second, and the digits of an id

    def each(self, first_id: int, counts: Sequence[int]) -> list[bytes]:
        """A response for each so many ids, all in a row."""
        digits, id = len(str(first_id)), first_id
        patterns = self._patterns
        if self._made_for != (self._heads.tick, digits) or len(patterns) > MOST_PATTERNS:
            self._made_for = self._heads.tick, digits
            patterns.clear()
        if first_id + sum(counts) > 10**digits:
            return [self._odd(first_id + sum(counts[:place]), count) for place, count in enumerate(counts)]
        responses: list[bytes] = []
        for count in counts:
            pattern = patterns.get(count) or self._pattern(count, digits)
            responses.append(pattern % id if count == 1 else pattern % (*range(id, id + count),))
            id += count
        return responses

    def _pattern(self, count: int, digits: int) -> bytes:
        body = self._entrance.pattern(count)
        length = len(body) + count * (digits - len(b"%d"))
        begin = b"%b%d\r\n\r\n" % (self._heads.accepted, length)
        self._patterns[count] = pattern = begin.replace(b"%", b"%%") + body
        return pattern

    def _odd(self, first_id: int, count: int) -> bytes:
        """Of ids that do not have the same number of digits."""
        return self._heads.response(Answer(ACCEPTED, self._entrance.accepted(first_id, count)), closes=False)
