"""What goes between this process and its workers: length-prefixed frames, JSON in them for handlers, pickle for bare callables.

Pickle goes no further than that: it is made and read by processes of one program, which share everything anyway.
"""

from __future__ import annotations

import pickle
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from cabrank import batch
from cabrank.errors import WrongAnswer
from cabrank.job import BARE, Lease
from cabrank.policy import (
    RETURNED_NONE,
    Outcome,
    Raised,
    Returned,
    Snooze,
    TryAgain,
    Unreadable,
    Unrecordable,
    traced,
)

HEAD = 4  # bytes of a frame's length
END = b""  # what is read where nothing comes any more
TOKEN = struct.Struct("<Q")  # the number of a call, counted from 1 for each worker; whoever has read it may begin the call, or forget it
LEAVE = 0  # the token that tells a worker to close what it opened and leave
RECEIVE = 1 << 16  # bytes taken from a socket at a time


class Call(msgspec.Struct, frozen=True, array_like=True):
    """One run: what a worker needs of a lease. `payload` is pickled if no app registered what is called, else JSON.

    `ids` are those of the jobs that are run together; `payload` is then the array of theirs.
    """

    id: int
    run: int
    failures: int
    deadline_at: float
    handler: str
    payload: bytes
    ids: Sequence[int] = ()


class Said(IntEnum):
    """What a reply is."""

    NOTHING = 0
    RESULT = 1
    OBJECT = 2
    ERROR = 3
    UNREADABLE = 4
    UNRECORDABLE = 5
    EACH = 6
    PROGRESS = 7


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What came of a run. `memory` is what the worker holds now (bytes), 0 if it did not look."""

    said: Said
    body: bytes = b""
    memory: int = 0


class Report(msgspec.Struct, frozen=True, array_like=True):
    """How far a run is. It comes before the reply, any number of times; `said` stands where a reply has it."""

    said: Said
    id: int
    run: int
    fraction: float
    note: str

    @property
    def fence(self) -> tuple[int, int]:
        """The run that it is about: its job, and its number."""
        return self.id, self.run


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An exception as it travels: the names of its class and of those above it, next first; what it says; its traceback."""

    classes: list[tuple[str, str]]
    args: list[Any]
    text: str
    trace: str
    after_s: float | None = None
    pickled: bytes = b""


_encode, _decode_call = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Call).decode
_decode_reply, _decode_failure = msgspec.msgpack.Decoder(Reply).decode, msgspec.msgpack.Decoder(Failure).decode
_decode_report = msgspec.msgpack.Decoder(Report).decode
_decode_each = msgspec.msgpack.Decoder(list[bytes | None]).decode
PLAIN = (str, int, float, bool, bytes, type(None))  # what of an exception's arguments travels as it is


def framed(body: bytes) -> bytes:
    """The frame of a body."""
    return len(body).to_bytes(HEAD) + body


def call_of(lease: Lease) -> bytes:
    """The frame that starts a run.

    Raises whatever pickling raises, if no app registered what is called.
    """
    job = lease.job
    if isinstance(lease, batch.Together):
        together = b"[" + b",".join(one.job.payload for one in lease.leases) + b"]"
        ids = [one.job.id for one in lease.leases]
        return framed(_encode(Call(job.id, lease.run, lease.failures, job.deadline_at, job.handler, together, ids)))
    payload = job.payload if job.function is None else pickle.dumps((job.function, job.args or ()), pickle.HIGHEST_PROTOCOL)
    return framed(_encode(Call(job.id, lease.run, lease.failures, job.deadline_at, job.handler, payload)))


def read_call(frame: bytes) -> Call:
    """The call in a frame."""
    return _decode_call(frame)


def bare_call(call: Call) -> tuple[Callable[..., object], tuple[object, ...]]:
    """The function and the arguments of a call that no app registered. Raises whatever unpickling raises."""
    function, args = pickle.loads(call.payload)  # noqa: S301 -- made by the process that started this one
    return function, args


