"""One connection that takes no more in than it answers: who asks much, or does not read, is read from no further."""

from __future__ import annotations

import socket
import struct

from httptools import HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINE_LIMIT = 128  # requests of one connection that may wait, then it is not read from
ORDINARY_LIMIT = 4  # the same of those that go the ordinary way, each of which is a hundred objects
PIECE = 256  # bytes that are parsed before it is asked again whether so many wait: at most seven requests
DROP = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds


class Backpressure(HttpToolsProtocol):
    """uvicorn's protocol reads on after each answer that is written, and parses all that it has read, however much waits."""

    parser: HttpRequestParser  # until the connection is lost, and nothing is read then
    _held = b""
    """Came while too much waited, and is parsed later."""

    @property
    def _may_read(self) -> bool:
        """Whether there is room for more."""
        return not (self.flow.write_paused or len(self.pipeline) >= ORDINARY_LIMIT // 2 or self._held or self.transport.is_closing())

    def _parse(self, data: bytes) -> bool:
        """Parse what came. False: nothing more can be parsed."""
        raise NotImplementedError

    @property
    def _piece(self) -> int:
        """How many bytes are parsed before it is asked again whether too much waits."""
        return PIECE

    def _parse_pieces(self, data: bytes) -> None:
        """Parse as much of it as there is room for."""
        at = 0
        while at < len(data):
            if len(self.pipeline) >= ORDINARY_LIMIT:
                self._held = data[at:]
                self.flow.pause_reading()
                return
            piece = data[at : at + self._piece]
            if not self._parse(piece):
                return
            at += len(piece)

    def _take_held(self) -> None:
        if self._held and len(self.pipeline) < ORDINARY_LIMIT and not self.transport.is_closing():
            data, self._held = self._held, b""
            self.data_received(data)

    def on_response_complete(self) -> None:
        """Go on with what waits, and read on only when little does and the client reads its answers."""
        super().on_response_complete()
        if self._held and len(self.pipeline) < ORDINARY_LIMIT // 2:
            self.loop.call_soon(self._take_held)
        if not self._may_read and not self.transport.is_closing():
            self.flow.pause_reading()

    def pause_writing(self) -> None:
        """Take nothing on from a client that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        if self._may_read:
            self.flow.resume_reading()

    def drop(self) -> None:
        """End it, with all that its client has not read: the system would else keep that for minutes."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DROP)
        self.transport.abort()
