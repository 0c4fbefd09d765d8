"""Who may ask: whoever knows a token, if there is one, under a name that is this server's. Both ways in ask here.

A web page reaches loopback through the user's browser, under a name of its own that it lets point there (DNS rebinding): so names are
checked. An address cannot be pointed elsewhere, so any address will do.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Collection, MutableMapping, Sequence
from hmac import compare_digest
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from cabrank.errors import CabrankError, SettingError
from cabrank.server.problems import ExpectationFailed, Unauthorized, UnknownHost, answer_to
from cabrank.server.responses import response_of

TOKEN_VARIABLE = "CABRANK_TOKEN"  # noqa: S105 -- the name of the variable
SHORTEST_TOKEN = 22  # characters: 128 random bits in base64
FREE_PATHS = frozenset({"/healthz", "/docs", "/docs/start.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"})
"""They say nothing of the app: whoever watches over the process has no token, and the page has to load before it can ask for one."""
REMEMBERED_HOSTS = 256


class Access:
    """The tokens, of which any will do, and the names by which the server may be called beside `localhost` and addresses."""

    def __init__(self, tokens: Sequence[str] = (), hosts: Collection[str] = ()) -> None:
        self._expected = [b"Bearer " + token.encode() for token in tokens]
        self._names = frozenset({"localhost", *(name.lower() for name in hosts)})
        self._hosts: set[bytes] = set()  # as they came, and found good

    @property
    def asks(self) -> bool:
        """Whether there is a token to know."""
        return bool(self._expected)

    def admits(self, authorization: bytes) -> bool:
        """Whether an Authorization header has one of the tokens. Takes as long for a wrong one as for a right one."""
        if not self._expected:
            return True
        scheme, _, token = authorization.partition(b" ")
        said = b"Bearer " + token.strip() if scheme.lower() == b"bearer" else authorization
        return sum(compare_digest(said, expected) for expected in self._expected) > 0  # all are looked at, whichever it is

    def knows(self, host: bytes) -> bool:
        """Whether a Host header names this server."""
        if host in self._hosts:
            return True
        known = bool(host) and ("*" in self._names or self._is_name(host.decode("latin-1")))
        if known and len(self._hosts) < REMEMBERED_HOSTS:
            self._hosts.add(host)
        return known

    def check(self, path: str, *, host: bytes | None, authorization: bytes, expect: bytes) -> None:
        """Refuse a request that may not be answered.

        Raises:
            UnknownHost, Unauthorized, ExpectationFailed: it may not.
        """
        if host is not None and not self.knows(host):
            raise UnknownHost(
                f"this server is not called {host[:128].decode('latin-1')!r}: use localhost or an address, or name it in CABRANK_HOSTS"
            )
        if path not in FREE_PATHS and not self.admits(authorization):
            raise Unauthorized
        if expect and expect.lower() != b"100-continue":
            raise ExpectationFailed

    def _is_name(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if host.count(":") == 1 or (host.startswith("[") and not host.endswith("]")) else host
        name = name.strip("[]").rstrip(".").lower()
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """An ASGI application behind an `Access`: what may not be answered does not reach it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then let through. Nothing of the body is read before."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields: dict[bytes, bytes] = dict(scope["headers"])
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
        try:
            self._access.check(
                path, host=fields.get(b"host"), authorization=fields.get(b"authorization", b""), expect=fields.get(b"expect", b"")
            )
        except CabrankError as error:
            response = response_of(answer_to(error))
            if isinstance(error, Unauthorized):
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def read_tokens(environ: MutableMapping[str, str], file: str) -> Sequence[str]:
    """The tokens out of `CABRANK_TOKEN`, which is taken out of `environ` so that no child inherits it, and out of a file, one a line.

    Raises:
        SettingError: a token is too short, or others may read the file. The message never has a token in it.
    """
    said = environ.pop(TOKEN_VARIABLE, "")
    tokens = [(TOKEN_VARIABLE, said)] if said else []
    if file:
        tokens += [(file, line.strip()) for line in _private(Path(file)).splitlines() if line.strip()]
        if not tokens:
            raise SettingError(f"token_file={file!r} has no token in it: write one a line")
    for place, token in tokens:
        if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
            raise SettingError(
                f"{place}: a token has at least {SHORTEST_TOKEN} printable ASCII characters without spaces: make one with "
                "`python -c 'import secrets; print(secrets.token_urlsafe())'`"
            )
    return [token for _, token in tokens]


def _private(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as opened:
            if os.fstat(opened.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise SettingError(f"token_file={str(path)!r} can be read by others: chmod 600 {path}")
            return opened.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"token_file={str(path)!r} cannot be read: {error}") from None
