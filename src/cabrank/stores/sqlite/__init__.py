"""The durable store of one machine: a SQLite file that several processes may share."""

from cabrank.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
