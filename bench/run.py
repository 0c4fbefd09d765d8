"""`cabrank run` killed again and again: does each item stand once in its output, and does memory stay flat?

    python -m bench.run --items 1000000 --kills 20
    python -m bench.run --items 10000000 --kills 0

The handler returns what it was given. The process is sent SIGKILL at random moments, started again after each, and let run to its end
after the last. Then every line of the output is read.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

HANDLER = """
async def same(number: int) -> int:
    return number
"""
LOOK_S = 0.05  # how often the memory of the process is looked at


class Line(msgspec.Struct):
    """A line of the output."""

    line: int
    result: int


class Killed(msgspec.Struct):
    """What a run over so many items came to."""

    starts: int
    seconds: float
    peak_mb: list[float]
    results: int
    missing: int
    twice: int
    wrong: int
    in_order: bool


def write_items(folder: Path, items: int) -> None:
    """The handler and its items, one number a line."""
    (folder / "same.py").write_text(HANDLER, "utf-8")
    with (folder / "items.ndjson").open("w", encoding="utf-8") as file:
        file.writelines(f"{number}\n" for number in range(items))


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """`cabrank run` over them."""
    command = [sys.executable, "-m", "cabrank", "run", "same.py:same", "items.ndjson", "--store", "run.db", *options]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stderr=log)


def resident_mb(pid: int) -> float:
    """The memory of a process, 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        return 0.0


def until(process: subprocess.Popen[bytes], ends_at: float, peaks: list[float], *, after: Path | None = None, size: int = 0) -> None:
    """Wait for a process until a moment, or until a file has reached a size."""
    peak = 0.0
    while process.poll() is None and time.monotonic() < ends_at:
        peak = max(peak, resident_mb(process.pid))
        if after is not None and after.exists() and after.stat().st_size >= size:
            break
        time.sleep(LOOK_S if after is None else LOOK_S / 10)
    peaks.append(round(peak, 1))


def run(folder: Path, items: int, kills: int, rng: random.Random, *options: str) -> Killed:
    """Run over `items`, killed so often: each time when the output has grown by a random part, or before that."""
    write_items(folder, items)
    output, peaks, began = folder / "items.results.ndjson", list[float](), time.monotonic()
    whole = sum(len(b'{"line":%d,"result":%d}\n' % (n + 1, n)) for n in range(items))
    for size in sorted(rng.randrange(whole) for _ in range(kills)):
        process = start(folder, *options)
        until(process, time.monotonic() + 600, peaks, after=output, size=size)
        time.sleep(rng.uniform(0, 0.3))  # not always just behind a write
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(folder, *options)
    until(process, time.monotonic() + 3600, peaks)
    if process.wait() != 0:
        raise SystemExit((folder / "log").read_text("utf-8"))
    return checked(output, items, peaks, time.monotonic() - began)


def checked(output: Path, items: int, peaks: list[float], seconds: float) -> Killed:
    """Read the whole output."""
    seen, twice, wrong, last, in_order = bytearray(items), 0, 0, 0, True
    decode = msgspec.json.Decoder(Line).decode
    with output.open("rb") as file:
        for raw in file:
            line = decode(raw)
            wrong += line.result != line.line - 1
            twice += seen[line.line - 1]
            seen[line.line - 1] = 1
            in_order, last = in_order and line.line > last, line.line
    results = sum(seen)
    return Killed(len(peaks), seconds, peaks, results, items - results, twice, wrong, in_order)


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--order", choices=["input", "completed"], default="input")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), options.items, options.kills, random.Random(options.seed), "--order", options.order)
    print(f"{options.items:,} items, {options.kills} kills, {found.starts} starts, {found.seconds:,.0f} s in all")
    print(f"results {found.results:,}  missing {found.missing:,}  twice {found.twice:,}  wrong {found.wrong:,}  in order {found.in_order}")
    print(f"resident at most, of each start: {' '.join(f'{peak:.0f}' for peak in found.peak_mb)} MB")


if __name__ == "__main__":
    main()
