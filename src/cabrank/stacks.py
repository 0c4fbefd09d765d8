"""Where code stands, as lines for people, the outermost call first. Nothing is stopped to see it."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

OURS = f"{Path(__file__).parent}/"
FRAMES = 64  # of one stack: what is deeper recurses


def awaiting(coroutine: object) -> Iterator[tuple[Any, FrameType]]:
    """A coroutine that waits, what it awaits, and so on: each with its frame."""
    seen: Any = coroutine
    while seen is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(seen, f"{kind}_frame")), None)
        frame = None if kind is None else getattr(seen, f"{kind}_frame")
        if frame is None:
            return
        yield seen, frame
        seen = getattr(seen, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def calling(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame that runs, who called it, and so on."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def frame_of(thread: int) -> FrameType | None:
    """What a thread of this process runs now; None if there is none of that number."""
    return sys._current_frames().get(thread)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] -- the public way to it


def lines_of(frames: Iterable[FrameType]) -> Sequence[str]:
    """`app.py:12 in upload: await client.post(payload)` for each of them."""
    return [_line(frame.f_code, frame.f_lineno) for frame, _ in zip(frames, range(FRAMES), strict=False)]


def _line(code: CodeType, number: int) -> str:
    text = linecache.getline(code.co_filename, number).strip()
    place = f"{code.co_filename}:{number} in {code.co_qualname}"
    return f"{place}: {text}" if text else place
