"""What may be listened on: addresses of this machine alone."""

from __future__ import annotations

import socket

import pytest

from cabrank import SettingError
from cabrank.server.listening import bind


def test_port_0_takes_a_free_one() -> None:
    [bound] = bind("127.0.0.1", 0)
    with bound:
        assert bound.getsockname()[0] == "127.0.0.1"
        assert bound.getsockname()[1] > 0


def test_a_name_is_bound_at_each_of_its_addresses_on_one_port() -> None:
    sockets = bind("localhost", 0)
    try:
        assert len({bound.getsockname()[1] for bound in sockets}) == 1
    finally:
        for bound in sockets:
            bound.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])  # noqa: S104 -- refused
def test_an_address_that_others_reach_is_refused(host: str) -> None:
    with pytest.raises(SettingError, match="other machines"):
        bind(host, 0)


def test_an_unknown_host_is_refused() -> None:
    with pytest.raises(SettingError, match="no address"):
        bind("no such host", 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_a_port(port: int) -> None:
    with pytest.raises(SettingError, match="65535"):
        bind("127.0.0.1", port)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingError, match=f"port {port} .* in use"):
            bind("127.0.0.1", port)
