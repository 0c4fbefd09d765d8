"""`cabrank serve`: an app's handlers and document routes over HTTP, with the workers that run the jobs."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import cabrank
from cabrank.cli.first import apart_from_first
from cabrank.cli.loading import load_app
from cabrank.cli.logs import log_to_stderr
from cabrank.cli.options import AppPlace, Config, Grace, MaxQueue, Promise, Workers
from cabrank.cli.starting import DURABLE_STORE, loop_factory, who_works, whole_life
from cabrank.dispatcher import Dispatcher
from cabrank.errors import DispatcherFailed
from cabrank.events import logger
from cabrank.server import life
from cabrank.server.access import Access, read_tokens
from cabrank.server.listening import bind
from cabrank.settings import load
from cabrank.signals import asked

FULL_AFTER = 100  # smaller collections, before the garbage collector goes through everything: requests wait meanwhile; Python's own is 10


def serve(
    app: AppPlace,
    /,
    *,
    store: str | None = None,
    host: str | None = None,
    port: int | None = None,
    workers: Workers = None,
    max_queue: MaxQueue = None,
    grace: Grace = None,
    durability: Promise = None,
    config: Config = None,
) -> None:
    """Serve an app over HTTP and run its jobs.

    Every handler takes jobs at `POST /jobs/{handler}`, every document route at its own path. A 202 comes after the jobs are
    committed. Ctrl-C or SIGTERM lets what runs finish; a second one hands it back at once. SIGUSR1 prints what runs and where it
    stands; so does GET /running.

    Each option can also be set by a variable: CABRANK_STORE, CABRANK_HOST, CABRANK_PORT, CABRANK_MAX_WORKERS,
    CABRANK_MAX_QUEUE, CABRANK_GRACE_S, or in a TOML file; `cabrank settings` lists them all.

    Parameters
    ----------
    store
        Where jobs are kept: `memory://`, `sqlite:///relative.db` or `sqlite:////absolute.db`. Default: `sqlite:///cabrank.db`.
    host
        The address to serve. Default: 127.0.0.1. One that other machines reach needs a token, in the variable CABRANK_TOKEN or
        in a file that CABRANK_TOKEN_FILE names; clients send it as `Authorization: Bearer …`.
    port
        The port to serve; 0 takes a free one. Default: 8470.
    """
    given = {
        "store": store,
        "host": host,
        "port": port,
        "max_workers": workers,
        "max_queue": max_queue,
        "grace_s": grace,
        "durability": durability,
    }
    settings = load(os.environ, config=config, otherwise={"store": DURABLE_STORE}, **given)
    names = [name.strip() for name in f"{settings.host},{settings.hosts}".split(",") if name.strip()]
    access = Access(read_tokens(os.environ, settings.token_file), names)
    apart_from_first()
    with ExitStack() as stack:
        sockets = [stack.enter_context(bound) for bound in bind(settings.host, settings.port, access)]
        log_to_stderr()
        dispatcher = Dispatcher(load_app(app), store=settings.store, settings=settings)
        announce = partial(_announce, app, dispatcher, sockets)
        try:
            with asked(dispatcher.dump), asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(whole_life(life.serve(dispatcher, sockets, announce, access)))
        except DispatcherFailed as failed:
            logger.error("what failed inside", exc_info=failed.__cause__)
            raise


def _announce(place: str, dispatcher: Dispatcher, sockets: Sequence[socket.socket]) -> None:
    """Say what is served where, what an acknowledgement means, and who works."""
    gc.collect()
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, max(old, FULL_AFTER))
    gc.freeze()  # what is here stays: whoever looks for cycles later need not go through it again, while requests wait
    print("\n".join(_announcement(place, dispatcher, [_url(bound) for bound in sockets])), file=sys.stderr, flush=True)


def _announcement(place: str, dispatcher: Dispatcher, urls: Sequence[str]) -> Sequence[str]:
    app, settings = dispatcher.app, dispatcher.settings
    routes = [(f"POST {path}", "a document: all its jobs are stored, or none") for path in app.documents]
    routes += [(f"POST /jobs/{handler.name}", f"one job, to queue {handler.queue}") for handler in app.handlers.values()]
    routes += [("GET /jobs/{id}", "what became of a job"), ("GET /healthz /readyz /metrics", "how the server is")]
    width = max(len(route) for route, _ in routes)
    return [
        f"cabrank {cabrank.__version__} serves {place} on {' and '.join(urls)}",
        *(f"  {route:<{width}}  {what}" for route, what in routes),
        f"store {settings.store}: a 202 means {dispatcher.engine.store.capabilities.promise}",
        *who_works(dispatcher),
    ]


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
