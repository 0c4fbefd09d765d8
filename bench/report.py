"""The figures of a run as tables: on the terminal, and as a page of the docs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench.contender import Name
from bench.figures import Row, Run, Spread, rows, spread
from bench.sample import Case
from bench.svg import bars
from bench.targets import verdicts

TITLES = {
    Name.GO: "Go original",
    Name.MEMORY: "cabrank memory",
    Name.DURABLE: "cabrank durable",
    Name.STARLETTE: "Starlette, uvicorn",
    Name.FASTAPI: "FastAPI, uvicorn",
    Name.GRANIAN: "Starlette, granian",
}
MIB = 2**20
RULE = "\n<!-- below: written by hand -->\n"
METHOD = (
    "Each round runs every contender once in each case, one after the other, on a fresh server and a fresh store; the first to "
    "run changes from round to round. Figures are medians over the rounds, with the lowest and highest; `x Go` is made within "
    "each round. CPU is the server's own, user and system, with the jobs run to their end. The handler does nothing; 100 workers, "
    "10,000 jobs may wait in the Go program, 100,000 in cabrank. Go answers 200 when the jobs are in its channel. cabrank answers "
    "202 with the ids: in memory when they are accepted, durable when they are on disk. Starlette (with msgspec) and FastAPI (with "
    "pydantic) answer 202 when the payloads are on an `asyncio.Queue` of 10,000 that 100 coroutines empty. No request was refused, and "
    "every job that cabrank acknowledged was done before its server stopped."
)


class Grid(NamedTuple):
    """One table: its first column is text, the others are figures."""

    title: str
    heads: Sequence[str]
    lines: Sequence[Sequence[str]]


def show(run: Run, console: Console) -> None:
    """Print the tables on a terminal."""
    for grid in grids(run):
        table = Table(*grid.heads, title=grid.title, title_justify="left")
        for column in table.columns[1:]:
            column.justify, column.overflow = "right", "fold"
        for line in grid.lines:
            # The range goes below its median: side by side they are wider than a terminal.
            table.add_row(*(cell.replace(" (", "\n(") for cell in line))
        console.print(table)
    for line in captions(run):
        console.print(line, highlight=False, soft_wrap=True)


def write_page(run: Run, path: Path, *, raw: str) -> None:
    """Write the tables as Markdown, with the name of the raw file that they come from."""
    parts = ["# HTTP ingest", *captions(run), METHOD]
    plots = {title: path.with_name(f"{path.stem}-{number}.svg") for number, title in enumerate(drawn(run), 1)}
    for grid in grids(run):
        picture = [f"![{grid.title}]({plots[grid.title].name})"] if grid.title in plots else []
        parts += [f"## {grid.title}", *picture, markdown(grid)]
    parts.append(f"Taken by `make bench` at commit `{run.machine.commit}`; raw figures: `{raw}`.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    for title, plot in drawn(run).items():
        plots[title].write_text(plot, encoding="utf-8")


def put(page: Path, text: str) -> None:
    """Write a page; what people wrote on it below its rule stays."""
    kept = page.read_text(encoding="utf-8").partition(RULE)[2] if page.exists() else ""
    page.write_text(f"{text}\n{RULE}{kept}", encoding="utf-8")


def drawn(run: Run) -> dict[str, str]:
    """A plot of each case, by the title of its table."""
    found = list(rows(run.samples))
    return {
        titled(case): bars(
            f"payloads/s, {titled(case)}", {TITLES[row.contender]: row.payloads_per_s.median for row in found if row.case == case}
        )
        for case in dict.fromkeys(row.case for row in found)
    }


def titled(case: Case) -> str:
    documents = "1 payload" if case.payloads == 1 else f"{case.payloads} payloads"
    return f"{documents} a document, {case.connections} connections"


def markdown(grid: Grid) -> str:
    rule = ["---", *("---:" for _ in grid.heads[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (grid.heads, rule, *grid.lines))


def captions(run: Run) -> Iterator[str]:
    fsync = spread(seconds * 1e3 for seconds in run.fsync_p50_s)
    versions = ", ".join(f"{name} {version}" for name, version in run.machine.packages.items())
    yield run.machine.caption
    yield f"{versions}. fsync p50 (4 KiB append, fdatasync): {ranged(fsync, '.2f')} ms."
    busy = f"{run.machine.load_average:.1f}"
    yield f"{len(run.fsync_p50_s)} rounds of {run.seconds} s a case; the machine's load average before the first was {busy}."


def grids(run: Run) -> Iterator[Grid]:
    found = list(rows(run.samples))
    heads = ("server", "requests/s", "payloads/s", "x Go", "p50 ms", "p99 ms", "CPU µs/request", "peak MiB")
    for case in dict.fromkeys(row.case for row in found):
        lines = [figures(row) for row in found if row.case == case]
        yield Grid(titled(case), heads, lines)
    judged = [
        (TITLES[verdict.contender], f"{verdict.case.payloads} / {verdict.case.connections}", verdict.asked, verdict.reached, verdict.met)
        for verdict in verdicts(found)
    ]
    if judged:
        yield Grid("Targets", ("server", "payloads / connections", "asked", "reached", "met"), judged)


def figures(row: Row) -> Sequence[str]:
    memory = Spread(median=row.peak_memory.median / MIB, low=row.peak_memory.low / MIB, high=row.peak_memory.high / MIB)
    return (
        TITLES[row.contender],
        ranged(row.requests_per_s, ",.0f"),
        ranged(row.payloads_per_s, ",.0f"),
        "-" if row.against_go is None else ranged(row.against_go, ".2f"),
        ranged(row.p50_ms, ".2f"),
        ranged(row.p99_ms, ".2f"),
        ranged(row.cpu_us, ".1f"),
        ranged(memory, ".0f"),
    )


def ranged(figure: Spread, form: str) -> str:
    return f"{figure.median:{form}} ({figure.low:{form}}-{figure.high:{form}})"
