"""Types that msgspec does not know but that describe themselves: pydantic's models, where pydantic is installed.

They are told by the methods they have, so nothing is imported that the user has not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import msgspec


@runtime_checkable
class Model(Protocol):
    """What a pydantic model's class offers; see there."""

    def model_validate_json(self, json_data: bytes, /) -> Any:
        """The model that this JSON stands for."""
        ...

    def model_json_schema(self, *, ref_template: str) -> dict[str, Any]:
        """Its JSON Schema."""
        ...

    def model_dump_json(self, instance: Any, /) -> str:
        """An instance as JSON."""
        ...


def is_model(kind: object) -> bool:
    """Whether `kind` is the class of such a model."""
    return isinstance(kind, type) and isinstance(kind, Model)


def decode(kind: Any, value: Any) -> Any:
    """A value of the foreign type `kind`, as msgspec's `dec_hook`.

    Raises:
        ValueError: it is not of that type, or nothing is known of the type.
    """
    if not isinstance(kind, Model):
        if isinstance(value, kind):
            return value
        raise ValueError(f"`{kind.__name__}` has no form in JSON")
    try:
        return kind.model_validate_json(msgspec.json.encode(value))
    except ValueError as error:
        where, reason = _told(error)[0]
        named = f"`{'.'.join(map(str, where))}`: " if where else ""
        raise ValueError(f"{named}{reason}") from None


def encode(value: Any) -> Any:
    """What stands for a foreign value in JSON, as msgspec's `enc_hook`."""
    kind = cast(object, type(value))
    if isinstance(kind, Model):
        return msgspec.Raw(kind.model_dump_json(value).encode())
    raise NotImplementedError(f"`{type(value).__name__}` has no form in JSON")


def faults(kind: Any, value: Any) -> Sequence[tuple[Sequence[str | int], str]]:
    """What is wrong with a value of the foreign type `kind`: where in it, and what."""
    assert isinstance(kind, Model)  # noqa: S101 -- whoever asks has asked `is_model`
    try:
        kind.model_validate_json(msgspec.json.encode(value))
    except ValueError as error:
        return _told(error)
    return []


def schema(kind: Any, ref_template: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON Schema of the foreign type `kind`, and those of the types in it by name, which it refers to as `ref_template` says."""
    assert isinstance(kind, Model)  # noqa: S101 -- as above
    whole = kind.model_json_schema(ref_template=ref_template.replace("{name}", "{model}"))
    below: dict[str, Any] = whole.pop("$defs", {})
    return whole, below


def _told(error: ValueError) -> Sequence[tuple[Sequence[str | int], str]]:
    """The faults that pydantic lists; of any other error, its text."""
    listed = getattr(error, "errors", None)
    if listed is None:
        return [((), str(error))]
    return [(tuple(fault["loc"]), str(fault["msg"])) for fault in listed()]
