"""Handles that are built when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

H = TypeVar("H")
S = TypeVar("S")


class Built(Sequence[H], Generic[S, H]):
    """What `build` makes of the items of several sequences, one behind another; each when it is asked for."""

    def __init__(self, parts: Sequence[Sequence[S]], build: Callable[[S], H]) -> None:
        self._parts = parts
        self._build = build

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[H]:
        return (self._build(item) for part in self._parts for item in part)

    @overload
    def __getitem__(self, index: int) -> H: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[H]: ...
    def __getitem__(self, index: int | slice) -> H | Sequence[H]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        for part in self._parts:
            if 0 <= position < len(part):
                return self._build(part[position])
            position -= len(part)
        raise IndexError(f"there are {len(self)} handles")
