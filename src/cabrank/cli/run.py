"""`cabrank run`: a handler over all items of a file, once each, however often it is interrupted."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console

from cabrank.app import App
from cabrank.cli.bulk import Bulk
from cabrank.cli.items import STDIN, Format, Source, format_of
from cabrank.cli.journal import Journal, Record, RunUnusable, Target, head_before
from cabrank.cli.loading import load_handler
from cabrank.cli.logs import log_to_stderr
from cabrank.cli.options import Config
from cabrank.cli.progress import Progress
from cabrank.cli.starting import loop_factory
from cabrank.cli.stopping import Stopping
from cabrank.dispatcher import Dispatcher
from cabrank.errors import DispatcherFailed, SettingError
from cabrank.events import logger
from cabrank.handler import AnyHandler, Handler
from cabrank.policy import Retry
from cabrank.settings import GIB, Settings, load
from cabrank.signals import asked, heard

RETRY = Retry(attempts=3, cap_s=30.0)  # somebody waits for the end: what fails three times is looked at by a person sooner
FOR_EVER_S = 100 * 365 * 86_400.0  # what a run needs for going on is not forgotten
KEPT_JOBS = 500_000  # of the results in the store: many times what may not be written yet


def run_items(
    handler: str,
    items: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    store: str | None = None,
    workers: str | None = None,
    format: Literal["ndjson", "csv", "lines"] | None = None,  # noqa: A002 -- what the option is called
    output: str | None = None,
    order: Literal["input", "completed"] = "input",
    attempts: int | None = None,
    kind: Literal["thread", "process"] | None = None,
    grace: float | None = None,
    config: Config = None,
) -> int:
    """Run a handler over every item of a file, through a bounded pool of workers.

    Interrupt it in any way (Ctrl-C, SIGTERM, kill -9, power) and give the same command again: it goes on where it stopped. Each item
    has one result in the output or one failure in the failures file, and none is run again that was settled.

    For example:

        cabrank run fetch.py:fetch urls.txt --store run.db --workers 100
        cabrank run fetch.py:fetch urls.failures.txt --store again.db
        zcat items.ndjson.gz | cabrank run upload.py:upload - --store run.db --order completed

    The results are NDJSON lines `{"line": 3, "result": …}`. What failed (also a line that is not what the handler takes) stands in
    the failures file as it stood in the input, so that it can be fed in again, and why in the errors file. The exit status is 0 if
    every item has a result, 1 if some failed, 130 if it was interrupted. SIGUSR1 prints what runs and where it stands.

    Parameters
    ----------
    handler
        A function or a handler: `path/to/file.py:name` or `module:name`. A handler's own policy is kept.
    items
        The file with the items, or - for stdin, which must be the same again when the run goes on.
    store
        The file that keeps the run: `run.db`, or `sqlite:////absolute/run.db`. Default: beside the input, `items.ndjson.run.db`.
    workers
        How many items are worked on at once. Default: 100 for coroutines, min(32, cores + 4) for threads, cores for processes.
    format
        `ndjson`: one JSON value a line. `csv`: the first line names the columns. `lines`: each line is a text. Default: by the name.
    output
        The file for the results; failures and errors stand beside it. Default: `items.results.ndjson`.
    order
        `input`: results in the order of the items. `completed`: each as soon as it is there, so that a slow one holds up no other.
    attempts
        How often an item is tried. Default: what the handler says, else 3, at most 30 s apart.
    kind
        For a plain function: `thread` (the default) or `process`, for work that needs a CPU.
    grace
        Seconds that running items get to finish at Ctrl-C. Default: 25. A second Ctrl-C stops at once.
    """
    prepared = _prepared(load_handler(handler), attempts, kind)
    settings = _settings(store or _beside(items), workers, grace, config)
    form = format_of(items, None if format is None else Format(format))
    place = Path(settings.store.removeprefix("sqlite:///"))
    with closing(Source(items, form, prepared)) as source:
        target = _target(prepared, form, order, items, output, source, place)
        with closing(Journal(place, target)) as journal:
            app = App()
            app.handlers[prepared.name], app.queues[prepared.queue] = prepared, prepared.kind
            dispatcher = Dispatcher(app, settings=settings)
            try:
                with asked(dispatcher.dump), asyncio.Runner(loop_factory=loop_factory()) as runner:
                    complete = runner.run(_run(dispatcher, prepared, journal, source, ordered=order == "input"))
            except DispatcherFailed as failed:
                logger.error("what failed inside", exc_info=failed.__cause__)
                raise
            return _tell(journal.record, complete=complete)


async def _run(dispatcher: Dispatcher, handler: AnyHandler, journal: Journal, source: Source, *, ordered: bool) -> bool:
    """Whether it came to the end."""
    stopping = Stopping(dispatcher)
    journal.head_with(source.header)
    bulk = Bulk(dispatcher, handler, journal, ordered=ordered)

    def tell() -> None:
        stopping.tell()
        bulk.wake()

    with heard(tell):
        async with dispatcher:
            with Progress(source.size) as progress:
                log_to_stderr()

                def show() -> None:
                    progress.show(bulk.offset, bulk.done, bulk.failed)

                show()
                complete = await bulk.run(source.chunks(journal.record.start), lambda: stopping.told, show)
                await stopping.stop()
                await bulk.write()
                return complete


def _prepared(found: AnyHandler | Callable[..., object], attempts: int | None, kind: str | None) -> AnyHandler:
    """The handler as this run uses it."""
    if isinstance(found, Handler):
        if kind is not None:
            raise SettingError(f"--kind is for a plain function: {found.name} says itself that its kind is {found.kind}")
        handler: AnyHandler = found  # pyright: ignore[reportUnknownVariableType] -- isinstance cannot tell the parameters
    else:
        name = getattr(found, "__name__", type(found).__name__)
        handler = App().job(name=name, kind=kind)(found)
    retry = RETRY if handler.retry == Retry() else handler.retry
    prepared = copy(handler)
    prepared.retry = retry if attempts is None else msgspec.structs.replace(retry, attempts=attempts)
    return prepared


def _settings(store: str, workers: str | None, grace: float | None, config: str | None) -> Settings:
    """The settings of a run: nothing of it is forgotten before it is written."""
    url = store if "://" in store else f"sqlite:///{store}"
    if not url.startswith("sqlite:///"):
        raise SettingError(f"a run goes on after an interruption, so it needs a file: give --store run.db, not {store}")
    settings = load(os.environ, config=config, store=url, max_workers=workers, grace_s=grace)
    if settings.max_workers == 0:
        raise SettingError("with 0 workers nothing would run: give --workers of at least 1")
    return msgspec.structs.replace(
        settings,
        receipts_s=FOR_EVER_S,
        receipts=10**9,
        keep_done_s=FOR_EVER_S,
        keep_done_jobs=KEPT_JOBS,
        keep_done_bytes=1024 * GIB,
        keep_dead_s=FOR_EVER_S,
    )


def _beside(items: str) -> str:
    if items == STDIN:
        raise SettingError("give --store run.db: stdin has no name that a run could be kept under")
    return f"{items}.run.db"


def _target(handler: AnyHandler, form: Format, order: str, items: str, output: str | None, source: Source, store: Path) -> Target:
    name = Path("items" if items == STDIN else items)
    stem = name.with_suffix("") if output is None else Path(output).with_suffix("")
    stem = stem.with_suffix("") if output is not None and stem.suffix == ".results" else stem
    suffix = {Format.NDJSON: ".ndjson", Format.CSV: ".csv", Format.LINES: name.suffix or ".txt"}[form]
    results = str(stem) + ".results.ndjson" if output is None else output
    failures, errors = f"{stem}.failures{suffix}", f"{stem}.errors.ndjson"
    if items in {results, failures, errors}:
        raise RunUnusable(f"{items} is the input, and would be written over: give another --output")
    head = source.head(head_before(store))
    return Target(handler=handler.name, format=form, order=order, results=results, failures=failures, errors=errors, head=head)


def _tell(record: Record, *, complete: bool) -> int:
    """The summary, and the exit status that goes with it."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    items, target = record.done + record.failed, record.target
    rate = f" ({items / record.spent_s:,.0f}/s)" if record.spent_s > 0 else ""
    begun = f", {record.starts} starts" if record.starts > 1 else ""
    word = "finished" if complete else "interrupted"
    console.print(f"{word}: {record.done:,} done, {record.failed:,} failed, in {record.spent_s:,.1f} s{rate}{begun}")
    console.print(f"results   {target.results}")
    if record.failed:
        console.print(f"failures  {target.failures}, to be fed in again with another --store")
        console.print(f"errors    {target.errors}")
    if not complete:
        console.print("give the same command again, and it goes on")
        raise KeyboardInterrupt
    sys.stderr.flush()
    return 1 if record.failed else 0
