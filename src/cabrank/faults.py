"""What is wrong with a payload, fault by fault. Only asked when it is known that something is, so it may take its time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from types import NoneType, UnionType
from typing import Any, NotRequired, Required, Union, get_args, get_origin, get_type_hints

import msgspec

from cabrank import foreign
from cabrank.errors import Fault

MOST = 20  # faults that are told: who sent more than that has made one mistake many times
LOOK_BYTES = 1024 * 1024  # of a larger payload only the first fault is told: a look at 1 MiB takes about 10 ms
DEEPEST = 16  # steps down that are followed: each looks at all that is below it once more

_AT = re.compile(r" - at `(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")


def fault_of(said: str, pointer: str = "") -> Fault:
    """The fault that a message of msgspec tells of, below `pointer`."""
    found = _AT.search(said)
    if found is None:
        return Fault(pointer, said)
    steps = "".join(f"/{_escaped(name or index)}" for name, index in _STEP.findall(found[1]))
    return Fault(pointer + steps.partition("/...")[0], said[: found.start()])


def find_faults(payload: bytes, wire: Any, said: str) -> Sequence[Fault]:
    """The first faults of a payload that is JSON but not of the type `wire`, at least the one that `said` tells of."""
    first = [fault_of(said)]
    if len(payload) > LOOK_BYTES:
        return first
    try:
        return list(islice(_faults(msgspec.json.decode(payload), wire, ""), MOST)) or first
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return first


def _faults(value: Any, wire: Any, pointer: str) -> Iterator[Fault]:
    try:
        msgspec.convert(value, wire, dec_hook=foreign.decode, str_keys=True)
    except msgspec.ValidationError as error:
        found = False
        for fault in _within(value, wire, pointer):
            found = True
            yield fault
        if not found:
            yield fault_of(str(error), pointer)


def _within(value: Any, wire: Any, pointer: str) -> Iterator[Fault]:
    wire = _bare(wire)
    kind, arguments = get_origin(wire) or wire, get_args(wire)
    items: list[Any] | None = value if isinstance(value, list) else None  # pyright: ignore[reportUnknownVariableType] -- of JSON
    members: dict[str, Any] | None = value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType] -- as above
    if not isinstance(kind, type) or pointer.count("/") >= DEEPEST:
        return
    if foreign.is_model(kind):
        yield from (
            Fault(pointer + "".join(f"/{_escaped(str(step))}" for step in where), reason) for where, reason in foreign.faults(kind, value)
        )
    elif items is not None and arguments and issubclass(kind, Sequence | AbstractSet):
        types = arguments if kind is tuple and Ellipsis not in arguments else (arguments[0],) * len(items)
        for place, (item, its) in enumerate(zip(items, types, strict=False)):
            yield from _faults(item, its, f"{pointer}/{place}")
    elif members is not None and arguments and issubclass(kind, Mapping):
        for name, item in members.items():
            yield from _faults(item, arguments[1], f"{pointer}/{_escaped(name)}")
    elif members is not None:
        yield from _in_fields(members, wire, pointer)


def _in_fields(value: dict[str, Any], wire: Any, pointer: str) -> Iterator[Fault]:
    for name, its, required in _fields(wire):
        if name in value:
            yield from _faults(value[name], its, f"{pointer}/{_escaped(name)}")
        elif required:
            yield Fault(pointer, f"Object missing required field `{name}`")


def _fields(wire: Any) -> Iterator[tuple[str, Any, bool]]:
    """Names on the wire, types, whether it must be there: of a struct, a dataclass, an attrs class or a TypedDict."""
    try:
        info = msgspec.inspect.type_info(wire)
        hints = get_type_hints(wire, include_extras=True)
    except (TypeError, NameError):
        return
    for field in getattr(info, "fields", ()):
        hint = hints[field.name]
        yield field.encode_name, get_args(hint)[0] if get_origin(hint) in {Required, NotRequired} else hint, field.required


def _bare(wire: Any) -> Any:
    """The type without what annotates it, and without the None that may stand in its place."""
    while hasattr(wire, "__metadata__"):
        wire = wire.__origin__
    if get_origin(wire) in {Union, UnionType}:
        some = [each for each in get_args(wire) if each is not NoneType]
        return _bare(some[0]) if len(some) == 1 else wire
    return wire


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
