"""The sockets that are served: on loopback, or anywhere if a token is asked for; and taken before anything is opened."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence

from cabrank.errors import SettingError
from cabrank.server.access import TOKEN_VARIABLE, Access

LAST_PORT = 65535


def bind(host: str, port: int, access: Access | None = None) -> Sequence[socket.socket]:
    """Sockets bound to every address that `host` stands for, not listening yet. Port 0 takes one that is free.

    Raises:
        SettingError: the host is unknown, or not on loopback though `access` asks for no token; or the port is in use or not allowed.
    """
    if not 0 <= port <= LAST_PORT:
        raise SettingError(f"port={port}: a port is 0 (any that is free) to {LAST_PORT}")
    addresses = _addresses(host, port, access)
    bound: list[socket.socket] = []
    for family, address in addresses:
        chosen = bound[0].getsockname()[1] if bound else port
        try:
            bound.append(_bound(family, address, chosen))
        except OSError as error:
            # A name may stand for an address of a family that this machine does not have, beside one that it has.
            if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT} and (bound or len(addresses) > 1):
                continue
            for opened in bound:
                opened.close()
            raise refusal(error, address, chosen) from None
    return bound


def refusal(error: OSError, host: str, port: int) -> SettingError:
    """What to say when an address cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return SettingError(f"port {port} of {host} is in use: stop what listens there, or choose another with --port")
    return SettingError(f"cannot listen on port {port} of {host}: {error.strerror or error}")


def _addresses(host: str, port: int, access: Access | None) -> list[tuple[int, str]]:
    try:
        found = socket.getaddrinfo(host or None, port, flags=socket.AI_PASSIVE, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SettingError(f"host={host!r} is no address of this machine: {error.strerror or error}") from None
    addresses: list[tuple[int, str]] = list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))
    for _, address in addresses:
        if not (access and access.asks) and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            raise SettingError(
                f"host={host!r} can be reached from other machines, and no token is asked for: set {TOKEN_VARIABLE}, or token_file to a "
                "file with one, or serve 127.0.0.1"
            )
    return addresses


def _bound(family: int, address: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that was killed leaves its port in TIME_WAIT
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
    except BaseException:
        opened.close()
        raise
    opened.setblocking(False)
    return opened
