"""Payloads: JSON bytes on every wire and in every store, the types of a handler's parameters in the program."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from cabrank import foreign
from cabrank.depth import is_bounded
from cabrank.errors import PayloadInvalid, PayloadMalformed, RegistrationError
from cabrank.faults import find_faults

UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError)
EMPTY = b"null"  # the payload of a handler without parameters: valid JSON, so that rows can be joined into one array


class PayloadCodec:
    """The payload of one function: its positional parameters.

    No parameter → `null`; one → that type; several → an object by parameter name. What a decoded value is encoded to, decodes
    to an equal one; unknown fields of an object are not kept. That of a batch handler, which takes a list of payloads, is one item.
    """

    def __init__(self, function: Callable[..., object], *, of_items: bool = False) -> None:
        """Read the parameters of `function`. `of_items`: it is called with a list of what single payloads stand for.

        Raises:
            RegistrationError: the function takes `*args` or `**kwargs`, or a parameter's type cannot be decoded from JSON; or it takes
                no list.
        """
        self.parameters, hints = _positional(function)
        self.names = tuple(parameter.name for parameter in self.parameters)
        self.required = sum(parameter.default is inspect.Parameter.empty for parameter in self.parameters)
        self._returns: Any = hints.get("return", Any)
        self.wire: Any = (_item_type if of_items else _wire_type)(function, self.parameters, hints)
        """The type of a whole payload; None where there is none."""
        try:
            self._decoder = msgspec.json.Decoder(self.wire, dec_hook=foreign.decode)
        except (TypeError, NotImplementedError) as error:
            raise RegistrationError(f"{_name(function)}: a parameter's type cannot be decoded from JSON: {error}") from error
        self.encode_exact = self._encode = msgspec.json.Encoder(enc_hook=foreign.encode).encode
        """The JSON of any value; raises one of `UNENCODABLE`."""
        self.exact = self.wire if len(self.names) == 1 and _comes_back(self.wire) else None
        """An argument of exactly this class, if it is the only one, needs no check beyond being encodable."""
        self.bounded = is_bounded(self.wire)
        """Whether the types bound how deeply a payload is nested."""

    def encode(self, args: tuple[Any, ...]) -> bytes:
        """The payload for these arguments.

        Raises:
            PayloadInvalid: they cannot be encoded as JSON, or are not of the parameters' types.
        """
        if self.exact is not None and len(args) == 1 and args[0].__class__ is self.exact:
            return self._encoded(args[0])
        if not self.required <= len(args) <= len(self.names):
            raise PayloadInvalid(f"it takes {self._arity()}, {len(args)} were given")
        if not self.names:
            return EMPTY
        given = args + tuple(parameter.default for parameter in self.parameters[len(args) :])
        whole = given[0] if len(self.names) == 1 else dict(zip(self.names, given, strict=True))
        payload = self._encoded(whole)
        self.decode(payload)
        return payload

    def encode_each(self, items: Sequence[Any]) -> list[bytes]:
        """The payloads of calls with one argument each, as `encode` makes them."""
        exact, encode = self.exact, self._encode
        try:
            return [encode(item) if item.__class__ is exact else self.encode((item,)) for item in items]
        except UNENCODABLE as error:
            raise PayloadInvalid(f"it cannot be encoded as JSON: {error}") from None

    def size_of_each(self, items: Sequence[Any]) -> int | None:
        """The bytes of the payloads of calls with one argument each; None if that is not known before each was encoded.

        Raises:
            PayloadInvalid: they cannot be encoded as JSON.
        """
        if len(items) == 1:
            return len(self._encoded(items[0])) if items[0].__class__ is self.exact else None
        if set(map(type, items)) != {self.exact}:
            return None
        return len(self._encoded(items)) - len(items) - 1  # brackets and commas

    def decode(self, payload: bytes) -> tuple[Any, ...]:
        """The arguments that `payload` stands for.

        Raises:
            PayloadMalformed: it is not JSON.
            PayloadInvalid: it is not of the parameters' types; the message names the field.
        """
        try:
            if not self.names:
                return self._nothing(payload)
            if not payload and not self.required:
                return tuple(parameter.default for parameter in self.parameters)
            whole = self._decoder.decode(payload)
        except msgspec.ValidationError as error:
            raise PayloadInvalid(str(error), find_faults(payload, self.wire, str(error))) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise PayloadMalformed(f"not valid JSON: {error}") from None
        if len(self.names) == 1:
            return (whole,)
        return tuple(getattr(whole, name) for name in self.names)

    def decode_each(self, payloads: bytes) -> list[Any]:
        """What the payloads in a JSON array stand for, of a function with one parameter or a batch handler.

        Raises:
            PayloadInvalid: one is not of the parameter's type.
        """
        try:
            return self._each.decode(payloads)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise PayloadInvalid(str(error)) from None

    @cached_property
    def _each(self) -> msgspec.json.Decoder[list[Any]]:
        wire: Any = self.wire
        return msgspec.json.Decoder(list.__class_getitem__(wire), dec_hook=foreign.decode)

    def encode_result(self, value: object) -> bytes | None:
        """The result as JSON; None stays None.

        Raises:
            PayloadInvalid: it cannot be encoded.
        """
        return None if value is None else self._encoded(value)

    def decode_result(self, result: bytes | None) -> Any:
        """The result as the function's return type says."""
        if result is None:
            return None
        try:
            return msgspec.json.decode(result, type=self._returns, dec_hook=foreign.decode)
        except (msgspec.ValidationError, TypeError):
            return msgspec.json.decode(result)

    def _encoded(self, value: object) -> bytes:
        try:
            return self._encode(value)
        except UNENCODABLE as error:
            raise PayloadInvalid(f"it cannot be encoded as JSON: {error}") from None

    def _nothing(self, payload: bytes) -> tuple[()]:
        if payload and msgspec.json.decode(payload) not in (None, {}, []):
            raise PayloadInvalid("it takes no parameter: send an empty body")
        return ()

    def _arity(self) -> str:
        count, required = len(self.names), self.required
        listed = f" ({', '.join(self.names)})" if count else ""
        return f"{count} argument{'' if count == 1 else 's'}{listed}" if count == required else f"{required} to {count} arguments{listed}"


