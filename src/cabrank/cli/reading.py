"""The input of a run is read in a thread of its own: it may let one wait, and an event loop must not."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from cabrank.cli.items import Chunk, InputUnusable
from cabrank.errors import CabrankError

AHEAD = 2  # chunks that are read and not taken


class Reading:
    """Chunks as a thread reads them, a few ahead. `tell` is called in that thread when there is news."""

    def __init__(self, chunks: Iterator[Chunk], tell: Callable[[], None]) -> None:
        self._ahead: deque[Chunk] = deque()
        self._room = threading.Semaphore(AHEAD)
        self._chunks = chunks
        self._tell = tell
        self._failure: BaseException | None = None
        self._read = False
        threading.Thread(target=self._run, name="cabrank-input", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether there is no more."""
        return self._read and not self._ahead

    def take(self) -> Chunk | None:
        """The next chunk, None if there is none now.

        Raises:
            What reading raised, behind what came before.
        """
        if self._ahead:
            self._room.release()
            return self._ahead.popleft()
        if self._failure is not None:
            raise self._failure
        return None

    def _run(self) -> None:
        try:
            for chunk in self._chunks:
                self._room.acquire()
                self._ahead.append(chunk)
                self._tell()
        except BaseException as error:  # noqa: BLE001 -- it is raised where the chunks are taken
            self._failure = error if isinstance(error, CabrankError | OSError) else InputUnusable(f"the input cannot be read: {error!r}")
        self._read = self._failure is None
        self._tell()
