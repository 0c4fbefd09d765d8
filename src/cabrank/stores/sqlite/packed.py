"""Many values as one parameter of a statement: the interpreter's lock is handed over once for all of them."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from typing import Any

import apsw
import msgspec


def ids(numbers: Collection[int]) -> Any:
    """Whole numbers, for `carray(?)`."""
    return apsw.carray(array("q", numbers))


def rows(values: object) -> str:
    """Rows of any kind as JSON, for `json_each(?)`."""
    return msgspec.json.encode(values).decode()
