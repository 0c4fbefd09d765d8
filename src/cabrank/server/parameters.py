"""What a request says beside its body: query parameters and headers, checked as strictly as a body.

A name that is not known is refused: a misspelt `delay` that was passed over would run the job at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request

from cabrank.app import CALLER_OPTIONS
from cabrank.drafts import PLAIN, Options
from cabrank.errors import SettingError
from cabrank.job import KEY_LIMIT, NAME_PATTERN, Conflict, check_tags
from cabrank.server.problems import ParameterUnusable
from cabrank.states import State
from cabrank.stores.contract import BROWSED

MOST_LISTED = 1_000  # jobs of one page: 200 KB
LONGEST_WAIT_S = 60.0  # below what proxies wait for an answer, and a client asks again
OPTION_HEADER = "cabrank-"
"""An option `delay_s` may also come as the header `Cabrank-Delay-S`."""

_TAG = NAME_PATTERN.strip("^$")
TAGS_PATTERN = f"^ *{_TAG} *(, *{_TAG} *)*$"

T = TypeVar("T", bound=msgspec.Struct)


def _what(description: str, **limits: Any) -> msgspec.Meta:
    return msgspec.Meta(description=description, **limits)


WRAPPED = _what('Each item is `{"payload": …}`, with the options of its own job beside it: `unique`, `tags`, `delay_s` and the others.')
_Moment = Annotated[datetime, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class Submit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a request that submits. Each is an option of `submit`."""

    delay_s: Annotated[float, _what("Due in so many seconds.", ge=0)] | None = None
    due_at: Annotated[float | _Moment, _what("Due at this moment: seconds since the epoch, or RFC 3339.")] | None = None
    priority: Annotated[int, _what("0 goes first, 9 last.", ge=0, le=9)] | None = None
    deadline_s: Annotated[float, _what("Not worth starting after so many seconds.", ge=0)] | None = None
    tags: Annotated[str, _what("Names that are kept with the job, separated by commas.", pattern=TAGS_PATTERN)] | None = None


class SubmitPlaced(Submit, frozen=True, forbid_unknown_fields=True):
    """Of a request that is answered as a whole."""

    position: Annotated[bool, _what("Say how many jobs start before it, and in how many seconds it starts.")] = False


class SubmitOne(SubmitPlaced, frozen=True, forbid_unknown_fields=True):
    """Of a request that submits one job."""

    unique: Annotated[str, _what("A key of which at most one job of the handler waits.", min_length=1, max_length=KEY_LIMIT)] | None = None
    on_conflict: Annotated[Conflict, _what("What happens if a job with the same `unique` waits already.")] | None = None
    unique_over: (
        Annotated[str, _what("The states of another job that count: waiting and some of running, held, dead, separated by commas.")] | None
    ) = None


class SubmitBatch(SubmitPlaced, frozen=True, forbid_unknown_fields=True):
    """Of a batch."""

    wrapped: Annotated[bool, WRAPPED] = False
    partial: Annotated[bool, _what("Store the payloads that are good even if others are not.")] = False


class SubmitStream(Submit, frozen=True, forbid_unknown_fields=True):
    """Of a stream."""

    wrapped: Annotated[bool, WRAPPED] = False
    first_line: Annotated[int, _what("The number of the first line that is sent.", ge=1)] = 1


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `GET /jobs/{id}`."""

    wait_s: Annotated[float, _what("Wait so many seconds for the outcome, at most.", ge=0, le=LONGEST_WAIT_S)] = 0.0


class Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `GET /jobs`."""

    state: Annotated[State, _what("Only jobs in this state; without it, all that are not done.")] | None = None
    queue: Annotated[str, _what("Only jobs of this queue.")] = ""
    handler: Annotated[str, _what("Only jobs of this handler.")] = ""
    after: Annotated[str, _what("Go on behind this job: the `after` of the page before.")] = ""
    limit: Annotated[int, _what("At most so many jobs.", ge=1, le=MOST_LISTED)] = BROWSED


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `POST /queues/{name}/drain`."""

    wait_s: Annotated[float, _what("Wait so many seconds until nothing waits or runs, at most.", ge=0, le=LONGEST_WAIT_S)] = 0.0


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a request that takes no parameters."""


OPTION_HEADERS: Mapping[str, str] = {OPTION_HEADER + name.replace("_", "-"): name for name in CALLER_OPTIONS}


def parameters_of(request: Request, kind: type[T]) -> T:
    """The query parameters of a request.

    Raises:
        ParameterUnusable: one is unknown, comes twice, or is not what it should be.
    """
    return _converted(_once(request.query_params), kind)


S = TypeVar("S", bound=Submit)


def submit_of(request: Request, allowed: Collection[str], kind: type[S]) -> tuple[Options, S]:
    """The options that a submitting request asks for, if the app lets callers set them, and all that it says.

    Raises:
        ParameterUnusable: as above, or it is not theirs to set.
    """
    if not request.url.query and not any(name.startswith(OPTION_HEADER) for name in request.headers):
        return PLAIN, kind()
    said = _once(request.query_params)
    for header, name in OPTION_HEADERS.items():
        if header in request.headers:
            if name in said:
                raise ParameterUnusable(f"{name} is said twice, as a parameter and as the header {header}: leave one out")
            said[name] = request.headers[header]
    submit = _converted(said, kind)
    given: dict[str, Any] = {name: value for name in CALLER_OPTIONS if (value := getattr(submit, name, None)) is not None}
    for name in given.keys() - set(allowed):
        raise ParameterUnusable(f"this app does not let callers set {name}; they may set {', '.join(allowed) or 'nothing'}")
    if isinstance(submit.due_at, datetime):
        given["due_at"] = moment_of(submit.due_at)
    try:
        if submit.tags is not None:
            given["tags"] = check_tags([tag.strip() for tag in submit.tags.split(",")])
        if (over := given.get("unique_over")) is not None:
            given["unique_over"] = [state.strip() for state in over.split(",")]
        return Options(**given) if given else PLAIN, submit
    except SettingError as error:
        raise ParameterUnusable(str(error)) from None


def _once(query: QueryParams) -> dict[str, str]:
    said = dict(query)
    if len(said) < len(query.multi_items()):
        raise ParameterUnusable("a parameter comes twice: say each of them once")
    return said


def _converted(said: Mapping[str, str], kind: type[T]) -> T:
    known = kind.__struct_fields__
    for name in said:
        if name not in known:
            listed = f"there are {', '.join(known)}" if known else "this request takes none"
            raise ParameterUnusable(f"no parameter is named {name[:64]!r}: {listed}")
    try:
        converted = msgspec.convert(said, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ParameterUnusable(f"a parameter cannot be used: {error}") from None
    for name in said:
        if getattr(converted, name) is None:
            raise ParameterUnusable(f"a parameter cannot be used: {name} is {said[name]!r}, leave it out instead")
    return converted


def moment_of(due_at: datetime) -> float:
    """Seconds since the epoch.

    Raises:
        ParameterUnusable: it has no offset, so nobody knows which moment is meant.
    """
    if due_at.tzinfo is None:
        raise ParameterUnusable("due_at needs an offset from UTC, as in 2026-01-31T09:00:00Z")
    return due_at.timestamp()
