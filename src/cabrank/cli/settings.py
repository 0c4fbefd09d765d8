"""`cabrank settings`: every setting with its value here, and the reason for its default."""

from __future__ import annotations

import os

import msgspec
from rich.console import Console
from rich.table import Table

from cabrank.settings import Settings, load, reasons


def settings(*, json: bool = False) -> None:
    """Show every setting: its value with the environment of this shell, and why the default is what it is.

    Any of them is set by a keyword in Python, or by the variable `CABRANK_<NAME>`.

    Parameters
    ----------
    json
        For programs: one JSON object of names and values.
    """
    values = msgspec.structs.asdict(load(os.environ))
    if json:
        print(msgspec.json.encode(values).decode())
        return
    table = Table("setting", "value", "why")
    standard = msgspec.structs.asdict(Settings())
    for name, reason in reasons().items():
        value = "by queue" if values[name] is None else str(values[name])
        table.add_row(name, value if values[name] == standard[name] else f"[bold]{value}[/bold] (set)", reason)
    Console().print(table)
