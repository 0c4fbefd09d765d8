"""Handlers and queues have names in the program and small numbers in the file."""

from __future__ import annotations

from typing import Literal

import apsw


class Names:
    """One table of names, remembered. `roll_back` with the transaction: a number that was given in it is void."""

    def __init__(self, connection: apsw.Connection, table: Literal["handler", "queue"]) -> None:
        self._connection = connection
        self._table = table
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._given = False

    def number(self, name: str) -> int:
        """The number of a name; a new one is given if it has none. Within a transaction."""
        found = self._numbers.get(name)
        if found is None:
            self._connection.execute(f"insert or ignore into {self._table} (name) values (?)", (name,))
            self._load()
            self._given = True
            found = self._numbers[name]
        return found

    def known(self, name: str) -> int | None:
        """The number of a name that is remembered, without a look at the file."""
        return self._numbers.get(name)

    def name(self, number: int) -> str:
        """The name of a number."""
        if number not in self._names:
            self._load()
        return self._names[number]

    def commit(self) -> None:
        """What was given is given."""
        self._given = False

    def roll_back(self) -> None:
        """What was given is not."""
        if self._given:
            self._given = False
            self._numbers.clear()
            self._names.clear()

    def _load(self) -> None:
        self._numbers = {name: number for number, name in self._connection.execute(f"select id, name from {self._table}")}
        self._names = {number: name for name, number in self._numbers.items()}
