"""Another program that reads a file and does not end its read: `python reading.py FILE` says `reads`, and waits."""

import sqlite3
import sys

if __name__ == "__main__":
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("begin")
    connection.execute("select count(*) from job").fetchall()
    print("reads", flush=True)  # noqa: T201 -- the test waits for it
    sys.stdin.read()