def returned(call: Call, value: object, encode: Callable[[str, object], bytes | None]) -> Reply:
    """The reply of a run that returned `value`; `encode` makes JSON of what a registered handler returned."""
    if value is None:
        return Reply(Said.NOTHING)
    if call.ids:
        return _each(call, value)
    try:
        if call.handler == BARE:
            return Reply(Said.OBJECT, pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
        return Reply(Said.RESULT, encode(call.handler, value) or b"null")
    except Exception as error:  # noqa: BLE001 -- the value is the user's, and looking at it may raise anything
        return Reply(Said.UNRECORDABLE, f"what the run left cannot be kept: {type(error).__name__}: {error}".encode())


def _each(call: Call, value: object) -> Reply:
    """The reply of a batch that says something else of each item than that it went well."""
    try:
        said = batch.answers(value, len(call.ids)) or ()
    except WrongAnswer as error:
        return raised(call, error)
    return Reply(Said.EACH, _encode([None if one is None else raised(call, one.raised).body for one in said]))


def raised(call: Call, error: BaseException) -> Reply:
    """The reply of a run that raised."""
    pickled = b""
    if call.handler == BARE:
        try:
            pickled = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
            pickle.loads(pickled)  # noqa: S301 -- some can be made and not be read
        except Exception:  # noqa: BLE001 -- then it travels as text
            pickled = b""
    failure = Failure(
        classes=[(one.__module__, one.__qualname__) for one in type(error).__mro__ if issubclass(one, BaseException)],
        args=[one if type(one) in PLAIN else _said(one) for one in error.args],
        text=_said(error),
        trace=traced(error),
        after_s=getattr(error, "after_s", None) if isinstance(error, TryAgain) else getattr(error, "for_s", None),
        pickled=pickled,
    )
    try:
        return Reply(Said.ERROR, _encode(failure))
    except Exception:  # noqa: BLE001 -- what is left of it says enough
        return Reply(Said.ERROR, _encode(Failure([("builtins", "Exception")], [], type(error).__name__, type(error).__name__)))


def sent(reply: Reply) -> bytes:
    """The frame of a reply."""
    return framed(_encode(reply))


def reported(call: Call, fraction: float, note: str) -> bytes:
    """The frame that says how far a run is."""
    return framed(_encode(Report(Said.PROGRESS, call.id, call.run, fraction, note)))


def is_report(frame: bytes) -> bool:
    """Whether a frame says how far a run is, and is no reply."""
    return len(frame) > 1 and frame[1] == Said.PROGRESS  # behind the head of a short array stands what is said, one byte


def read_report(frame: bytes) -> Report:
    """What it says."""
    return _decode_report(frame)


def unreadable(why: str) -> Reply:
    """The reply to a payload that does not decode."""
    return Reply(Said.UNREADABLE, why.encode("utf-8", "backslashreplace"))


def read_reply(frame: bytes) -> tuple[Outcome, int]:
    """The outcome in a frame, and the memory of the worker."""
    reply = _decode_reply(frame)
    match reply.said:
        case Said.NOTHING:
            return RETURNED_NONE, reply.memory
        case Said.RESULT:
            return Returned(msgspec.Raw(reply.body)), reply.memory
        case Said.OBJECT:
            return _object(reply.body), reply.memory
        case Said.ERROR:
            return _error(_decode_failure(reply.body)), reply.memory
        case Said.EACH:
            said = [None if one is None else batch.Failure(_error(_decode_failure(one)).error) for one in _decode_each(reply.body)]
            return Returned(said), reply.memory
        case Said.UNREADABLE:
            return Unreadable(reply.body.decode()), reply.memory
        case Said.UNRECORDABLE:
            return Unrecordable(reply.body.decode("utf-8", "replace")), reply.memory
        case Said.PROGRESS:
            raise ValueError("a report is no reply")


def frames(buffer: bytearray, data: bytes) -> list[bytes]:
    """The whole frames in what came: `data`, behind the `buffer` of what had come before and was no whole frame. The rest is left there."""
    if buffer:
        buffer += data
        if len(buffer) < HEAD or len(buffer) < HEAD + int.from_bytes(buffer[:HEAD]):
            return []
        data = bytes(buffer)
        buffer.clear()
    found: list[bytes] = []
    taken, size = 0, len(data)
    while size - taken >= HEAD:
        ends = taken + HEAD + int.from_bytes(data[taken : taken + HEAD])
        if size < ends:
            break
        found.append(data[taken + HEAD : ends])
        taken = ends
    buffer += data[taken:]
    return found


class Incoming:
    """The calls that come to a worker process, each when its token was read: until then it is taken back by whoever reads that first."""

    def __init__(self, connection: socket.socket, tokens: socket.socket) -> None:
        self._connection = connection
        self._tokens = tokens
        self._received = bytearray()
        self._frames: deque[bytes] = deque()
        self._number = LEAVE

    def next(self) -> bytes:
        """The next call that is still wanted; `END`: there is none, and the process is to leave."""
        token = self._tokens.recv(TOKEN.size)
        if len(token) < TOKEN.size:
            return END
        (number,) = TOKEN.unpack(token)
        frame = END
        while self._number < number:
            frame = self._next_frame()
            self._number += 1
        return frame

    def _next_frame(self) -> bytes:
        while not self._frames:
            data = self._connection.recv(RECEIVE)
            if not data:
                return END
            self._frames.extend(frames(self._received, data))
        return self._frames.popleft()


def receive(connection: socket.socket) -> bytes:
    """The next frame of a blocking socket; `END` too if the other side is gone."""
    head = connection.recv(HEAD, socket.MSG_WAITALL)
    size = int.from_bytes(head) if len(head) == HEAD else 0
    body = connection.recv(size, socket.MSG_WAITALL) if size else END
    while 0 < len(body) < size:  # a signal came in between
        more = connection.recv(size - len(body), socket.MSG_WAITALL)
        if not more:
            return END
        body += more
    return body


def _object(pickled: bytes) -> Outcome:
    try:
        return Returned(pickle.loads(pickled))  # noqa: S301 -- made by a process that this one started
    except Exception as error:  # noqa: BLE001 -- unpickling runs the user's code
        return Unrecordable(f"what the run left cannot be read: {type(error).__name__}: {error}")


def _error(failure: Failure) -> Raised:
    error = _unpickled(failure.pickled) or _rebuilt(failure)
    error.add_note(f"\nin a worker process:\n{failure.trace}")
    return Raised(error, trace=failure.trace)


def _unpickled(pickled: bytes) -> BaseException | None:
    try:
        error = pickle.loads(pickled) if pickled else None  # noqa: S301 -- made by a process that this one started
    except Exception:  # noqa: BLE001 -- then the text has to do
        return None
    return error if isinstance(error, BaseException) else None


def _rebuilt(failure: Failure) -> BaseException:
    """An exception of the nearest class that this process knows, without running its `__init__`."""
    for module, name in failure.classes:
        found = _known_class(module, name)
        if found is None:
            continue
        try:
            error: BaseException = found.__new__(found)
        except Exception:  # noqa: BLE001, S112 -- a class may refuse to be made so; the one above it will do
            continue
        own = (module, name) == failure.classes[0]
        error.args = tuple(failure.args) if own else (f"{failure.classes[0][1]}: {failure.text}",)
        if isinstance(error, TryAgain):
            error.after_s = failure.after_s
        elif isinstance(error, Snooze):
            error.for_s = failure.after_s or 0.0
        return error
    return Exception(failure.text)


def _known_class(module: str, name: str) -> type[BaseException] | None:
    found: Any = sys.modules.get("__main__" if module == "__mp_main__" else module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _said(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 -- its `__str__` is the user's
        return type(value).__name__