def _comes_back(wire: Any) -> bool:
    """Whether what is encoded from an instance of exactly this type decodes to an equal one."""
    return isinstance(wire, type) and (wire in {int, str, bool} or issubclass(wire, msgspec.Struct))


def _positional(function: Callable[..., object]) -> tuple[Sequence[inspect.Parameter], dict[str, Any]]:
    try:
        parameters = inspect.signature(function).parameters.values()
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise RegistrationError(f"{_name(function)}: its parameters' types cannot be read: {error}") from error
    for parameter in parameters:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise RegistrationError(f"{_name(function)}: a handler names its parameters, {parameter} has no types of its own")
    return [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY], hints


def _wire_type(function: Callable[..., object], parameters: Sequence[inspect.Parameter], hints: dict[str, Any]) -> Any:
    if not parameters:
        return None
    if len(parameters) == 1:
        return hints.get(parameters[0].name, Any)
    fields: list[Any] = [
        (p.name, hints.get(p.name, Any)) if p.default is p.empty else (p.name, hints.get(p.name, Any), p.default) for p in parameters
    ]
    return msgspec.defstruct(f"{_name(function)}_payload", fields, forbid_unknown_fields=True)


def _item_type(function: Callable[..., object], parameters: Sequence[inspect.Parameter], hints: dict[str, Any]) -> Any:
    if len(parameters) != 1 or parameters[0].default is not inspect.Parameter.empty:
        raise RegistrationError(f"{_name(function)}: a batch handler takes exactly one parameter, the list of its items")
    taken = hints.get(parameters[0].name, list[Any])
    if (get_origin(taken) or taken) not in {list, Sequence, Iterable, Collection}:
        raise RegistrationError(
            f"{_name(function)}: a batch handler takes a list of its items, as in `{parameters[0].name}: list[Reading]`, not {taken!r}"
        )
    return (get_args(taken) or (Any,))[0]


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", repr(function))
