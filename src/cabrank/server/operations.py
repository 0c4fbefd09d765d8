"""What can be asked of every server, whatever its app: one row for each method of each path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cabrank.job import NAME_PATTERN
from cabrank.server.parameters import Drain, Listing, Look, Nothing
from cabrank.server.running import RunningView
from cabrank.server.views import JobsView, JobView, QueuesView, QueueView, Readiness

JOB_ID: Mapping[str, Any] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[a-z2-7]{8}-[1-9][0-9]{0,18}$"},
    "description": "The job's id.",
}
QUEUE: Mapping[str, Any] = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "pattern": NAME_PATTERN}}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    id: str
    summary: str
    tag: str
    description: str = ""
    parameters: Sequence[Mapping[str, Any]] = ()
    query: type[msgspec.Struct] = Nothing
    body: Mapping[str, Any] | None = None
    answers: Mapping[int, tuple[str, Any]]
    """By status: what it means, and the type of its JSON. None is plain text."""
    problems: Mapping[int, str]
    """By status: what is wrong then."""


POST_PROBLEMS = {
    400: "The body is not JSON, or a parameter or a header cannot be used. Nothing was stored.",
    403: "A web page of another origin sent it.",
    413: "The body is larger than the limit. Nothing was stored.",
    415: "The body is compressed.",
    422: "The body is not what is taken here, `errors` says where; or its key came with another body. Nothing was stored.",
    429: "The queue is full. Nothing was stored; come again after `Retry-After` seconds.",
    507: "The store's disk is full. Nothing was stored.",
    503: "The server stops, or its store does not answer: whether it was stored is unknown, send it again with the same key.",
}
BAD_PARAMETER = {400: "A parameter cannot be used."}
AWAY = {503: "The server stops, or its store does not answer."}
NO_JOB = {404: "It is not known: it never was, or it ended and is no longer kept."}
NO_QUEUE = {404: "There is none of that name."}
_AGAIN: Mapping[str, Any] = {
    "Retry-After": {"description": "Come again after so many seconds.", "schema": {"type": "integer", "minimum": 1}},
}
HEADERS: Mapping[int, Mapping[str, Any]] = {
    202: {"Cabrank-Durability": {"description": "What the answer is worth.", "schema": {"enum": ["disk", "process", "memory"]}}},
    429: _AGAIN,
    503: _AGAIN,
    507: _AGAIN,
}
"""Of answers, by their status."""
KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$"},
    "description": "Makes the request repeatable: the same key with the same body gets the same ids and stores nothing new, for 24 hours.",
}


# Of a queue: the last part of the path, what it does, with what parameters, and what may stand against it.
CHANGES: Sequence[tuple[str, str, str, type[msgspec.Struct], dict[int, str]]] = (
    (
        "pause",
        "Start nothing of a queue",
        "In every process and over a restart, until it is resumed. What runs goes on.",
        Nothing,
        {},
    ),
    ("resume", "Start jobs of a paused queue again", "Takes jobs on again too, if it was drained.", Nothing, {}),
    (
        "drain",
        "Take nothing more on for a queue",
        "Of this process, until it is resumed. The answer comes when nothing of it waits or runs, or after `wait_s`.",
        Drain,
        {409: "It is paused, and would never be empty."},
    ),
)

FIXED: Sequence[tuple[str, str, Operation]] = (
    (
        "/jobs",
        "get",
        Operation(
            id="jobs",
            tag="jobs",
            summary="Jobs page by page, in the order of their ids",
            query=Listing,
            answers={200: ("One page.", JobsView)},
            problems=BAD_PARAMETER | {404: "`after` is no job of this store."} | AWAY,
        ),
    ),
    (
        "/jobs/{id}",
        "get",
        Operation(
            id="job",
            tag="jobs",
            summary="What became of a job",
            parameters=[JOB_ID],
            query=Look,
            answers={200: ("What is known of it.", JobView)},
            problems=BAD_PARAMETER | NO_JOB | AWAY,
        ),
    ),
    (
        "/jobs/{id}",
        "delete",
        Operation(
            id="cancel",
            tag="jobs",
            summary="Cancel a job",
            description="A waiting job is cancelled with that; a running one is asked to stop, and whoever settles first wins.",
            parameters=[JOB_ID],
            answers={200: ("It is cancelled, or was told.", JobView)},
            problems=BAD_PARAMETER | {403: POST_PROBLEMS[403]} | NO_JOB | {409: "It has ended."} | AWAY,
        ),
    ),
    (
        "/queues",
        "get",
        Operation(
            id="queues",
            tag="queues",
            summary="All queues",
            answers={200: ("Each with its counts.", QueuesView)},
            problems=BAD_PARAMETER | AWAY,
        ),
    ),
    (
        "/queues/{name}",
        "get",
        Operation(
            id="queue",
            tag="queues",
            summary="One queue",
            parameters=[QUEUE],
            answers={200: ("Its counts.", QueueView)},
            problems=BAD_PARAMETER | NO_QUEUE | AWAY,
        ),
    ),
    *(
        (
            f"/queues/{{name}}/{verb}",
            "post",
            Operation(
                id=f"{verb}_queue",
                tag="queues",
                summary=summary,
                description=description,
                parameters=[QUEUE],
                query=query,
                answers={200: ("Its counts, as they are then.", QueueView)},
                problems=BAD_PARAMETER | {403: POST_PROBLEMS[403]} | NO_QUEUE | conflict | AWAY,
            ),
        )
        for verb, summary, description, query, conflict in CHANGES
    ),
    (
        "/running",
        "get",
        Operation(
            id="running",
            tag="server",
            summary="What runs in the process that answers, and where it stands",
            answers={200: ("Each run with its stack.", RunningView)},
            problems=BAD_PARAMETER,
        ),
    ),
    (
        "/healthz",
        "get",
        Operation(id="health", tag="server", summary="Whether the process is alive", answers={200: ("It is.", Any)}, problems={}),
    ),
    (
        "/readyz",
        "get",
        Operation(
            id="readiness",
            tag="server",
            summary="Whether work is taken on",
            answers={200: ("It is, and the store answers.", Readiness)},
            problems=AWAY,
        ),
    ),
    (
        "/metrics",
        "get",
        Operation(
            id="metrics",
            tag="server",
            summary="Counters and gauges in Prometheus' text format",
            answers={200: ("Them.", None)},
            problems={},
        ),
    ),
)
