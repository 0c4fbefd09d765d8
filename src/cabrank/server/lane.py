"""The fast way in: hot POSTs are answered straight from the parser, without an ASGI request. All else goes the ordinary way.

On one connection all answers go out in the order of the requests, whichever way each of them went: a POST goes the ordinary way
while an ASGI request is unanswered, and an ASGI request starts only when every reply of the lane is out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.config import Config
from uvicorn.server import ServerState

from cabrank.errors import CabrankError
from cabrank.server.access import Access
from cabrank.server.answering import Answering
from cabrank.server.backpressure import LINE_LIMIT, PIECE
from cabrank.server.entrances import Entrance, HotEntrance
from cabrank.server.head import check_head, without_upgrade
from cabrank.server.known import AT_HAND, Head, KnownHeads
from cabrank.server.pace import HEADERS_LIMIT, URL_LIMIT, Crowd, Pace, Stage
from cabrank.server.parameters import OPTION_HEADERS
from cabrank.server.problems import JSON, HeadTooLarge, LineTooLong, RequestLate, RequestMalformed, TooManyConnections, answer_to
from cabrank.server.reception import Reception
from cabrank.server.replies import Heads
from cabrank.server.round import Round, Rounds

BODY_LIMIT = 256 * 1024  # bytes that the lane holds of one body; a larger one goes where reading can be paused half-way
NONE = -1  # no request has this many bytes
IDLE_TICKS = 75  # seconds until a silent connection is closed: longer than the 60 s of common proxies, so that they close first

# A request with one of these needs more than a look.
UNUSUAL = frozenset({b"content-encoding", b"expect", b"origin", b"transfer-encoding", b"upgrade", *map(str.encode, OPTION_HEADERS)})


class Lane(Answering):
    """One connection. Overrides what uvicorn's protocol does between the parser and the answer; `tests/server` holds each override."""

    def __init__(
        self,
        reception: Reception,
        heads: Heads,
        access: Access,
        crowd: Crowd,
        known: KnownHeads,
        rounds: Rounds,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(heads, reception.forecast.answer_to, config=config, server_state=server_state, app_state=app_state, loop=_loop)
        self._reception = reception
        self._enter = reception.enter
        self._access = access
        self._crowd = crowd
        self._known: KnownHeads | None = known  # as long as the parser can go on
        self._rounds = rounds
        self._round: Round | None = None  # where the request that came last went, if it came alone and its head was known
        self._head, self._length = b"", NONE  # its head, and its bytes
        self._entrances: Mapping[bytes, HotEntrance] = reception.entrances
        self._entrance: HotEntrance | None = None  # of the request that is being read, if it goes the lane
        self._key = b""
        self._body = b""
        self._address = ""
        self._again = b""  # the head of a request that asked for another protocol, to be read once more without that
        self._silent_ticks = 0
        self._pace = Pace()
        self._refusal: CabrankError | None = None

    # ----------------------------------------------------------------------------------------------------------- reading

    def data_received(self, data: bytes) -> None:
        """Let a request that came alone, with the head of the last one, join the round. Look at anything else."""
        self._silent_ticks = 0
        if len(data) == self._length and not self._owed and not self.coming and data.startswith(self._head):
            self._round.add(self, data[len(self._head) :])  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess] -- beside its length
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        """Read what came, then enter what is complete: outside of the parser, which would swallow an exception."""
        self._leave_round()
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        known = None if self._pace.stage or self._last or self._owes_ordinary else self._known
        if known is None:
            self._read_on(data)
        else:
            head, left = known.take(data, self._read)
            if left:
                self._read_on(left)
                if not self._pace.stage:
                    known.note(left, self._read)
            elif head is not None and len(self._read) == 1 and not self._owed:
                self._join_round(head)
        if self._read:
            self._enter_all()
        if (len(self._owed) >= LINE_LIMIT or self.flow.write_paused) and not self.transport.is_closing():
            self.flow.pause_reading()

    def _join_round(self, head: Head) -> None:
        """What was read came alone, and nothing is owed: the next one like it needs no look any more."""
        [(entrance, body, _)], self._read = self._read, []
        self._round, self._head, self._length = self._rounds.of(entrance), head.data, len(head.data) + len(body)
        self._round.add(self, body)

    def _leave_round(self) -> None:
        """Something else came, or comes: what is in a round is entered first, and nothing goes there without a look."""
        if self.coming and self._round is not None:
            self._round.enter()
        self._length = NONE

    def _enter_all(self) -> None:
        read, self._read = self._read, []
        self._entering = True
        for entrance, body, key in read:
            answer = self._enter(entrance, body, key, self.owe)
            if answer is not None:
                self._replies.add(answer)
        self._entering = False
        if self._replies.ready:
            self._send()

    def _read_on(self, data: bytes) -> None:
        self._pace.fresh = False
        if len(data) <= PIECE:
            self._parse(data)
        else:
            self._parse_pieces(data)
        if self._pace.stage is Stage.HEAD and not self._held and self._pace.grows(len(data)) and not self.transport.is_closing():
            self._refuse(HeadTooLarge())

    @property
    def _piece(self) -> int:
        return AT_HAND if self._pace.stage is Stage.BODY else PIECE

    def _parse(self, data: bytes) -> bool:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:  # its head is behind us, and so far nobody has acted on it
            head, self._again = self._again, b""
            self.parser = HttpRequestParser(self)
            return self._parse(head + data[upgrade.args[0] :])
        except HttpParserError:
            self.send_400_response("")
        return self._known is not None

    def on_message_begin(self) -> None:
        """Hold back what ASGI needs until it is known that ASGI is needed."""
        self.url = b""
        self.headers = []
        self._entrance = None
        self._pace.begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep it."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Choose the way."""
        self._pace.stage = Stage.BODY
        if len(self.url) > URL_LIMIT:
            raise self._refused(LineTooLong())
        if len(self.headers) > HEADERS_LIMIT:
            raise self._refused(HeadTooLarge())
        entrance = self._entrances.get(self.url)
        if entrance is not None and self._is_plain(entrance):
            self._entrance = entrance
            self._body = b""
        else:
            self._go_ordinary_way()

    def on_body(self, body: bytes) -> None:
        """Gather it."""
        self._pace.size += len(body)
        if self._entrance is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """The request can be entered."""
        self._pace.stage = Stage.NONE
        if self._again:
            return
        if self._entrance is None:
            super().on_message_complete()
        else:
            self._read.append((self._entrance, self._body, self._key))
            self._entrance = None

    def _is_plain(self, entrance: Entrance) -> bool:
        """Whether the request whose headers are read is one that the lane can answer, here and now."""
        headers = self.headers
        fields = dict(headers)
        if not self._access.knows(fields.get(b"host", b"")) or not self._access.admits(fields.get(b"authorization", b"")):
            return False
        if len(fields) != len(headers) or not UNUSUAL.isdisjoint(fields) or self._owes_ordinary:
            return False
        if not fields.get(b"content-type", JSON).startswith(JSON) or self.parser.get_method() != b"POST":
            return False
        if not self.parser.should_keep_alive() or (b"connection" in fields and self.parser.get_http_version() != "1.1"):
            return False  # the connection ends behind this answer, or its client must be told that it does not
        self._key = fields.get(b"idempotency-key", b"")
        if not self._key and b"idempotency-key" in fields:
            return False  # an empty one, which is refused: who sends it believes that this can be repeated
        length = int(fields.get(b"content-length", b"-1"))
        if length > AT_HAND and self._reception.refusal(entrance, length, self._key) is not None:
            return False  # it is told so before the rest of the body comes
        return length in range(min(entrance.limit, BODY_LIMIT) + 1)

    def _go_ordinary_way(self) -> None:
        method, url, headers, version = self.parser.get_method(), self.url, self.headers, self.parser.get_http_version()
        try:
            check_head(method, url, headers, version=version, access=self._access)
        except CabrankError as error:
            raise self._refused(error) from None
        if self.parser.should_upgrade():
            self._again = without_upgrade(method, url, headers, version=version)
            return
        self._pace.patient = url.partition(b"?")[0].endswith(b"/stream")
        super().on_message_begin()
        super().on_url(url)
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    # -------------------------------------------------------------------------------------------------- what goes wrong

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read; but that must not be taken for the answer to an earlier request that is unanswered."""
        del msg
        self._leave_round()
        self._known = None
        refusal = self._refusal or RequestMalformed()
        if not self._owes and not self._owes_ordinary:
            self.transport.write(self._heads.response(answer_to(refusal), closes=True))
            self.transport.close()
            return
        self.flow.pause_reading()
        if self._owes_ordinary and not self.cycle.more_body:
            self.cycle.keep_alive = False  # it closes the connection
        elif self._owes:
            self._last = True
            self._deferred = None  # its body is what cannot be parsed
        elif self._owes_ordinary and not self.pipeline and not self.cycle.response_started:
            self._part()  # so that it is not answered twice
            self.transport.write(self._heads.response(answer_to(refusal), closes=True))
            self.transport.close()
        else:
            self._part()
            self.transport.close()

    def _refused(self, error: CabrankError) -> CabrankError:
        """To raise out of the parser, which stops it."""
        self._refusal = error
        return error

    def _refuse(self, error: CabrankError) -> None:
        self._refusal = error
        self.send_400_response("")

    # -------------------------------------------------------------------------------------------------------------- life

    def tick(self) -> None:
        """A second has passed: give up what waited too long, close what is silent."""
        self._replies.give_up_late()
        self._judge_pace()
        self._silent_ticks += 1
        if self._silent_ticks >= IDLE_TICKS and not self._owes and not self._owes_ordinary:
            self.transport.close()

    def _judge_pace(self) -> None:
        if self._pace.unread(paused=self.flow.write_paused):
            self.drop()
        elif self._pace.late(paused=self.flow.read_paused) and not self.transport.is_closing():
            self._refuse(RequestLate())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """One more, if there is room for it."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        if not self._crowd.enter(self._address):
            self._refuse(TooManyConnections())

    def shutdown(self) -> None:
        """Close when everything that is owed is out."""
        self._leave_round()
        if self._owes and not self._owes_ordinary:
            self._last = True
        else:
            super().shutdown()

    def eof_received(self) -> None:
        """The client sends nothing more: with that the transport closes, before it says that the connection is lost."""
        self._leave_round()
        self._part()

    def _part(self) -> None:
        """Nobody reads what is answered from now on: what is written to a closed transport raises."""
        for cycle in (self._running, self.cycle):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what is owed. What was taken on stays taken on."""
        self._leave_round()
        super().connection_lost(exc)
        self._part()
        self._crowd.leave(self._address)
        self._replies.drop()
        self._deferred = None
