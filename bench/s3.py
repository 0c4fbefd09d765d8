"""Payloads of 1 KiB through `cabrank serve` into a real S3 server on the same machine: packed, and one object each.

    python -m bench.s3                                                 # 3 minutes each, some 10 GB of disk
    python -m bench.s3 --seconds 20                                    # a quick look
    python -m bench.s3 --markdown docs/benchmarks/s3.md                # writes the page of the docs and its plots

Documents come over HTTP at a given rate, each payload is on disk before its 202, and SeaweedFS, which is started here, takes the
objects. At the end all of them are read back and counted by the ids of their jobs. Exit status 1: something was lost, or the backlog
grew.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import msgspec
from obstore.store import S3Store

from bench.contender import HOST, Contender, Name
from bench.disk import fsync_p50_s
from bench.machine import commit, processor
from bench.process import cpu_s, peak_memory
from bench.report import Grid, markdown
from bench.s3_load import Offered
from bench.server import Server, serving
from bench.svg import bars, curve
from examples.demo.weed import Weed

MINUTE_S = 60.0
LOOK_S = 1.0
DRAIN_LIMIT_S = 600.0
READERS = 8
ROOM = 5_000_000  # jobs that may wait: a backlog that grows is to be seen, not refused
TARGETS = (1_000_000, 3_000_000)  # payloads a minute, packed: must, goal
DISK_BYTES = 3_000  # for each packed payload: the object, its row and the log of the store
METHOD = """\
Documents of {payloads} payloads of 1 KiB come over HTTP at a fixed rate over 32 connections; each payload is a job that is on disk before
the 202, and becomes an object of its own or a line of a packed one, put with `If-None-Match: *`. At the end every object is read back,
and its payloads are counted by the ids of their jobs. The rate is that into the bucket during the load; what waited at its end does
not count."""
WAYS = {"packed": "packed, up to 512 in an object", "single": "one object each"}


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How things stood at one moment. CPU in seconds so far."""

    at_s: float
    waiting: int
    server_s: float
    store_s: float


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one way."""

    way: str
    rate: float
    seconds: float
    took_s: float
    """From the start of the client to the last answer."""
    drained_s: float
    """From there until nothing waited."""
    offered: Offered
    looks: list[Look]
    client_cores: float
    server_cores: float
    store_cores: float
    objects: int
    payloads: int
    peak_memory: int

    @property
    def early(self) -> int:
        """The backlog after the first minute, or after a third of a shorter run."""
        moment_s = min(MINUTE_S, self.seconds / 3)
        return next(look.waiting for look in self.looks if look.at_s >= moment_s)

    @property
    def late(self) -> int:
        """The backlog when the last document was answered."""
        return self.looks[-1].waiting

    @property
    def per_minute(self) -> float:
        """Payloads in the bucket for each minute of the load, without those that were still waiting."""
        return (self.payloads - self.late) / self.offered.took_s * MINUTE_S

    @property
    def lost(self) -> int:
        """Acknowledged, and in no object."""
        return self.offered.acknowledged - self.payloads

    @property
    def kept_up(self) -> bool:
        """Whether the backlog did not grow; what arrives in a second may wait."""
        return self.late <= max(self.early, self.rate)


def server_of(weed: Weed, way: str, workers: int) -> Contender:
    """`cabrank serve`, durable."""
    command = (sys.executable, "-m", "cabrank", "serve", "bench/s3_app.py:app", "--store", "sqlite:///{folder}/jobs.db")
    return Contender(
        name=Name.DURABLE,
        title=f"cabrank, {way}",
        acknowledgement="fsynced",
        command=(*command, "--host", HOST, "--port", "{port}", "--workers", str(workers)),
        environment={"CABRANK_MAX_QUEUE": str(ROOM), "S3_BENCH_BUCKET": weed.url, **weed.environment},
        accepts_with=202,
        stops_with=0,
        ours=True,
    )


def measure(way: str, *, rate: float, seconds: float, payloads: int, workers: int, folder: Path) -> Sample:
    """Run one way on a fresh server and a fresh bucket."""
    with Weed(folder / "s3") as weed, serving(server_of(weed, way, workers), folder=folder) as server:
        looks, offered, took_s = load(server, weed, way, rate=rate, seconds=seconds, payloads=payloads)
        drained_s = drain(server)
        memory = peak_memory(server.pid)
        objects, ids = read_back(weed)
    return Sample(
        way=way,
        rate=rate,
        seconds=seconds,
        took_s=took_s,
        drained_s=drained_s,
        offered=offered,
        looks=looks,
        client_cores=offered.cpu_s / offered.took_s,
        server_cores=(looks[-1].server_s - looks[0].server_s) / (looks[-1].at_s - looks[0].at_s),
        store_cores=(looks[-1].store_s - looks[0].store_s) / (looks[-1].at_s - looks[0].at_s),
        objects=objects,
        payloads=ids,
        peak_memory=memory,
    )


def load(server: Server, weed: Weed, way: str, *, rate: float, seconds: float, payloads: int) -> tuple[list[Look], Offered, float]:
    """Offer the documents, and look each second how far the server has come."""
    command = [sys.executable, "-m", "bench.s3_load", *map(str, (server.port, f"/{way}", payloads, rate, seconds))]
    begun_at, looks = time.monotonic(), list[Look]()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client, ThreadPoolExecutor(1) as reader:
        answer = reader.submit(client.communicate)
        while not answer.done():
            looks.append(look(server, weed, time.monotonic() - begun_at))
            wait([answer], timeout=LOOK_S)
        took_s = time.monotonic() - begun_at
        looks.append(look(server, weed, took_s))
        said, _ = answer.result()
    if client.returncode:
        raise SystemExit(f"the load ended with status {client.returncode}")
    return looks, msgspec.json.decode(said, type=Offered), took_s


def look(server: Server, weed: Weed, at_s: float) -> Look:
    """How things stand now."""
    return Look(at_s=at_s, waiting=waiting_at(server), server_s=cpu_s(server.pid), store_s=cpu_s(weed.pid))


def waiting_at(server: Server) -> int:
    """How many jobs wait or run."""
    status, body = server.get("/queues")
    if status != http.client.OK:
        raise SystemExit(f"/queues answered {status}: {body[:200].decode()}")
    return sum(queue["waiting"] + queue["running"] for queue in msgspec.json.decode(body)["queues"])


def drain(server: Server) -> float:
    """Wait until nothing waits: how long that took."""
    begun_at = time.monotonic()
    while waiting_at(server):
        if time.monotonic() > begun_at + DRAIN_LIMIT_S:
            raise SystemExit(f"jobs still wait {DRAIN_LIMIT_S:.0f} s after the load")
        time.sleep(0.1)
    return time.monotonic() - begun_at


def read_back(weed: Weed) -> tuple[int, int]:
    """How many objects there are, and how many different ids in them."""
    store = S3Store("telemetry", config=weed.config, client_options={"allow_http": True, "timeout": "60s"})
    objects, payloads, seen = 0, 0, bytearray()
    with ThreadPoolExecutor(READERS) as readers:
        for keys in listed(store):
            objects += len(keys)
            for body in readers.map(partial(read, store), keys):
                for id in ids_in(body):
                    seen.extend(bytes(max(0, id + 1 - len(seen))))
                    payloads += not seen[id]
                    seen[id] = 1
    return objects, payloads


def read(store: S3Store, key: str) -> bytes:
    """What is in an object."""
    return bytes(store.get(key).bytes())


def listed(store: S3Store) -> Iterator[list[str]]:
    """The keys, some at a time."""
    for chunk in store.list(chunk_size=1_000):  # pyright: ignore[reportUnknownMemberType] -- one of its overloads needs pyarrow
        yield [entry["path"] for entry in chunk]


def ids_in(body: bytes) -> Iterator[int]:
    """The numbers of the jobs in an object; each line begins with its id."""
    for line in body.splitlines():
        yield int(line[line.index(b"-") + 1 : line.index(b'"', 7)])


def table(samples: Sequence[Sample]) -> Grid:
    """What was found, one column for each way."""
    heads = ("", *(WAYS[sample.way] for sample in samples))
    rows: dict[str, Callable[[Sample], str]] = {
        "offered, payloads/min": lambda s: f"{s.rate * MINUTE_S:,.0f}",
        "**in the bucket, payloads/min**": lambda s: f"**{s.per_minute:,.0f}**",
        "payloads acknowledged (on disk)": lambda s: f"{s.offered.acknowledged:,}",
        "objects read back": lambda s: f"{s.objects:,}",
        "payloads in them": lambda s: f"{s.payloads:,}",
        "lost": lambda s: f"{s.lost:,}",
        "waiting after the first minute": lambda s: f"{s.early:,}",
        "waiting at the end": lambda s: f"{s.late:,}",
        "until nothing waited": lambda s: f"{s.drained_s:.1f} s",
        "document to its 202: p50 · p99": lambda s: f"{percentile(s, 50):.0f} ms · {percentile(s, 99):.0f} ms",
        "answered 429 or 503": lambda s: f"{s.offered.refused:,}",
        "cores: client": lambda s: f"{s.client_cores:.2f}",
        "cores: cabrank": lambda s: f"{s.server_cores:.2f}",
        "cores: SeaweedFS": lambda s: f"{s.store_cores:.2f}",
        "peak memory of cabrank": lambda s: f"{s.peak_memory / 2**20:.0f} MiB",
    }
    return Grid("Into S3", heads, [(name, *(cell(sample) for sample in samples)) for name, cell in rows.items()])


def percentile(sample: Sample, percent: int) -> float:
    """Of the times to the 202, in ms."""
    return statistics.quantiles(sample.offered.acks_s, n=100)[percent - 1] * 1e3


def write(page: Path, samples: Sequence[Sample], fsync_s: float, options: argparse.Namespace) -> None:
    """The page of the docs, and the plots beside it."""
    page.parent.mkdir(parents=True, exist_ok=True)
    rates = {f"cabrank, {sample.way}": sample.per_minute for sample in samples}
    page.with_suffix(".svg").write_text(bars("payloads of 1 KiB in the bucket, a minute", rates), encoding="utf-8")
    lines = {sample.way: {max(1.0, look.at_s): float(look.waiting) for look in sample.looks} for sample in samples}
    backlog = page.with_name(f"{page.stem}-backlog.svg")
    backlog.write_text(curve("jobs that wait or run", thinned(lines), x="seconds", y="jobs"), encoding="utf-8")
    machine = f"One {os.cpu_count()}-core machine ({processor()}), with the client, `cabrank serve` and SeaweedFS on it"
    parts = [
        "# Into object storage",
        f"{machine}; {options.seconds:.0f} s each; fsync p50 {fsync_s * 1e3:.2f} ms; load average before {options.busy:.1f}.",
        METHOD.format(payloads=options.payloads),
        markdown(table(samples)),
        f"![payloads a minute]({page.stem}.svg)",
        f"![backlog]({backlog.name})",
        f"Taken by `python -m bench.s3` at commit `{commit()}`.",
    ]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def thinned(lines: dict[str, dict[float, float]]) -> dict[str, dict[float, float]]:
    """The points of a curve at seconds that suit its axis."""
    moments = (1, 2, 5, 10, 20, 30, 60, 90, 120, 180)
    return {
        name: {float(moment): line[min(line, key=lambda at: abs(at - moment))] for moment in moments if moment <= max(line) + 1}
        for name, line in lines.items()
    }


def judged(samples: Sequence[Sample]) -> bool:
    """Say whether what has to hold does."""
    for sample in samples:
        kept = "the backlog did not grow" if sample.kept_up else "THE BACKLOG GREW"
        print(f"{sample.way}: {sample.per_minute:,.0f} a minute, {sample.lost:,} lost, {kept}")
        if sample.way == "packed":
            print(f"  asked: {TARGETS[0]:,}, goal {TARGETS[1]:,}: {'met' if sample.per_minute >= TARGETS[0] else 'NOT met'}")
    return all(sample.kept_up and sample.lost == 0 for sample in samples)


def main() -> int:
    """Measure, print the table, write the page if asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.s3", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="of load, for each way")
    parser.add_argument(
        "--rate",
        type=float,
        default=3_000_000.0,
        help="packed payloads offered a minute; 32 connections, so what is slower than that is measured as it is",
    )
    parser.add_argument("--single-rate", type=float, default=72_000.0, help="single payloads offered a minute")
    parser.add_argument("--payloads", type=int, default=64, help="in a document")
    parser.add_argument("--workers", type=int, default=8, help="calls, or single puts times four, that run at once")
    parser.add_argument("--only", choices=tuple(WAYS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where a scratch folder is made and removed")
    parser.add_argument("--markdown", type=Path, help="the page to write, with its plots beside it")
    options = parser.parse_args()
    options.busy = os.getloadavg()[0]
    needed = int(options.rate / MINUTE_S * options.seconds * DISK_BYTES)
    if (free := shutil.disk_usage(options.folder).free) < needed:
        parser.error(
            f"{needed / 1e9:.0f} GB must be free in {options.folder} and {free / 1e9:.0f} GB are: give another --folder, or fewer --seconds"
        )
    samples: list[Sample] = []
    fsync_s = fsync_p50_s(options.folder)
    for way, rate, workers in (("packed", options.rate, options.workers), ("single", options.single_rate, 4 * options.workers)):
        if options.only in {None, way}:
            with tempfile.TemporaryDirectory(dir=options.folder, prefix="cabrank-s3-") as folder:
                its = measure(
                    way, rate=rate / MINUTE_S, seconds=options.seconds, payloads=options.payloads, workers=workers, folder=Path(folder)
                )
            samples.append(its)
    print(markdown(table(samples)))
    if options.markdown is not None:
        write(options.markdown, samples, fsync_s, options)
    return 0 if judged(samples) else 1


if __name__ == "__main__":
    sys.exit(main())
