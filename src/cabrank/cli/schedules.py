"""`cabrank schedules`: what runs by itself, and when next."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import msgspec
from rich.console import Console
from rich.table import Table

from cabrank.cli.loading import load_app
from cabrank.cli.options import AppPlace, Json
from cabrank.clock import SystemClock
from cabrank.schedules import Schedule

SHOWN = 3  # of the next ticks: enough to see what an expression means


def schedules(app: AppPlace, /, *, json: Json = False) -> None:
    """Show the schedules of an app and when each ticks next, in its own time zone.

    For example:

        cabrank schedules reports.py:app
    """
    now = SystemClock.now()
    table = Table("schedule", "handler", "when", "missed", "next")
    found = load_app(app).schedules
    for schedule in found.values():
        ticks = [datetime.fromtimestamp(tick, schedule.zone) for tick in islice(schedule.ticks(now), SHOWN)]
        if json:
            print(_line(schedule, ticks))
        table.add_row(
            schedule.name,
            schedule.handler,
            schedule.spec,
            schedule.missed,
            ", ".join(f"{tick:%a %Y-%m-%d %H:%M:%S %Z}" for tick in ticks),
        )
    if not json and found:
        Console().print(table)
    elif not json:
        print(f"{app} has no schedules: @app.schedule above a handler makes one")


def _line(schedule: Schedule, ticks: list[datetime]) -> str:
    shown = {"name": schedule.name, "handler": schedule.handler, "when": schedule.spec, "missed": schedule.missed, "next": ticks}
    return msgspec.json.encode(shown).decode()
