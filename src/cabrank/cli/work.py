"""`cabrank work`: the workers of an app without HTTP, on a store that others submit to."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence

import cabrank
from cabrank.cli.first import apart_from_first
from cabrank.cli.loading import load_app
from cabrank.cli.logs import log_to_stderr
from cabrank.cli.options import AppPlace, Config, Grace, MaxQueue, Promise, Workers
from cabrank.cli.starting import DURABLE_STORE, loop_factory, who_works, whole_life
from cabrank.cli.stopping import Stopping
from cabrank.dispatcher import Dispatcher
from cabrank.errors import DispatcherFailed, SettingError
from cabrank.events import logger
from cabrank.settings import load
from cabrank.signals import asked, heard


def work(
    app: AppPlace,
    /,
    *,
    store: str | None = None,
    workers: Workers = None,
    max_queue: MaxQueue = None,
    grace: Grace = None,
    durability: Promise = None,
    config: Config = None,
) -> None:
    """Run the jobs of an app that others submit to its store.

    It serves no port. Start as many of it as you like on one store: each takes what its own workers can start. Ctrl-C or SIGTERM
    lets what runs finish; a second one hands it back at once, for the next that comes. SIGUSR1 prints what runs and where it stands.

    For example:

        cabrank work telemetry.py:app --store sqlite:///jobs.db
        cabrank work telemetry.py:app --workers uploads=200,thread=4
        cabrank work telemetry:app --config cabrank.toml

    Each option can also be set by a variable, CABRANK_STORE, CABRANK_MAX_WORKERS, CABRANK_MAX_QUEUE, CABRANK_GRACE_S, or in a
    TOML file; `cabrank settings` lists them all.

    Parameters
    ----------
    store
        Where jobs are kept: `sqlite:///relative.db` or `sqlite:////absolute.db`. Default: `sqlite:///cabrank.db`.
    """
    given = {"store": store, "max_workers": workers, "max_queue": max_queue, "grace_s": grace, "durability": durability}
    settings = load(os.environ, config=config, otherwise={"store": DURABLE_STORE}, **given)
    apart_from_first()
    log_to_stderr()
    dispatcher = Dispatcher(load_app(app), store=settings.store, settings=settings)
    if not dispatcher.engine.store.capabilities.shared:
        raise SettingError(f"nobody else can submit to {settings.store}, so nothing would ever run: give a store such as {DURABLE_STORE}")
    if dispatcher.app.handlers and dispatcher.engine.elsewhere == dispatcher.app.handlers.keys():
        raise SettingError("with 0 workers for each queue nothing would run here: give --workers")
    try:
        with asked(dispatcher.dump), asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(whole_life(run_until_told(dispatcher, lambda: _announce(app, dispatcher))))
    except DispatcherFailed as failed:
        logger.error("what failed inside", exc_info=failed.__cause__)
        raise


async def run_until_told(dispatcher: Dispatcher, announce: Callable[[], None]) -> None:
    """Run jobs until a signal comes. `announce` is called when the workers stand ready.

    Raises:
        DispatcherFailed: something inside failed, so everything was stopped.
        StoreUnusable, StoreUnavailable, RegistrationError: it could not start.
    """
    stopping = Stopping(dispatcher)
    with heard(stopping.tell):
        async with dispatcher:
            if not stopping.told:
                announce()
            await stopping.wanted()
            await stopping.stop()


def _announce(place: str, dispatcher: Dispatcher) -> None:
    print("\n".join(_announcement(place, dispatcher)), file=sys.stderr, flush=True)


def _announcement(place: str, dispatcher: Dispatcher) -> Sequence[str]:
    """What works where, and what an acknowledgement in this store means."""
    handlers = ", ".join(dispatcher.app.handlers) or "none: register one with @app.job"
    return [
        f"cabrank {cabrank.__version__} works for {place}, process {os.getpid()}",
        f"store {dispatcher.settings.store}: what is submitted is {dispatcher.engine.store.capabilities.promise}",
        f"handlers {handlers}",
        *who_works(dispatcher),
    ]
