from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabrank.codec import PayloadCodec
from cabrank.errors import PayloadInvalid, PayloadMalformed, RegistrationError


class Point(msgspec.Struct):
    x: int
    y: int = 0


def nothing() -> None: ...
def one(point: Point) -> Point: ...  # type: ignore[empty-body] # pyright: ignore[reportReturnType] -- only its types matter
def small(number: Annotated[int, msgspec.Meta(ge=0, le=9)]) -> None: ...
def optional(number: int = 7) -> None: ...
def several(name: str, point: Point, factor: float = 0.5, *, put_in: int = 0) -> list[Point]: ...  # type: ignore[empty-body] # pyright: ignore[reportReturnType]
def anything(thing) -> None: ...  # type: ignore[no-untyped-def] # noqa: ANN001 -- a handler without types takes any JSON


def test_the_number_of_parameters_decides_the_shape() -> None:
    assert PayloadCodec(nothing).encode(()) == b"null"
    assert PayloadCodec(one).encode((Point(1),)) == b'{"x":1,"y":0}'
    assert PayloadCodec(several).encode(("a", Point(1))) == b'{"name":"a","point":{"x":1,"y":0},"factor":0.5}'


@given(st.text(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_encoded_decodes_to_its_equal(name: str, x: int, factor: float) -> None:
    codec = PayloadCodec(several)
    args = (name, Point(x), factor)
    assert codec.decode(codec.encode(args)) == args


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_parameter_without_a_type_takes_any_json(thing: Any) -> None:
    codec = PayloadCodec(anything)
    assert codec.decode(codec.encode((thing,))) == (thing,)


def test_an_empty_body_is_enough_where_nothing_is_required() -> None:
    assert PayloadCodec(nothing).decode(b"") == ()
    assert PayloadCodec(nothing).decode(b"{}") == ()
    assert PayloadCodec(optional).decode(b"") == (7,)
    assert PayloadCodec(optional).encode(()) == b"7"


@pytest.mark.parametrize(
    ("function", "payload", "words"),
    [
        (one, b'{"y": 1}', "missing required field `x`"),
        (one, b'{"x": "1"}', r"`int`, got `str` - at `\$.x`"),
        (small, b"10", "<= 9"),
        (several, b'{"name": "a", "point": {"x": 1}, "stray": 1}', "stray"),
        (nothing, b'{"x": 1}', "no parameter"),
        (one, b"null", "object"),
    ],
)
def test_a_payload_of_another_type_is_refused_in_words(function: Any, payload: bytes, words: str) -> None:
    with pytest.raises(PayloadInvalid, match=words):
        PayloadCodec(function).decode(payload)


@pytest.mark.parametrize("payload", [b"{", b"\xff", b'{"x": 1} 2', b"", b'{"stray": ' + b"[" * 100_000])
@pytest.mark.parametrize("function", [one, anything])
def test_what_is_no_json_is_malformed(function: Any, payload: bytes) -> None:
    with pytest.raises(PayloadMalformed):
        PayloadCodec(function).decode(payload)


def test_a_body_that_is_no_json_is_malformed_for_a_handler_without_parameters_too() -> None:
    with pytest.raises(PayloadMalformed):
        PayloadCodec(nothing).decode(b"{")


@pytest.mark.parametrize("args", [(), (1, 2), ("x",), (object(),), (Point("x"),)])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- the point
def test_arguments_that_the_function_does_not_take_are_refused(args: tuple[Any, ...]) -> None:
    """A struct's own fields are not looked at here: a struct that is wrong in itself is found by who decodes it."""
    codec = PayloadCodec(one)
    if args and isinstance(args[0], Point):
        with pytest.raises(PayloadInvalid):
            codec.decode(codec.encode(args))
    else:
        with pytest.raises(PayloadInvalid):
            codec.encode(args)


def test_each_item_is_encoded_as_one_call() -> None:
    codec = PayloadCodec(one)
    points = [Point(number) for number in range(3)]
    assert codec.encode_each(points) == [codec.encode((point,)) for point in points]
    with pytest.raises(PayloadInvalid):
        codec.encode_each([Point(1), 3])


def test_results_come_back_as_the_type_that_was_promised() -> None:
    codec = PayloadCodec(one)
    assert codec.decode_result(codec.encode_result(Point(3))) == Point(3)
    assert codec.encode_result(None) is None
    assert codec.decode_result(None) is None
    assert codec.decode_result(b'{"other": 1}') == {"other": 1}, "an older program's result is given as it is"
    with pytest.raises(PayloadInvalid):
        codec.encode_result(object())


def with_many(*args: int) -> None: ...
def with_keywords(**kwargs: int) -> None: ...
def with_function(call: type[PayloadCodec]) -> None: ...
def with_unknown(x: Unknown) -> None: ...  # type: ignore[name-defined] # noqa: F821 # pyright: ignore[reportUndefinedVariable] -- the point


@pytest.mark.parametrize("function", [with_many, with_keywords, with_unknown])
def test_a_function_whose_payload_has_no_type_is_refused(function: Any) -> None:
    with pytest.raises(RegistrationError, match=function.__name__):
        PayloadCodec(function)
