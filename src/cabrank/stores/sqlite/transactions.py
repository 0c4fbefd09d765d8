"""The transactions of the writing connection, and what is remembered of the file: it is undone with them."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Protocol

import apsw

from cabrank.errors import StoreUnavailable
from cabrank.stores.sqlite.schema import FOREIGN, damaged


class Remembered(Protocol):
    """What a connection remembers of the file."""

    def commit(self) -> None:
        """What was done to it in the transaction is done."""
        ...

    def roll_back(self) -> None:
        """What was done to it since the last commit is not."""
        ...


class Transaction:
    """One that goes on."""

    idle = False
    """Set when there is nothing to write: then nothing is synced either."""


class Transactions:
    """Those of one connection to the file at `path`."""

    def __init__(self, path: Path, connection: apsw.Connection, remembered: Sequence[Remembered]) -> None:
        self._path = path
        self._connection = connection
        self._remembered = remembered
        self.broken = True
        """Whether the connection is not to be trusted, any more or yet: whoever made all that goes with it says that it is whole."""

    @contextlib.contextmanager
    def one(self) -> Generator[Transaction, None, None]:
        """One transaction, which holds the write lock from its beginning.

        Raises:
            StoreUnavailable: it cannot be written now.
            StoreUnusable: the file is damaged.
        """
        transaction = Transaction()
        with self.failing():
            self._connection.execute("begin immediate")
            try:
                yield transaction
                if not transaction.idle:
                    self._connection.execute("commit")
                    for one in self._remembered:
                        one.commit()
            finally:
                for one in self._remembered:
                    one.roll_back()
                if self._connection.in_transaction:
                    self._connection.execute("rollback")

    @contextlib.contextmanager
    def failing(self) -> Generator[None, None, None]:
        """What SQLite says is wrong, in the words of the store; see `one`."""
        try:
            yield
        except apsw.CorruptError as error:
            raise damaged(self._path, error) from error
        except FOREIGN as error:
            self.broken = self.broken or isinstance(error, apsw.IOError)
            raise StoreUnavailable(f"{self._path}: {error}") from error
