"""`GET /openapi.json`: every path of a server, described (OpenAPI 3.1). The bodies are the types of the app's own functions."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

import cabrank
from cabrank import foreign
from cabrank.app import App
from cabrank.codec import PayloadCodec
from cabrank.server.problems import JSON, PROBLEM_JSON, Problem
from cabrank.server.views import Accepted, AcceptedAll, JobView, Readiness

REF = "#/components/schemas/{name}"
JobId: Any = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "The job's id."}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    id: str
    summary: str
    tag: str
    description: str = ""
    parameters: Sequence[Mapping[str, Any]] = ()
    body: Mapping[str, Any] | None = None
    answers: Mapping[int, tuple[str, Any]]
    """By status: what it means, and the type of its JSON. None is plain text."""
    problems: Mapping[int, str]
    """By status: what is wrong then."""


POST_PROBLEMS = {
    400: "The body is not JSON, or a header cannot be used. Nothing was stored.",
    403: "A web page of another origin sent it.",
    413: "The body is larger than the limit. Nothing was stored.",
    415: "The body is compressed.",
    422: "The body is not what is taken here; `errors` says where. Nothing was stored.",
    429: "The queue is full. Nothing was stored; come again after `Retry-After` seconds.",
    503: "The server stops, or its store does not answer: whether it was stored is unknown, send it again with the same key.",
}
KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$"},
    "description": "Makes the request repeatable: the same key with the same body gets the same ids and stores nothing new, for 24 hours.",
}


def describe(app: App) -> bytes:
    """The description of a server of `app`, as JSON."""
    schemas = _Schemas([*_wires(app), Problem, Accepted, AcceptedAll, JobView, Readiness])
    paths: dict[str, dict[str, Any]] = {}
    for path, method, operation in _operations(app, schemas):
        paths.setdefault(path, {})[method] = _described(operation, schemas)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "cabrank", "version": cabrank.__version__, "description": cabrank.__doc__},
            "paths": paths,
            "components": {"schemas": schemas.components},
        }
    )


def _wires(app: App) -> list[Any]:
    codecs = [handler.codec for handler in app.handlers.values()] + [document.codec for document in app.documents.values()]
    return [codec.wire for codec in codecs]


def _operations(app: App, schemas: _Schemas) -> Iterable[tuple[str, str, Operation]]:
    for document in app.documents.values():
        yield document.path, "post", _document(document.path, document.function, _body(document.codec, schemas))
    for handler in app.handlers.values():
        yield f"/jobs/{handler.name}", "post", _job(handler.name, handler.function, _body(handler.codec, schemas))
    for path, operation in READS.items():
        yield path, "get", operation


def _job(name: str, function: object, body: Mapping[str, Any] | None) -> Operation:
    return Operation(
        id=f"submit_{name}",
        tag="jobs",
        summary=_first_line(function) or f"Submit one job of {name}",
        description=inspect.getdoc(function) or "",
        parameters=[KEY],
        body=body,
        answers={202: ("The job is stored.", Accepted)},
        problems=POST_PROBLEMS,
    )


def _document(path: str, function: object, body: Mapping[str, Any] | None) -> Operation:
    return Operation(
        id=f"submit{path.replace('/', '_')}",
        tag="documents",
        summary=_first_line(function) or f"Submit the jobs of a document to {path}",
        description=inspect.getdoc(function) or "",
        parameters=[KEY],
        body=body,
        answers={202: ("All jobs of the document are stored.", AcceptedAll)},
        problems=POST_PROBLEMS | {500: "The document's function raised. Nothing was stored."},
    )


def _first_line(function: object) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


READS: Mapping[str, Operation] = {
    "/jobs/{id}": Operation(
        id="job",
        tag="jobs",
        summary="What became of a job",
        parameters=[JobId],
        answers={200: ("What is known of it.", JobView)},
        problems={404: "It is not known: it never was, or it ended and is no longer kept."},
    ),
    "/healthz": Operation(id="health", tag="server", summary="Whether the process is alive", answers={200: ("It is.", Any)}, problems={}),
    "/readyz": Operation(
        id="readiness",
        tag="server",
        summary="Whether work is taken on",
        answers={200: ("It is, and the store answers.", Readiness)},
        problems={503: "It is not."},
    ),
    "/metrics": Operation(
        id="metrics", tag="server", summary="Counters and gauges in Prometheus' text format", answers={200: ("Them.", None)}, problems={}
    ),
}


def _body(codec: PayloadCodec, schemas: _Schemas) -> Mapping[str, Any] | None:
    if codec.wire is None:
        return None
    return {"required": bool(codec.required), "content": {JSON.decode(): {"schema": schemas.of(codec.wire)}}}


def _described(operation: Operation, schemas: _Schemas) -> Mapping[str, Any]:
    problem = {PROBLEM_JSON.decode(): {"schema": schemas.of(Problem)}}
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            **{
                str(status): {"description": what, "content": _content(kind, schemas)} for status, (what, kind) in operation.answers.items()
            },
            **{str(status): {"description": what, "content": problem} for status, what in operation.problems.items()},
        },
    }
    if operation.description:
        described["description"] = operation.description
    if operation.parameters:
        described["parameters"] = operation.parameters
    if operation.body is not None:
        described["requestBody"] = operation.body
    return described


def _content(kind: Any, schemas: _Schemas) -> Mapping[str, Any]:
    return {"text/plain": {"schema": {"type": "string"}}} if kind is None else {JSON.decode(): {"schema": schemas.of(kind)}}


class _Schemas:
    """The schemas of types; those with a name stand in `components`. A type that has no schema is described as anything."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        self.components: dict[str, Any] = {}
        known = [kind for kind in kinds if self._has_one(kind)]
        made: Any = msgspec.json.schema_components(known, schema_hook=self._foreign, ref_template=REF)
        schemas, components = made
        self._schemas: list[tuple[Any, dict[str, Any]]] = list(zip(known, schemas, strict=True))
        self.components |= components

    def of(self, kind: Any) -> Mapping[str, Any]:
        """The schema of a type, or where it stands."""
        anything: dict[str, Any] = {}
        return next((schema for its, schema in self._schemas if its is kind), anything)

    def _has_one(self, kind: Any) -> bool:
        try:
            msgspec.json.schema(kind, schema_hook=self._foreign)
        except TypeError:
            return False
        return True

    def _foreign(self, kind: Any) -> dict[str, Any]:
        if not foreign.is_model(kind):
            raise NotImplementedError
        schema, below = foreign.schema(kind, REF)
        self.components.update(below)
        self.components[kind.__name__] = schema
        return {"$ref": REF.format(name=kind.__name__)}
