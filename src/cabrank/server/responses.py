"""From an `Answer`, or something to say as JSON, to a response of the ordinary way."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from cabrank.server.problems import JSON, Answer

NOSNIFF = {"x-content-type-options": "nosniff"}  # what somebody put into a name or an error is never taken for a page


def json_response(content: object) -> Response:
    """200 with `content` as JSON."""
    return Response(msgspec.json.encode(content), headers=NOSNIFF, media_type=JSON.decode())


def response_of(answer: Answer, *, closes: bool = False) -> Response:
    """The response that says `answer`. `closes`: the connection ends behind it."""
    headers = NOSNIFF | ({"retry-after": str(answer.retry_after_s)} if answer.retry_after_s else {})
    if closes:
        headers["connection"] = "close"
    return Response(answer.body, answer.status, headers, answer.media.decode())
