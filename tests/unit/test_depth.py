"""How deeply JSON may be nested."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabrank.depth import DEEPEST, is_bounded, is_too_deep


class Point(msgspec.Struct):
    x: int


class Tree(msgspec.Struct):
    below: Sequence[Tree] = ()


@dataclasses.dataclass
class Loose:
    name: str
    rest: dict[str, Any]


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(
    st.recursive(
        st.none() | st.text(alphabet='a"\\[]{}'), lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='[{"\\'), inner)
    )
)
def test_what_is_not_deep_is_never_called_deep(value: Any) -> None:
    assert depth(value) <= DEEPEST
    assert not is_too_deep(msgspec.json.encode(value))


@pytest.mark.parametrize("depth", [1, DEEPEST, DEEPEST + 1, 500])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"[":', b"}"), (b'[{}, "[", {"a":', b"}]")])
def test_depth_is_counted_whatever_makes_it(depth: int, opens: bytes, closes: bytes) -> None:
    levels = depth * closes.count(b"]") + depth * closes.count(b"}")
    assert is_too_deep(opens * depth + b'"\\"]"' + closes * depth) is (levels > DEEPEST)


def test_breadth_is_not_depth() -> None:
    assert not is_too_deep(b"[" + b",".join([b'{"a":[1,2,{}]}'] * 10_000) + b"]")


BOUNDED = [int, Point, list[Point], dict[str, list[Point]], Point | None, None]
UNBOUNDED = [Any, list[Any], Loose, Tree, list[Tree], msgspec.Raw, list, dict]


@pytest.mark.parametrize(("wire", "bounded"), [*((each, True) for each in BOUNDED), *((each, False) for each in UNBOUNDED)], ids=str)
def test_types_say_whether_depth_has_a_bound(wire: Any, bounded: bool) -> None:  # noqa: FBT001 -- an example
    assert is_bounded(wire) is bounded
