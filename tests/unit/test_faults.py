"""What is wrong with a payload is told place by place."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, TypedDict

import attrs
import msgspec
import pytest

from cabrank.codec import PayloadCodec
from cabrank.errors import Fault, PayloadInvalid
from cabrank.faults import LOOK_BYTES, MOST


class Point(msgspec.Struct, rename="camel"):
    long_name: int
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


@dataclasses.dataclass
class Line:
    begin: Point
    end: Point | None = None


@attrs.define
class Shape:
    lines: list[Line]
    names: dict[str, int] = attrs.Factory(dict)


class Drawing(TypedDict):
    shape: Shape
    pair: NotRequired[tuple[int, str]]


class Tree(msgspec.Struct):
    below: Sequence[Tree] = ()


def drawing(drawing: Drawing) -> None: ...
def several(number: int, point: Point, text: str = "") -> None: ...
def numbers(numbers: list[int]) -> None: ...
def tree(tree: Tree) -> None: ...
def either(thing: Point | list[int]) -> None: ...


def faults(function: Any, payload: bytes) -> list[tuple[str, str]]:
    with pytest.raises(PayloadInvalid) as caught:
        PayloadCodec(function).decode(payload)
    assert all(isinstance(fault, Fault) for fault in caught.value.faults)
    return [(fault.pointer, fault.reason) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        (numbers, b"1", [("", "Expected `array`, got `int`")]),
        (numbers, b'[1,"a",2,null]', [("/1", "Expected `int`, got `str`"), ("/3", "Expected `int`, got `null`")]),
        (several, b'{"number":1}', [("", "Object missing required field `point`")]),
        (
            several,
            b'{"number":"x","point":{"longName":1},"text":0}',
            [("/number", "Expected `int`, got `str`"), ("/text", "Expected `str`, got `int`")],
        ),
        (several, b'{"number":1,"point":{"longName":1},"more":0}', [("", "Object contains unknown field `more`")]),
        (drawing, b'{"shape":{"lines":[{"begin":{"longName":1,"share":2}}]}}', [("/shape/lines/0/begin/share", "Expected `float` <= 1.0")]),
        (
            drawing,
            b'{"shape":{"lines":[{"begin":{"longName":1},"end":{}}]}}',
            [("/shape/lines/0/end", "Object missing required field `longName`")],
        ),
        (drawing, b'{"shape":{"lines":[],"names":{"a/b~c":"x"}}}', [("/shape/names/a~1b~0c", "Expected `int`, got `str`")]),
        (drawing, b'{"shape":{"lines":[]},"pair":[1,2]}', [("/pair/1", "Expected `str`, got `int`")]),
        (drawing, b'{"shape":{"lines":[]},"pair":[1]}', [("/pair", "Expected `array` of length 2, got 1")]),
        (either, b'["a"]', [("/0", "Expected `int`, got `str`")]),
    ],
)
def test_each_fault_has_a_pointer_and_a_reason(function: Any, payload: bytes, expected: list[tuple[str, str]]) -> None:
    assert faults(function, payload) == expected


def test_not_all_of_very_many_faults_are_told() -> None:
    assert faults(numbers, msgspec.json.encode(["x"] * 1_000)) == [(f"/{place}", "Expected `int`, got `str`") for place in range(MOST)]


def test_of_a_large_payload_the_first_fault_is_told() -> None:
    payload = b'[1,"a","b"' + b" " * LOOK_BYTES + b"]"
    assert faults(numbers, payload) == [("/1", "Expected `int`, got `str`")]


def test_a_deep_fault_is_told_too() -> None:
    depth = 40
    payload = b'{"below":[' * depth + b"1" + b"]}" * depth
    assert faults(tree, payload) == [("/below/0" * depth, "Expected `object`, got `int`")]


class TestPydantic:
    """Where it is installed, its models are types like the others."""

    def make(self) -> Any:
        pydantic = pytest.importorskip("pydantic")
        return pydantic.create_model("Reading", device=(str, ...), count=(int, pydantic.Field(ge=0)))

    def codec(self, *, listed: bool) -> PayloadCodec:
        model = self.make()

        def read(reading: Any) -> None: ...

        read.__annotations__["reading"] = types.GenericAlias(list, model) if listed else model
        return PayloadCodec(read)

    def test_a_model_is_decoded_and_encoded_to_its_equal(self) -> None:
        codec = self.codec(listed=False)
        args = codec.decode(b'{"device":"a","count":3}')
        assert (type(args[0]).__name__, args[0].device, args[0].count) == ("Reading", "a", 3)
        assert codec.encode(args) == b'{"device":"a","count":3}'

    def test_all_faults_of_a_model_are_told(self) -> None:
        with pytest.raises(PayloadInvalid) as caught:
            self.codec(listed=True).decode(b'[{"device":"a","count":1},{"device":2,"count":-1}]')
        assert [fault.pointer for fault in caught.value.faults] == ["/1/device", "/1/count"]
        assert "device" in str(caught.value)


class Strange:
    """What has no form in JSON."""


def test_a_type_that_has_no_form_in_json_is_never_made_of_it() -> None:
    def strange(thing: Strange) -> None: ...

    strange.__annotations__["thing"] = Strange
    assert faults(strange, b"{}") == [("", "`Strange` has no form in JSON")]
    with pytest.raises(PayloadInvalid, match="Strange"):
        PayloadCodec(strange).encode((Strange(),))
