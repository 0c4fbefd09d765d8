"""How soon Python's threads hand the interpreter over: a busy event loop must not starve the thread that writes."""

from __future__ import annotations

import sys
import threading


class Switching:
    """The interpreter's switch interval, which all who have a file open share. See ADR 0080."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: list[float] = []
        self._before = 0.0  # what it was before anybody came
        self._ours = 0.0  # what it was set to; somebody else may have changed it since

    def hasten(self, interval_s: float) -> None:
        """Hand over after `interval_s` seconds, or sooner where that is so already. 0 changes nothing."""
        with self._lock:
            if not self._wanted:
                self._before = self._ours = sys.getswitchinterval()
            self._wanted.append(interval_s)
            self._set()

    def relent(self, interval_s: float) -> None:
        """Take back what `hasten` was told. After the last one it is as it was before the first."""
        with self._lock:
            self._wanted.remove(interval_s)
            self._set()

    def _set(self) -> None:
        if sys.getswitchinterval() == self._ours:
            sys.setswitchinterval(min([self._before, *filter(None, self._wanted)]))
            self._ours = sys.getswitchinterval()


switching = Switching()
"""That of this process."""
