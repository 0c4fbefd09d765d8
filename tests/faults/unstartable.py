"""A program that, once a keeper has imported it, lets no new interpreter be started."""

from __future__ import annotations

import os
from multiprocessing import spawn

import cabrank
from cabrank.workers.process.place import IMPORTING

app = cabrank.App()

if IMPORTING in os.environ:
    spawn.set_executable("/nowhere/python")


@app.job(kind="process")
def nothing() -> None:
    """Never begins."""
