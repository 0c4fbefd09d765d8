"""`GET /docs`: the page that shows `/openapi.json` to people. Its assets come from a package, nothing from elsewhere.

They are a fixed table: no path is ever made of what a request says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

PACKAGE = "drf_spectacular_sidecar"  # a monthly copy of the files that Swagger UI publishes; none of its Python is run
HOW = "this page needs its assets: pip install 'cabrank[docs]'"
PATHS = ("/docs", "/docs/start.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js")

# Nothing but what this server serves, and no script in the page itself.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Asset(msgspec.Struct, frozen=True):
    """A file of the page."""

    path: Path
    media: str


def routes() -> Sequence[Route]:
    """The page and its files."""
    assets = _assets()
    return [Route(path, partial(_serve, assets.get(path)), methods=["GET"]) for path in PATHS]


async def _serve(asset: Asset | None, request: Request) -> Response:
    del request
    if asset is None:
        raise HTTPException(404, HOW)
    return FileResponse(asset.path, headers=HEADERS, media_type=asset.media)


def _assets() -> Mapping[str, Asset]:
    """The files by their paths; none if the package is not installed."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return {}
    ours = Path(__file__).parent / "static"
    theirs = Path(found.submodule_search_locations[0]) / "static" / PACKAGE / "swagger-ui-dist"
    page, start, style, bundle = PATHS
    return {
        page: Asset(ours / "docs.html", "text/html"),
        start: Asset(ours / "start.js", "text/javascript"),
        style: Asset(theirs / "swagger-ui.css", "text/css"),
        bundle: Asset(theirs / "swagger-ui-bundle.js", "text/javascript"),
    }
