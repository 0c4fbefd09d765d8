"""What is said over HTTP when something did not work: one table from errors to statuses, bodies as in RFC 9457.

A 4xx stored nothing. After a 503, or no answer at all, it is unknown: send again with the same idempotency key.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from cabrank.errors import (
    CabrankError,
    DiskFull,
    DispatcherFailed,
    Fault,
    IntakeClosed,
    KeyReused,
    NeverFits,
    NotEntered,
    PayloadInvalid,
    PayloadMalformed,
    PayloadTooLarge,
    QueueDrained,
    QueueFull,
    StoreUnavailable,
    UnknownHandler,
    UnknownJob,
)

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"
PREFIX = "urn:cabrank:"  # of every `type`


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One response, before it is written in the form of either way out. `retry_after_s`: 0 says nothing about it."""

    status: int
    body: bytes
    media: bytes = JSON
    retry_after_s: int = 0


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an error. `type` never changes its meaning, so programs may compare it. `errors` are the faults of a body."""

    type: str
    title: str
    status: int
    detail: str
    errors: Sequence[Fault] = ()


class KeyUnusable(CabrankError):
    """An Idempotency-Key is 1 to 256 printable ASCII characters."""


class ParameterUnusable(CabrankError):
    """A query parameter or a header has a value that cannot be used; the message names it and what it takes."""


class UnknownQueue(CabrankError):
    """No queue of that name."""


class QueuePaused(CabrankError):
    """The queue is paused: it cannot be drained before it is resumed."""


class AlreadyEnded(CabrankError):
    """The job has ended: it cannot be cancelled any more."""


class RequestMalformed(CabrankError):
    """What came is not HTTP as this server reads it. The connection is closed."""


class LineTooLong(CabrankError):
    """The request line is too long: a path with its parameters has at most 8 KiB."""


class HeadTooLarge(CabrankError):
    """The headers are too large: at most 64 of them, and 16 KiB in all."""


class RequestLate(CabrankError):
    """The request did not come in time: headers within 5 seconds, then at least 1 KiB of the body a second."""


class TooManyConnections(CabrankError):
    """The server has as many connections as it takes, in all or from this address: use one connection for many requests."""


class TooManyFiles(CabrankError):
    """The server has as many files open as it may, and what was asked for needs one more: come again."""


class UnknownHost(CabrankError):
    """The server is not called that."""


class Unauthorized(CabrankError):
    """This server wants a token: send it as `Authorization: Bearer …`."""


class ExpectationFailed(CabrankError):
    """Of what can be expected, only 100-continue is."""


class BodyEncoded(CabrankError):
    """The body is compressed: send it as it is, without Content-Encoding."""


class ForeignOrigin(CabrankError):
    """A web page of another origin sent this: the server takes work from programs and from its own pages."""


class DocumentTooLarge(CabrankError):
    """The document is too large for one transaction: send it in parts."""


class DocumentFailed(CabrankError):
    """The function of this document route raised: the server's log says what. Nothing was stored."""


class AnswerLate(CabrankError):
    """The store did not answer in time. Whether anything was stored is unknown: send it again with the same Idempotency-Key."""


class _Sort(msgspec.Struct, frozen=True):
    status: HTTPStatus
    slug: str
    title: str
    retry_after_s: int = 0


FULL_RETRY_S = 1  # a queue that is worked on has room again within moments
CROWD_RETRY_S = 1  # connections come and go
STORE_RETRY_S = 2  # a store that comes back is found within so long
DISK_RETRY_S = 1  # a disk that was full is tried again so soon
RESTART_RETRY_S = 5  # a server that stops is replaced within about so long

