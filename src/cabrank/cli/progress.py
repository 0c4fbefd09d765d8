"""How far a run is: a bar for a person at a terminal, a line now and then for a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich import progress
from rich.console import Console

LINE_S = 10.0  # between two lines of a log


class Progress:
    """A context manager, within which `show` says how far it is."""

    def __init__(self, size: int) -> None:
        """`size` is that of the input in bytes, 0 if it is not known."""
        self._size = size
        self._line_at = time.monotonic() + LINE_S
        self._first: tuple[float, int, int] | None = None
        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.description}"),
            progress.TextColumn("ETA"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._row = self._bar.add_task("", total=size or None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, offset: int, done: int, failed: int) -> None:
        """`offset` are the bytes of the input that are behind it."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, offset, done + failed
        began_at, first_offset, first_items = self._first
        spent_s = now - began_at
        rate = (done + failed - first_items) / spent_s if spent_s > 0 else 0.0
        said = f"{done:,} done, {failed:,} failed, {rate:,.0f}/s"
        if not self._bar.disable:
            self._bar.update(self._row, completed=offset, description=said)
        elif now >= self._line_at:
            self._line_at = now + LINE_S
            bytes_s = (offset - first_offset) / spent_s if spent_s > 0 else 0.0
            left = f", {(self._size - offset) / bytes_s:,.0f} s left" if self._size and bytes_s > 0 else ""
            print(f"{said}{left}", file=sys.stderr, flush=True)
