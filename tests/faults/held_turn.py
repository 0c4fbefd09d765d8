"""A process that stands still in the midst of its turn.

    python -m tests.faults.held_turn FILE

It holds both locks of the file when it is stopped, and lets them go when it goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cabrank.stores.sqlite.holders import folder_of
from cabrank.stores.sqlite.locks import FileLock


def main(path: Path) -> None:
    locks = [FileLock(folder_of(path) / name) for name in ("next", "turn")]
    for lock in locks:
        lock.wait()
    os.kill(os.getpid(), signal.SIGSTOP)
    for lock in locks:
        lock.release()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