# The class of an error, or the nearest of its bases that stands here, says what is answered.
SORTS: dict[type[BaseException], _Sort] = {
    PayloadMalformed: _Sort(HTTPStatus.BAD_REQUEST, "payload-malformed", "The body is not JSON"),
    KeyUnusable: _Sort(HTTPStatus.BAD_REQUEST, "key-unusable", "The idempotency key cannot be used"),
    ParameterUnusable: _Sort(HTTPStatus.BAD_REQUEST, "parameter-unusable", "A parameter cannot be used"),
    RequestMalformed: _Sort(HTTPStatus.BAD_REQUEST, "request-malformed", "Not a request"),
    Unauthorized: _Sort(HTTPStatus.UNAUTHORIZED, "unauthorized", "No token, or a wrong one"),
    ForeignOrigin: _Sort(HTTPStatus.FORBIDDEN, "foreign-origin", "Not from this origin"),
    UnknownHandler: _Sort(HTTPStatus.NOT_FOUND, "unknown-handler", "No such handler"),
    UnknownJob: _Sort(HTTPStatus.NOT_FOUND, "unknown-job", "No such job"),
    UnknownQueue: _Sort(HTTPStatus.NOT_FOUND, "unknown-queue", "No such queue"),
    AlreadyEnded: _Sort(HTTPStatus.CONFLICT, "already-ended", "The job has ended"),
    QueuePaused: _Sort(HTTPStatus.CONFLICT, "queue-paused", "The queue is paused"),
    RequestLate: _Sort(HTTPStatus.REQUEST_TIMEOUT, "request-late", "The request did not come in time"),
    PayloadTooLarge: _Sort(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "payload-too-large", "The payload is too large"),
    DocumentTooLarge: _Sort(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "document-too-large", "The document is too large"),
    NeverFits: _Sort(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "document-too-large", "The document has more jobs than the queue takes"),
    LineTooLong: _Sort(HTTPStatus.REQUEST_URI_TOO_LONG, "line-too-long", "The request line is too long"),
    ExpectationFailed: _Sort(HTTPStatus.EXPECTATION_FAILED, "expectation-failed", "Not what is expected here"),
    UnknownHost: _Sort(HTTPStatus.MISDIRECTED_REQUEST, "unknown-host", "Not a name of this server"),
    HeadTooLarge: _Sort(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", "The headers are too large"),
    BodyEncoded: _Sort(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "body-encoded", "The body is compressed"),
    PayloadInvalid: _Sort(HTTPStatus.UNPROCESSABLE_ENTITY, "payload-invalid", "The payload is not what the handler takes"),
    KeyReused: _Sort(HTTPStatus.UNPROCESSABLE_ENTITY, "key-reused", "The idempotency key came with another body before"),
    QueueFull: _Sort(HTTPStatus.TOO_MANY_REQUESTS, "queue-full", "The queue is full", FULL_RETRY_S),
    DiskFull: _Sort(HTTPStatus.INSUFFICIENT_STORAGE, "disk-full", "The store's disk is full", DISK_RETRY_S),
    DocumentFailed: _Sort(HTTPStatus.INTERNAL_SERVER_ERROR, "document-failed", "The document route failed"),
    TooManyConnections: _Sort(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-connections", "Too many connections", CROWD_RETRY_S),
    TooManyFiles: _Sort(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-files", "Too many open files", CROWD_RETRY_S),
    NotEntered: _Sort(HTTPStatus.SERVICE_UNAVAILABLE, "not-open", "The dispatcher is not open", RESTART_RETRY_S),
    QueueDrained: _Sort(HTTPStatus.SERVICE_UNAVAILABLE, "queue-drained", "The queue takes no new work", RESTART_RETRY_S),
    IntakeClosed: _Sort(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", "The server is stopping", RESTART_RETRY_S),
    StoreUnavailable: _Sort(HTTPStatus.SERVICE_UNAVAILABLE, "store-unavailable", "The store does not answer", STORE_RETRY_S),
    AnswerLate: _Sort(HTTPStatus.SERVICE_UNAVAILABLE, "answer-late", "The store did not answer in time", STORE_RETRY_S),
    DispatcherFailed: _Sort(HTTPStatus.SERVICE_UNAVAILABLE, "failed", "The server failed and stops", RESTART_RETRY_S),
    Exception: _Sort(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected", "The server has a bug"),
}


def answer_to(error: Exception) -> Answer:
    """The response that tells a client about `error`."""
    told = problem_of(error)
    return Answer(told.status, msgspec.json.encode(told), PROBLEM_JSON, _sort_of(error).retry_after_s)


def problem_of(error: Exception) -> Problem:
    """The body of that response."""
    sort = _sort_of(error)
    detail = str(error) if isinstance(error, CabrankError) else "the server's log says what went wrong"
    faults = error.faults if isinstance(error, PayloadInvalid) else ()
    return Problem(f"{PREFIX}{sort.slug}", sort.title, int(sort.status), detail, faults)


def _sort_of(error: Exception) -> _Sort:
    return next(SORTS[base] for base in type(error).__mro__ if base in SORTS)


def problem(status: int, slug: str, title: str, detail: str) -> Answer:
    """A response with a `Problem` in it."""
    return Answer(status, msgspec.json.encode(Problem(f"{PREFIX}{slug}", title, status, detail)), PROBLEM_JSON)
