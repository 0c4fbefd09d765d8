"""What the head of a request may not say: what two servers might read differently is read by neither.

A request that goes the lane has nothing of it, or it would not go there; so this is asked about all others.
"""

from __future__ import annotations

from collections.abc import Sequence

from cabrank.server.access import Access
from cabrank.server.pace import HEAD_LIMIT
from cabrank.server.problems import HeadTooLarge, RequestMalformed, UnknownHost

VERSIONS = ("1.0", "1.1")

Headers = Sequence[tuple[bytes, bytes]]


def check_head(method: bytes, url: bytes, headers: Headers, *, version: str, access: Access) -> None:
    """Refuse a head that is not plainly HTTP/1.1 or 1.0.

    Raises:
        HeadTooLarge, RequestMalformed, UnknownHost: it is not. The connection is closed.
    """
    if sum([len(name) + len(value) for name, value in headers]) > HEAD_LIMIT:
        raise HeadTooLarge
    if version not in VERSIONS:
        raise RequestMalformed("this server speaks HTTP/1.1 and HTTP/1.0")
    if method == b"CONNECT":
        raise RequestMalformed("this server is no proxy")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise RequestMalformed("a request has one Host header")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and (version == "1.0" or [coding.lower() for coding in codings] != [b"chunked"]):
        raise RequestMalformed("the one Transfer-Encoding is chunked, in HTTP/1.1")
    if not url.startswith((b"/", b"*")):
        _check_absolute(url, access)


def without_upgrade(method: bytes, url: bytes, headers: Headers, *, version: str) -> bytes:
    """The same head, asking for no other protocol: none is spoken here, and to the parser all that follows would be of that protocol."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def _check_absolute(url: bytes, access: Access) -> None:
    """Refuse the URL of another server. Its host goes before that of the header."""
    scheme, _, rest = url.partition(b"://")
    if scheme.lower() != b"http" or not access.knows(rest.partition(b"/")[0]):
        raise UnknownHost("this server is not the one of this URL, and it is no proxy")
