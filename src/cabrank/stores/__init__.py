"""Where jobs are kept: one folder for each store, one contract for all, and the URLs that choose between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cabrank.errors import SettingError

if TYPE_CHECKING:
    from random import Random

    from cabrank.clock import Clock
    from cabrank.stores.contract import InspectedStore


def open_url(url: str, clock: Clock, rng: Random | None = None) -> InspectedStore:
    """The store that `url` names; nothing is opened yet.

    `memory://` is in this process. `sqlite:///relative.db` and `sqlite:////absolute.db` are files, written as SQLAlchemy writes them.

    Raises:
        SettingError: there is no such store.
    """
    path = path_of(url)
    if path is None:
        from cabrank.stores.memory import MemoryStore  # noqa: PLC0415 -- a store is loaded when it is chosen

        return MemoryStore(clock, rng)
    from cabrank.stores.sqlite import SqliteStore  # noqa: PLC0415

    return SqliteStore(path, clock, rng)


def path_of(url: str) -> Path | None:
    """The file of the store that `url` names; None if it has none.

    Raises:
        SettingError: there is no such store.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "memory" and not rest:
        return None
    if separator and scheme == "sqlite" and len(rest) > 1 and rest.startswith("/"):
        return Path(rest[1:])
    raise SettingError(f"store={url!r}: it is memory://, sqlite:///relative.db or sqlite:////absolute.db")
