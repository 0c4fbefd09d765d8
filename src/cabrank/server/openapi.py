"""`GET /openapi.json`: every path of a server, described (OpenAPI 3.1). The bodies are the types of the app's own functions."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

import cabrank
from cabrank.app import App
from cabrank.codec import PayloadCodec
from cabrank.server.batch import LINES_MEDIA
from cabrank.server.operations import FIXED, HEADERS, KEY, POST_PROBLEMS, Operation
from cabrank.server.parameters import SubmitBatch, SubmitOne, SubmitPlaced, SubmitStream
from cabrank.server.problems import JSON, PROBLEM_JSON, Problem
from cabrank.server.running import RunningView
from cabrank.server.schemas import Schemas
from cabrank.server.views import (
    Accepted,
    AcceptedAll,
    Batched,
    JobsView,
    JobView,
    LineFailed,
    LineStored,
    QueuesView,
    QueueView,
    Readiness,
    StreamEnd,
)
from cabrank.server.wrapped import ItemOptions
from cabrank.stores.contract import TURN_ROWS

A_LINE_EACH = {"description": "One payload a line, as JSON; with `wrapped`, an object with `payload` and options."}
LINES: Any = (LineStored, LineFailed, StreamEnd)  # what the lines of an answer are
VIEWS = (Accepted, AcceptedAll, Batched, JobView, JobsView, QueueView, QueuesView, Readiness, RunningView, ItemOptions)


def describe(app: App, root: str = "") -> bytes:
    """The description of a server of `app`, as JSON. `root` is the path below which it is mounted."""
    schemas = Schemas([*_wires(app), Problem, *VIEWS])
    paths: dict[str, dict[str, Any]] = {}
    for path, method, operation in _operations(app, schemas):
        paths.setdefault(path, {})[method] = _described(operation, schemas)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "cabrank", "version": cabrank.__version__, "description": cabrank.__doc__},
            "servers": [{"url": root or "/"}],
            "paths": paths,
            "security": [{}, {"token": []}],
            "components": {
                "schemas": schemas.components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Where the server asks for one."}},
            },
        }
    )


def _wires(app: App) -> list[Any]:
    codecs = [handler.codec for handler in app.handlers.values()] + [document.codec for document in app.documents.values()]
    return [codec.wire for codec in codecs]


def _operations(app: App, schemas: Schemas) -> Iterable[tuple[str, str, Operation]]:
    for document in app.documents.values():
        yield document.path, "post", _document(document.path, document.function, _body(document.codec, schemas))
    for handler in app.handlers.values():
        yield f"/jobs/{handler.name}", "post", _job(handler.name, handler.function, _body(handler.codec, schemas))
        yield f"/jobs/{handler.name}/batch", "post", _batch(handler.name, handler.codec, schemas)
        yield f"/jobs/{handler.name}/stream", "post", _stream(handler.name)
    yield from FIXED


def _job(name: str, function: object, body: Mapping[str, Any] | None) -> Operation:
    return Operation(
        id=f"submit_{name}",
        tag="jobs",
        summary=_first_line(function) or f"Submit one job of {name}",
        description=inspect.getdoc(function) or "",
        parameters=[KEY],
        query=SubmitOne,
        body=body,
        answers={202: ("The job is stored.", Accepted)},
        problems=POST_PROBLEMS,
    )


def _batch(name: str, codec: PayloadCodec, schemas: Schemas) -> Operation:
    what = f"At most {TURN_ROWS:,} of them. With `wrapped` each is an object with its `payload` and the options of its own job."
    arrays = [{"type": "array", "items": item} for item in (schemas.of(codec.wire), _wrapped(codec, schemas))]
    array = {"anyOf": arrays, "description": what}
    return Operation(
        id=f"batch_{name}",
        tag="jobs",
        summary=f"Submit many jobs of {name} in one transaction",
        parameters=[KEY],
        query=SubmitBatch,
        body={"required": True, "content": {JSON.decode(): {"schema": array}, LINES_MEDIA[0]: {"schema": A_LINE_EACH}}},
        answers={202: ("All jobs are stored; if it is partial, those that are good.", Batched)},
        problems=POST_PROBLEMS,
    )


def _wrapped(codec: PayloadCodec, schemas: Schemas) -> Mapping[str, Any]:
    """An item with `?wrapped=true`."""
    described: dict[str, Any] = schemas.components[str(schemas.of(ItemOptions)["$ref"]).rpartition("/")[2]]
    properties = {"payload": schemas.of(codec.wire)} | described["properties"]
    return described | {"title": "Wrapped", "properties": properties, "required": ["payload"] if codec.required else []}


def _stream(name: str) -> Operation:
    return Operation(
        id=f"stream_{name}",
        tag="jobs",
        summary=f"Submit any number of jobs of {name}, one payload a line",
        description="Each line of the answer tells of one line of the body, as its chunk is stored; the last says whether all was read.",
        parameters=[KEY],
        query=SubmitStream,
        body={"required": True, "content": {LINES_MEDIA[0]: {"schema": A_LINE_EACH}}},
        answers={202: ("What became of each line.", LINES)},
        problems=POST_PROBLEMS,
    )


def _document(path: str, function: object, body: Mapping[str, Any] | None) -> Operation:
    return Operation(
        id=f"submit{path.replace('/', '_')}",
        tag="documents",
        summary=_first_line(function) or f"Submit the jobs of a document to {path}",
        description=inspect.getdoc(function) or "",
        parameters=[KEY],
        query=SubmitPlaced,
        body=body,
        answers={202: ("All jobs of the document are stored.", AcceptedAll)},
        problems=POST_PROBLEMS | {500: "The document's function raised. Nothing was stored."},
    )


def _first_line(function: object) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _body(codec: PayloadCodec, schemas: Schemas) -> Mapping[str, Any] | None:
    if codec.wire is None:
        return None
    return {"required": bool(codec.required), "content": {JSON.decode(): {"schema": schemas.of(codec.wire)}}}


def _described(operation: Operation, schemas: Schemas) -> Mapping[str, Any]:
    problem = {PROBLEM_JSON.decode(): {"schema": schemas.of(Problem)}}
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            **{
                str(status): {"description": what, "content": _content(kind, schemas)} | _headers(status)
                for status, (what, kind) in operation.answers.items()
            },
            **{str(status): {"description": what, "content": problem} | _headers(status) for status, what in operation.problems.items()},
        },
    }
    if operation.description:
        described["description"] = operation.description
    parameters = [*operation.parameters, *schemas.parameters(operation.query)]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = operation.body
    return described


def _headers(status: int) -> dict[str, Any]:
    said = HEADERS.get(status)
    return {} if said is None else {"headers": said}


def _content(kind: Any, schemas: Schemas) -> Mapping[str, Any]:
    if kind is LINES:
        return {LINES_MEDIA[0]: {"schema": {"type": "string"}}}
    return {"text/plain": {"schema": {"type": "string"}}} if kind is None else {JSON.decode(): {"schema": schemas.of(kind)}}
