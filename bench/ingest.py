"""HTTP ingest: the Go original, cabrank in memory and durable, endpoints that fill an asyncio.Queue; round by round in one run."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from bench.contender import ROOT, Contender, Name, contender
from bench.disk import fsync_p50_s
from bench.errors import BenchError, ToolMissing
from bench.figures import Run
from bench.machine import this_machine
from bench.report import show, write_page
from bench.sample import RUNNING, Case, Sample, measure
from bench.wrk import find_wrk

SCRATCH = ROOT / "var" / "bench"
PAGE_WIDTH = 140  # columns, where the output is no terminal
STATUS_NOT_CLEAN, STATUS_TOOL_MISSING = 1, 2


class Options(msgspec.Struct, frozen=True, kw_only=True):
    rounds: int
    seconds: int
    payloads: Sequence[int]
    connections: Sequence[int]
    contenders: Sequence[Name]
    markdown: Path | None

    @property
    def cases(self) -> Sequence[Case]:
        return [Case(payloads=payloads, connections=connections) for payloads in self.payloads for connections in self.connections]


def main() -> int:
    """Exit status 0: every figure counts; 1: a round was not clean; 2: something that the measurement needs is missing."""
    console = Console() if sys.stdout.isatty() else Console(width=PAGE_WIDTH)
    try:
        run_and_report(parse(sys.argv[1:]), console)
    except ToolMissing as missing:
        console.print(str(missing), style="red", highlight=False, soft_wrap=True)
        return STATUS_TOOL_MISSING
    except BenchError as failed:
        console.print(f"{failed}\nThe server's log is in {SCRATCH / RUNNING}.", style="red", highlight=False, markup=False, soft_wrap=True)
        return STATUS_NOT_CLEAN
    return 0


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often every contender runs every case")
    parser.add_argument("--seconds", type=int, default=3, help="how long one measurement loads a server")
    parser.add_argument("--payloads", type=numbers, default="1,10", help="payloads a document")
    parser.add_argument("--connections", type=numbers, default="64,256", help="connections that are kept alive")
    parser.add_argument("--contenders", type=names, default=",".join(Name), help=f"who takes part: {', '.join(Name)}")
    parser.add_argument("--markdown", type=Path, default=None, help="write the tables to this page as well")
    return msgspec.convert(vars(parser.parse_args(arguments)), Options)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[Name]:
    return [Name(part) for part in text.split(",")]


def run_and_report(options: Options, console: Console) -> None:
    if sys.platform != "linux":
        raise ToolMissing("the measurement reads CPU and memory from /proc: it runs on Linux only")
    find_wrk()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    contenders = [contender(name, scratch=SCRATCH) for name in options.contenders]
    machine = this_machine()
    raw = SCRATCH / time.strftime("ingest-%Y-%m-%d-%H%M%S.json", time.localtime(machine.started_at))
    run = Run(machine=machine, seconds=options.seconds, fsync_p50_s=[], samples=[])
    for number in range(1, options.rounds + 1):
        fsync = fsync_p50_s(SCRATCH)
        samples = list(one_round(number, contenders, options, console))
        run = msgspec.structs.replace(run, fsync_p50_s=[*run.fsync_p50_s, fsync], samples=[*run.samples, *samples])
        # After each round: a later one that is not clean ends the run, and should not take these figures along.
        raw.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    show(run, console)
    console.print(f"raw figures: {raw.relative_to(ROOT)}", highlight=False)
    if options.markdown is not None:
        write_page(run, options.markdown, raw=str(raw.relative_to(ROOT)))


def one_round(number: int, contenders: Sequence[Contender], options: Options, console: Console) -> Iterator[Sample]:
    # Whoever runs first finds the machine as the last case left it, so the first place goes round.
    first = number % len(contenders)
    for case in options.cases:
        for taking_part in (*contenders[first:], *contenders[:first]):
            sample = measure(taking_part, case, number=number, seconds=options.seconds, scratch=SCRATCH)
            console.print(progress(sample), highlight=False, soft_wrap=True)
            yield sample


def progress(sample: Sample) -> str:
    drained = "" if sample.drain is None else f", {sample.drain.acknowledged:,} jobs acknowledged, {sample.drain.done:,} done"
    return (
        f"round {sample.round}: {sample.contender}, {sample.case.payloads} payload(s), {sample.case.connections} connections: "
        f"{sample.load.requests_per_s:,.0f} requests/s, p99 {sample.load.p99_ms:.2f} ms, {sample.cpu_us:.1f} µs CPU a request{drained}"
    )


if __name__ == "__main__":
    sys.exit(main())
