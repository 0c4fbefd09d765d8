"""The server describes itself: every path, the bodies that the app's functions take, the errors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any, TypedDict

import attrs
import msgspec
import pytest
from starlette.routing import Route

import cabrank
from cabrank.server.api import Api
from cabrank.server.openapi import describe
from cabrank.server.reception import Reception
from cabrank.server.wrapped import Wrapped
from tests.server.app import make_app
from tests.server.serving import Served, get, post, serving


@dataclasses.dataclass
class Line:
    length: Annotated[int, msgspec.Meta(ge=0)]


@attrs.define
class Circle:
    radius: float


class Size(TypedDict):
    wide: int
    high: int


class Strange:
    """What has no form in JSON."""


def make_typed_app() -> cabrank.App:
    app = cabrank.App()

    @app.job
    async def line(line: Line) -> None:
        """Draw a line.

        From left to right.
        """

    @app.job
    async def circle(circle: Circle) -> None: ...

    @app.job(batch=cabrank.Batch())
    async def lines(lines: list[Line]) -> None: ...

    @app.job
    async def size(size: Size) -> None: ...

    @app.job
    async def several(size: Size, name: str = "none") -> None: ...

    @app.job
    async def nothing() -> None: ...

    @app.job
    async def strange(thing: Strange) -> None: ...

    return app


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_typed_app()) as served:
        yield served


def described(app: cabrank.App) -> Any:
    return msgspec.json.decode(describe(app))


def resolved(document: Any, schema: Any) -> Any:
    """The schema, or the one that it refers to."""
    return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


async def test_every_path_is_described_and_every_description_has_a_path() -> None:
    async with serving(make_app()) as served:
        routes = Api(Reception(served.dispatcher)).asgi().routes
        offered = {
            (route.path, method) for route in routes if isinstance(route, Route) for method in (route.methods or ()) if method != "HEAD"
        }
        document = (await served.ask(get("/openapi.json"))).json()
        told = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
        handlers = {(f"/jobs/{name}{way}", "POST") for name in served.dispatcher.app.handlers for way in ("", "/batch", "/stream")}
        pages = {(path, method) for path, method in offered if path.startswith(("/docs", "/openapi.json"))}
        assert told - handlers == offered - pages - {(f"/jobs/{{id}}{way}", "POST") for way in ("", "/batch", "/stream")}
        assert handlers <= told


@pytest.mark.parametrize(
    ("name", "properties", "required"),
    [
        ("line", {"length": {"type": "integer", "minimum": 0}}, ["length"]),
        ("lines", {"length": {"type": "integer", "minimum": 0}}, ["length"]),
        ("circle", {"radius": {"type": "number"}}, ["radius"]),
        ("size", {"wide": {"type": "integer"}, "high": {"type": "integer"}}, ["high", "wide"]),
    ],
)
def test_a_body_is_the_type_of_the_parameter(name: str, properties: Any, required: Any) -> None:
    document = described(make_typed_app())
    body = document["paths"][f"/jobs/{name}"]["post"]["requestBody"]
    schema = resolved(document, body["content"]["application/json"]["schema"])
    assert (body["required"], schema["properties"], sorted(schema["required"])) == (True, properties, required)


def test_several_parameters_are_an_object_and_none_are_no_body() -> None:
    document = described(make_typed_app())
    schema = resolved(document, document["paths"]["/jobs/several"]["post"]["requestBody"]["content"]["application/json"]["schema"])
    assert (set(schema["properties"]), schema["required"]) == ({"size", "name"}, ["size"])
    assert "requestBody" not in document["paths"]["/jobs/nothing"]["post"]


def test_a_type_without_a_schema_is_described_as_anything() -> None:
    document = described(make_typed_app())
    assert document["paths"]["/jobs/strange"]["post"]["requestBody"]["content"]["application/json"]["schema"] == {}


def test_a_docstring_describes_its_endpoint() -> None:
    operation = described(make_typed_app())["paths"]["/jobs/line"]["post"]
    assert (operation["summary"], operation["description"]) == ("Draw a line.", "Draw a line.\n\nFrom left to right.")


def test_a_pydantic_model_is_described_with_what_it_refers_to() -> None:
    pydantic = pytest.importorskip("pydantic")
    inner = pydantic.create_model("Inner", word=(str, ...))
    outer = pydantic.create_model("Outer", inner=(inner, ...))
    app = cabrank.App()

    async def note(outer: Any) -> None: ...

    note.__annotations__["outer"] = outer
    app.job(note)
    document = described(app)
    schema = resolved(document, document["paths"]["/jobs/note"]["post"]["requestBody"]["content"]["application/json"]["schema"])
    assert resolved(document, schema["properties"]["inner"])["properties"]["word"]["type"] == "string"


def test_the_description_is_valid_openapi() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(described(make_typed_app()))
    validator.validate(described(make_app()))


async def test_bodies_of_every_kind_are_taken_and_their_faults_are_told(served: Served) -> None:
    for path, good, bad, pointer in (
        ("/jobs/line", b'{"length":1}', b'{"length":-1}', "/length"),
        ("/jobs/lines", b'{"length":1}', b'[{"length":1}]', ""),
        ("/jobs/circle", b'{"radius":1.5}', b'{"radius":"x"}', "/radius"),
        ("/jobs/size", b'{"wide":1,"high":2}', b'{"wide":1,"high":null}', "/high"),
        ("/jobs/several", b'{"size":{"wide":1,"high":2}}', b'{"size":{"wide":"a","high":2}}', "/size/wide"),
    ):
        assert (await served.ask(post(path, good))).status == 202
        answer = await served.ask(post(path, bad))
        assert (answer.status, [error["pointer"] for error in answer.json()["errors"]]) == (422, [pointer])


async def test_each_fault_of_a_document_is_told_with_its_place() -> None:
    async with serving(make_app()) as served:
        answer = await served.ask(post("/telemetry", b'[{"device":"a"},{"device":1},{"count":2},{"device":"b","count":"x"}]'))
        assert answer.status == 422
        assert answer.json()["errors"] == [
            {"pointer": "/1/device", "reason": "Expected `str`, got `int`"},
            {"pointer": "/2", "reason": "Object missing required field `device`"},
            {"pointer": "/3/count", "reason": "Expected `int`, got `str`"},
        ]


async def test_the_page_for_people_takes_everything_from_this_server(served: Served) -> None:
    pytest.importorskip("drf_spectacular_sidecar", exc_type=ImportError)
    page = await served.ask(get("/docs"))
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    referred = re.findall(r'(?:href|src)="([^"]+)"', page.body.decode())
    assert len(referred) == 3
    for path in referred:
        asset = await served.ask(get(f"/{path}"))
        assert asset.status == 200
        assert len(asset.body) > 100
    assert b"http" not in page.body


async def test_without_its_assets_the_page_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabrank.server.docs.PACKAGE", "no_such_package")
    async with serving(make_app()) as served:
        answer = await served.ask(get("/docs"))
        assert answer.status == 404
        assert "pip install 'cabrank[docs]'" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/docs/../openapi.json",
        "/docs/%2e%2e/api.py",
        "/docs/%252e%252e/api.py",
        "/docs/..%2fapi.py",
        "/docs/..%5capi.py",
        "/docs/..\\api.py",
        "/docs/....//api.py",
        "/docs/%c0%ae%c0%ae/api.py",
        "/docs/..;/api.py",
        "/docs/docs.html",
        "/docs/start.js/../../api.py",
        "/docs/swagger-ui.css/",
        "/docs/start.js%00",
        "/docs/start.js%00.css",
        "/docs//etc/passwd",
        "/docs/%2fetc%2fpasswd",
        "/docs/file:///etc/passwd",
        "/static/docs.html",
        "//etc/passwd",
    ],
)
async def test_no_other_file_is_served(served: Served, path: str) -> None:
    assert (await served.ask(get(path))).status == 404


def test_a_batch_takes_payloads_or_with_wrapped_objects_with_options() -> None:
    told = msgspec.json.decode(describe(make_typed_app()))
    operation = told["paths"]["/jobs/line/batch"]["post"]
    assert {one["name"] for one in operation["parameters"] if one["schema"].get("type") == "boolean"} == {"wrapped", "partial", "position"}
    plain, wrapped = operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert plain == {"type": "array", "items": {"$ref": "#/components/schemas/Line"}}
    item = wrapped["items"]
    assert item["properties"]["payload"] == {"$ref": "#/components/schemas/Line"}
    assert item["required"] == ["payload"]
    assert item["additionalProperties"] is False
    assert set(item["properties"]) == set(Wrapped.__struct_fields__)
    [nothing] = [
        its["items"]
        for its in told["paths"]["/jobs/nothing/batch"]["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
        if "properties" in its["items"]
    ]
    assert nothing["required"] == [], "there is nothing to be said"
