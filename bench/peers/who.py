"""Who takes part, how each is set up, and what its acknowledgement means."""

from enum import StrEnum

import msgspec


class Needs(StrEnum):
    """Which server a peer needs."""

    NOTHING = "nothing"
    REDIS = "Redis"
    POSTGRES = "PostgreSQL"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One library. `slots` are the jobs of a second each that its worker runs at once."""

    name: str
    needs: Needs
    setup: str
    ack: str


REDIS_ACK = "in Redis' memory; its append-only file is synced once a second"
POSTGRES_ACK = "committed and fsynced by PostgreSQL"
PEERS = (
    Peer(name="cabrank", needs=Needs.NOTHING, setup="SQLite, 100 async workers, one process", ack="committed and fsynced in the file"),
    Peer(name="huey", needs=Needs.NOTHING, setup="SqliteHuey(fsync=True), 2 threads, no results", ack="committed and fsynced in the file"),
    Peer(name="celery", needs=Needs.REDIS, setup="prefork, 2 processes, no results", ack=REDIS_ACK),
    Peer(name="dramatiq", needs=Needs.REDIS, setup="2 processes of 8 threads", ack=REDIS_ACK),
    Peer(name="saq", needs=Needs.REDIS, setup="concurrency 10, one process", ack=REDIS_ACK),
    Peer(name="taskiq", needs=Needs.REDIS, setup="RedisStreamBroker, 2 processes", ack=REDIS_ACK),
    Peer(name="arq", needs=Needs.REDIS, setup="defaults, results not kept", ack=REDIS_ACK),
    Peer(name="rq", needs=Needs.REDIS, setup="SimpleWorker (no fork for each job)", ack=REDIS_ACK),
    Peer(name="procrastinate", needs=Needs.POSTGRES, setup="concurrency 10", ack=POSTGRES_ACK),
    Peer(name="pgqueuer", needs=Needs.POSTGRES, setup="batches of 100", ack=POSTGRES_ACK),
)
