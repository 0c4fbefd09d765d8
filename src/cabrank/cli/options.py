"""The options that several commands have, each with its help, said once."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cabrank.settings import Durability

AppPlace = Annotated[str, Parameter(help="Where the app is: `telemetry:app` or `path/to/telemetry.py:app`.")]
Config = Annotated[str | None, Parameter(help="A TOML file of settings, such as `grace_s = 10`. Options and variables go before it.")]
Json = Annotated[bool, Parameter(negative="", help="For programs: one JSON object for each, a line each.")]

# Of the commands that look into a store.
Store = Annotated[
    str | None,
    Parameter(
        help="Where the jobs are: `sqlite:///relative.db` or `sqlite:////absolute.db`. Default: CABRANK_STORE, else `sqlite:///cabrank.db`."
    ),
]
Queue = Annotated[str, Parameter(help="Only jobs of this queue.", show_default=False)]
Handler = Annotated[str, Parameter(help="Only jobs of this handler.", show_default=False)]
Ids = Annotated[str, Parameter(help="One or more ids, as `cabrank jobs list` shows them.")]
IdsOrFilter = Annotated[str, Parameter(help="One or more ids; or a filter instead: `--state`, `--queue`, `--handler`.")]
Queues = Annotated[str, Parameter(help="One or more queues, as `cabrank queues list` shows them.")]

# Of the commands that work.
Workers = Annotated[
    str | None,
    Parameter(
        help="How many jobs run at once in each queue: `8`, or by queue, `uploads=200,thread=4`; `4-64` sizes itself; with `0` others run "
        "the jobs. Default: 100 for coroutines, min(32, cores + 4) for threads, cores for processes."
    ),
]
MaxQueue = Annotated[
    str | None,
    Parameter(help="How many jobs may wait in each queue, written as for `--workers`. Default: 10,000 in memory, 10 million in a store."),
]
Grace = Annotated[float | None, Parameter(help="Seconds that running jobs get to finish at a stop. Default: 25.")]
Promise = Annotated[
    Durability | None,
    Parameter(
        help="What an acknowledgement by a file survives: `disk`, a power loss too, or `process`, the process only, which is much "
        "quicker where few submit at a time. Default: `disk`."
    ),
]
