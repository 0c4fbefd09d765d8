"""What runs in this process, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cabrank.dispatcher import Dispatcher
from cabrank.running import RunningJob
from cabrank.server.parameters import Nothing, parameters_of
from cabrank.server.responses import json_response


class RunningView(msgspec.Struct, frozen=True):
    """`GET /running`: what the process that answers runs; others on its store answer for themselves."""

    jobs: Sequence[RunningJob]


class RunningDesk:
    """The endpoint of what runs."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def browse(self, request: Request) -> Response:
        """`GET /running`."""
        parameters_of(request, Nothing)
        return json_response(RunningView(self._dispatcher.running()))
