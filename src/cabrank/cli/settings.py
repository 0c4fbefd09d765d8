"""`cabrank settings`: every setting with its value here, where that comes from, and the reason for its default."""

from __future__ import annotations

import os

import msgspec
from rich.console import Console
from rich.table import Table

from cabrank.cli.options import Config, Json
from cabrank.settings import Settings, load, reasons, sources

BY_QUEUE = {"max_workers", "max_queue", "max_queue_bytes"}  # their defaults depend on the queue or the store; what else is None is no bound


def settings(*, config: Config = None, json: Json = False) -> None:
    """Show every setting: its value here, where it comes from, and why the default is what it is.

    Any of them is set by a keyword in Python, by the variable `CABRANK_<NAME>`, or in a TOML file that `--config` or
    CABRANK_CONFIG names; the first of these that says something counts.

    For example:

        cabrank settings
        CABRANK_GRACE_S=5 cabrank settings --config cabrank.toml
    """
    values = msgspec.structs.asdict(load(os.environ, config=config))
    if json:
        print(msgspec.json.encode(values).decode())
        return
    made = sources(os.environ, config=config)
    table = Table("setting", "value", "from", "why")
    standard = msgspec.structs.asdict(Settings())
    for name, reason in reasons().items():
        value = str(values[name]) if values[name] is not None else "by queue" if name in BY_QUEUE else "none"
        place = made[name].place if name in made else "default"
        table.add_row(name, value if values[name] == standard[name] else f"[bold]{value}[/bold]", place, reason)
    Console().print(table)
