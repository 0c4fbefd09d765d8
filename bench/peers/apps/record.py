"""What every peer's handlers do: append 24 bytes to a file, so that one reader sees what ran when. No peer is in here."""

import os
import struct
import time

RECORD = struct.Struct("<qqq")  # number of the job, its moment on the machine's monotonic clock in ns, what happened
BEGUN, DONE = 0, 1
SLOW_S = 1.0
SIZE = 256

REDIS_PORT = int(os.environ.get("BENCH_REDIS_PORT", "0"))
REDIS = f"redis://127.0.0.1:{REDIS_PORT}/0"
POSTGRES = f"postgresql://bench@127.0.0.1:{os.environ.get('BENCH_POSTGRES_PORT', '0')}/postgres"
FILE = os.environ.get("BENCH_FILE", "jobs.db")
_file: int | None = None


def note(number: int, what: int = DONE) -> None:
    """Append a record."""
    global _file
    if _file is None:
        _file = os.open(os.environ["BENCH_RECORDS"], os.O_WRONLY | os.O_APPEND)
    os.write(_file, RECORD.pack(number, time.monotonic_ns(), what))


def payload(number: int) -> str:
    """256 bytes that begin with the job's number."""
    return f"{number:010d}".ljust(SIZE, "x")


def ran(text: str) -> None:
    """The no-op job."""
    note(int(text[:10]))
