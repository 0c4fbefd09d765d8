"""Handlers that do to their process what a test needs, at the top of a module, so that a worker process can import them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import cabrank

app = cabrank.App()
once = cabrank.Retry(attempts=1)
SLEEP = [sys.executable, "-c", "import time; time.sleep(1e6)"]


class Broken(Exception):
    """An exception of the program's own."""


@app.job(kind="process")
def double(number: int) -> int:
    return 2 * number


@app.job(kind="process")
def works_in() -> int:
    return os.getpid()


@app.job(kind="process", max_crashes=2)
def segfaults(number: int) -> None:
    sys.stdout.write(f"stdout of {number}\n")
    sys.stderr.write(f"stderr of {number}\n")
    ctypes.string_at(0)


@app.job(kind="process")
def prints(number: int) -> None:
    sys.stdout.write(f"{number}\n")


@app.job(kind="process", max_crashes=1)
def prints_and_dies(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    os._exit(1)


@app.job(kind="process", max_crashes=1)
def exits(code: int) -> None:
    os._exit(code)


@app.job(kind="process")
def reports(where: str, *, job: cabrank.JobContext = cabrank.context()) -> int:
    for done in range(20_000):
        job.progress(done / 20_000 / 2)
    job.progress(0.75, "nearly")
    while not Path(where).exists():
        time.sleep(0.01)
    return 20_000


@app.job(kind="process")
def reports_and_waits(*, job: cabrank.JobContext = cabrank.context()) -> None:
    while True:
        job.progress(0.5, "n" * 200)


@app.job(kind="process", batch=cabrank.Batch(jobs=8, wait_s=0.05))
def packs(numbers: list[int]) -> None:
    """Kills its process where a number is below 0; the others of the batch have done nothing."""
    if min(numbers) < 0:
        os._exit(1)


@app.job(kind="process", batch=cabrank.Batch(jobs=8, wait_s=0.05), retry=once, timeout_s=0.2)
def hangs_together(numbers: list[int]) -> None:
    time.sleep(1e6)


@app.job(kind="process", retry=once)
def hoards(size: int) -> int:
    return len(bytearray(size))


@app.job(kind="process", retry=once, timeout_s=0.2)
def hangs(where: str) -> None:
    Path(where).write_text(str(os.getpid()), encoding="ascii")
    while True:
        try:
            time.sleep(1e6)
        except BaseException:  # noqa: BLE001, S112 -- that is the point
            continue


@app.job(kind="process", retry=once, timeout_s=0.2)
def cleans_up(where: str) -> None:
    try:
        time.sleep(1e6)
    finally:
        Path(where).write_text("clean", encoding="ascii")


@app.job(kind="process", max_crashes=1)
def leaves_children(where: str) -> None:
    """One in its group, one in a session of its own; then it dies."""
    children = [subprocess.Popen(SLEEP), subprocess.Popen(SLEEP, start_new_session=True)]
    Path(where).write_text(" ".join(str(child.pid) for child in children), encoding="ascii")
    os._exit(1)


@app.job
def orphans(where: str) -> None:
    """A shell leaves a process behind, which ends when `where` is there."""
    subprocess.run(["/bin/sh", "-c", f"while ! test -e {where}; do sleep 0.05; done &"], check=True)


@app.job(kind="process")
def sits(where: str) -> None:
    """Says who it is and who is below it, and stays."""
    children = [subprocess.Popen(SLEEP), subprocess.Popen(SLEEP, start_new_session=True)]
    Path(f"{where}.new").write_text(" ".join(str(pid) for pid in (os.getpid(), *(child.pid for child in children))), encoding="ascii")
    Path(f"{where}.new").rename(where)
    time.sleep(1e6)


@app.job(kind="process", retry=cabrank.Retry(attempts=3, base_s=0.001, unless=(Broken,)))
def breaks(number: int) -> None:
    raise Broken(f"number {number}")


def bare(number: int) -> complex:
    if number < 0:
        raise Broken("below 0")
    return complex(number, 1)
