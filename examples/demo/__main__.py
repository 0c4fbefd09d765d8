"""`python -m examples.demo`: one run, its table, and exit status 0 only if nothing was lost and nothing invented."""

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console

from examples.demo.burst import Burst
from examples.demo.failure import DemoFailed
from examples.demo.figures import Figures, derive, table
from examples.demo.flights import ALL_FLIGHTS, group, read_payloads
from examples.demo.plan import Plan, even_points, random_points
from examples.demo.scratch import Scratch, open_scratch, shown
from examples.demo.target import open_target
from examples.demo.verdict import compare

SIGNALLED = 128  # plus the number of the signal is the exit status, as shells count


def main() -> int:
    """Carry out what the command line asks for and return the exit status."""
    console = Console()
    try:
        plan = _plan(sys.argv[1:])
        console.print(f"emptying var/{plan.name}")
        with open_scratch(plan.name, flights=plan.flights) as scratch:
            figures = _show(plan, scratch, console)
    except DemoFailed as failure:
        Console(stderr=True).print(f"demo: {failure}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT
    except asyncio.CancelledError:
        return SIGNALLED + signal.SIGTERM
    return 0 if figures.passed else 1


def _show(plan: Plan, scratch: Scratch, console: Console) -> Figures:
    console.print(f"reading {plan.flights:,} flights")
    documents = list(group(read_payloads(plan.flights)))
    with open_target(plan, scratch) as target:
        console.print(f"the payloads go to {target.place}", soft_wrap=True)
        record = asyncio.run(Burst(scratch, target, documents, plan.kill_points).run(console))
        with console.status("reading every object back"):
            verdict = compare(read_payloads(plan.flights), record.acknowledged, target.bucket)
    figures = derive(documents, record, verdict, timed=target.counted is not None)
    scratch.figures.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))
    console.print(table(figures))
    console.print("Nothing was lost." if figures.passed else "NOT as promised: see the table.", f"Kept: {shown(scratch.folder)}")
    return figures


def _plan(arguments: Sequence[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--flights", type=_flights, default=os.environ.get("FLIGHTS") or str(ALL_FLIGHTS), help="how many")
    parser.add_argument("--kills", type=int, choices=range(10), default=2, help="SIGKILLs; 2: at 1/3 and 2/3 acknowledged")
    seed = os.environ.get("KILL_SEED") or None
    parser.add_argument("--seed", type=int, default=seed, help="draws the kill points, anywhere in the run")
    parser.add_argument("--name", type=_name, default="demo", help="the folder under var/ that is emptied and used")
    parser.add_argument("--pack", action="store_true", default=bool(os.environ.get("PACK")), help="many payloads in one object, on S3")
    bucket = os.environ.get("BUCKET") or ""
    parser.add_argument(
        "--bucket", type=_bucket, default=bucket, help="s3://name, reached as AWS_ENDPOINT and others say; a new folder in it"
    )
    chosen = parser.parse_args(arguments)
    points = even_points(chosen.kills) if chosen.seed is None else random_points(chosen.kills, seed=chosen.seed)
    return Plan(flights=chosen.flights, kill_points=points, name=chosen.name, packed=chosen.pack, bucket=chosen.bucket)


def _flights(text: str) -> int:
    flights = int(text.replace(",", "").replace("_", ""))
    if not 1 <= flights <= ALL_FLIGHTS:
        raise argparse.ArgumentTypeError(f"there are 1 to {ALL_FLIGHTS:,} flights, not {text}")
    return flights


def _bucket(text: str) -> str:
    if text and not text.startswith("s3://"):
        raise argparse.ArgumentTypeError(f"a bucket is s3://name, not {text}")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", text):
        raise argparse.ArgumentTypeError("a name is of small letters, digits and dashes")
    return text


if __name__ == "__main__":
    sys.exit(main())
