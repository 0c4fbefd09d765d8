"""A WSGI app that opens its intake where gunicorn's master imports it: what `--preload` breaks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cabrank

app = cabrank.App()


@app.job
async def work() -> None: ...


loop = asyncio.new_event_loop()
intake = cabrank.Intake(app, store=os.environ["PRELOADED_STORE"])
loop.run_until_complete(intake.__aenter__())


def application(environ: Mapping[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
    """Submit a job, as a view would."""
    del environ
    try:
        said = loop.run_until_complete(intake.submit(work)).id
    except cabrank.CabrankError as error:
        said = f"{type(error).__name__}: {error}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [said.encode()]
