"""How deeply JSON is nested: a bound that keeps whatever walks a payload later, here or elsewhere, from running out of stack."""

from __future__ import annotations

import re
from typing import Any

import msgspec

DEEPEST = 64  # levels; people write five

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def is_too_deep(payload: bytes) -> bool:
    """Whether valid JSON is nested more deeply than `DEEPEST`. Nearly always the count of brackets says that it is not."""
    if payload.count(b"[") + payload.count(b"{") <= DEEPEST:
        return False
    brackets = _STRING.sub(b"", payload).translate(None, _OTHERS)
    for _ in range(DEEPEST):  # each round takes the innermost level away, in C
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return False
    return True


def is_bounded(wire: Any) -> bool:
    """Whether what decodes to a type cannot be nested without end, as anything, or a type that contains itself, can be."""
    try:
        return _is_bounded(msgspec.inspect.type_info(wire), frozenset())
    except (TypeError, NameError):
        return False


def _is_bounded(info: Any, above: frozenset[int]) -> bool:
    if isinstance(info, msgspec.inspect.AnyType | msgspec.inspect.RawType | msgspec.inspect.CustomType) or id(info) in above:
        return False
    if not isinstance(info, msgspec.Struct):
        return True
    below = above | {id(info)}
    for name in info.__struct_fields__:
        value: Any = getattr(info, name)
        inner: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)  # pyright: ignore[reportUnknownVariableType] -- of anything
        if name not in {"default", "default_factory", "tag"} and not all(_is_bounded(one, below) for one in inner):
            return False
    return True
