"""Who may ask: whoever knows a token, if there is one, under a name of this server; and the token is seen nowhere."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from hmac import compare_digest
from pathlib import Path

import pytest

from cabrank.errors import SettingError
from cabrank.server.access import Access, read_tokens
from cabrank.server.listening import bind
from tests.server.app import make_app
from tests.server.process import gated, server
from tests.server.serving import Served, get, post, serving
from tests.server.test_answers import told

NOTE = b'{"device":"a","count":7}'
TOKEN = "canary-token-that-nobody-sees"
OTHER = "another-token-that-is-valid-too"
KNOWN = f"Authorization: Bearer {TOKEN}"


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app(), access=Access([TOKEN, OTHER])) as served:
        yield served


@pytest.mark.parametrize("way", ["", "?"])
@pytest.mark.parametrize("token", [TOKEN, OTHER])
async def test_whoever_knows_a_token_is_admitted(served: Served, way: str, token: str) -> None:
    assert (await served.ask(post(f"/jobs/note{way}", NOTE, f"Authorization: Bearer {token}"))).status == 202
    assert served.ordinary == (["/jobs/note"] if way else [])


async def test_the_scheme_is_written_as_one_likes(served: Served) -> None:
    assert (await served.ask(post("/jobs/note", NOTE, f"authorization: bearer  {TOKEN} "))).status == 202


@pytest.mark.parametrize("way", ["", "?"])
@pytest.mark.parametrize(
    "said",
    [
        (),
        ("Authorization: Bearer",),
        (f"Authorization: Bearer {TOKEN}x",),
        (f"Authorization: Basic {TOKEN}",),
        (f"Authorization: {TOKEN}",),
    ],
)
async def test_nobody_else_is(served: Served, way: str, said: tuple[str, ...]) -> None:
    answer = await served.ask(post(f"/jobs/note{way}", NOTE, *said))
    assert told(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in str(answer)
    assert served.dispatcher.engine.counters.admitted == 0


@pytest.mark.parametrize(
    "path", ["/jobs", "/jobs/aaaaaaaa-1", "/queues", "/running", "/metrics", "/readyz", "/openapi.json", "/nowhere", "/docs/none"]
)
async def test_every_path_asks_but_that_of_health_and_the_page(served: Served, path: str) -> None:
    assert told(await served.ask(get(path))) == (401, "unauthorized")
    assert (await served.ask(get("/healthz"))).status == 200
    assert (await served.ask(get("/docs"))).status in {200, 404}


async def test_a_token_in_the_path_is_none(served: Served) -> None:
    assert told(await served.ask(post(f"/jobs/note?token={TOKEN}", NOTE))) == (401, "unauthorized")


@pytest.mark.parametrize("said", [b"", b"Bearer", f"Bearer {TOKEN}".encode(), f"Bearer {TOKEN[:-1]}".encode(), b"Bearer \xff" * 1000, b"x"])
def test_what_is_said_is_compared_with_each_token_in_constant_time(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """By `hmac.compare_digest`, whose time depends on neither; all tokens are looked at, whichever it is."""
    compared: list[tuple[bytes, bytes]] = []

    def noting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr("cabrank.server.access.compare_digest", noting)
    assert Access([TOKEN, OTHER]).admits(said) is (said == f"Bearer {TOKEN}".encode())
    assert [other for _, other in compared] == [f"Bearer {token}".encode() for token in (TOKEN, OTHER)]
    assert all(isinstance(one, bytes) for one, _ in compared), "of texts it takes only ASCII"


async def test_a_refusal_comes_before_the_body(served: Served) -> None:
    assert told(await served.ask(post("/jobs/note", b"", length=1_000_000))) == (401, "unauthorized")


# ------------------------------------------------------------------------------------------------------------- names


def named(host: str, path: str = "/jobs/note") -> bytes:
    return post(path, NOTE).replace(b"Host: localhost", f"Host: {host}".encode())


@pytest.mark.parametrize("way", ["", "?"])
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8470",
        "127.0.0.1",
        "127.0.0.1:8470",
        "[::1]",
        "[::1]:8470",
        "192.0.2.7:80",
        "jobs.example",
        "a.localhost",
        "jobs.example.:1",
    ],
)
async def test_the_server_answers_to_its_names_and_to_addresses(way: str, host: str) -> None:
    async with serving(make_app(), access=Access(hosts=["Jobs.example"])) as served:
        assert (await served.ask(named(host, f"/jobs/note{way}"))).status == 202
        assert served.ordinary == (["/jobs/note"] if way else [])


@pytest.mark.parametrize("way", ["", "?"])
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil.example:8470", "127.0.0.1.evil.example", "", "jobs.example", "[evil]"]
)
async def test_a_name_that_somebody_else_pointed_here_is_refused(way: str, host: str) -> None:
    async with serving(make_app()) as served:
        assert told(await served.ask(named(host, f"/jobs/note{way}"))) == (421, "unknown-host")
        assert served.dispatcher.engine.counters.admitted == 0


async def test_any_name_may_be_let_in() -> None:
    async with serving(make_app(), access=Access(hosts=["*"])) as served:
        assert (await served.ask(named("whatever.example"))).status == 202


async def test_nothing_but_a_body_can_be_expected() -> None:
    async with serving(make_app()) as served:
        assert told(await served.ask(post("/jobs/note", NOTE, "Expect: tea"))) == (417, "expectation-failed")


# ------------------------------------------------------------------------------------------------------ where they are


def test_tokens_come_from_a_variable_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{OTHER}\n\n", "utf-8")
    file.chmod(0o600)
    environ = {"CABRANK_TOKEN": TOKEN}
    assert list(read_tokens(environ, str(file))) == [TOKEN, OTHER]
    assert environ == {}, "no child inherits it"
    assert list(read_tokens({}, "")) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "tokens"
    file.write_text(TOKEN, "utf-8")
    file.chmod(mode)
    with pytest.raises(SettingError, match="chmod 600"):
        read_tokens({}, str(file))


@pytest.mark.parametrize("text", ["short", "with spaces in the middle of it", "ümläüts-are-no-ascii-characters", "\x07" * 30])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SettingError, match="token_urlsafe") as caught:
        read_tokens({"CABRANK_TOKEN": text}, "")
    assert text not in str(caught.value)


def test_a_file_without_a_token_and_no_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    with pytest.raises(SettingError, match="cannot be read"):
        read_tokens({}, str(file))
    file.touch(0o600)
    with pytest.raises(SettingError, match="no token in it"):
        read_tokens({}, str(file))


def test_other_machines_are_served_only_if_a_token_is_asked_for() -> None:
    with pytest.raises(SettingError, match="CABRANK_TOKEN"):
        bind("0.0.0.0", 0, Access())  # noqa: S104 -- that is what is refused
    [bound] = bind("0.0.0.0", 0, Access([TOKEN]))  # noqa: S104
    bound.close()


async def test_the_token_is_seen_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with gated(tmp_path), server(tmp_path, "--store", "memory://", CABRANK_TOKEN=TOKEN) as started:
        await started.listening()
        for headers in ((), (KNOWN,), (f"Authorization: Bearer {TOKEN}x",)):
            for request in (
                post("/jobs/hold", b"{", *headers),
                post("/jobs/nobody", b"", *headers),
                b"NONSENSE " + TOKEN.encode() + b"\r\n\r\n",
            ):
                assert TOKEN not in str(await started.ask(request))
        assert (await started.ask(post("/jobs/hold", b'"a"', KNOWN))).status == 202
        assert TOKEN.encode() not in arguments_of(started.pid)
        started.kill()
        await started.ended()
    assert TOKEN.encode() not in started.log
    assert TOKEN not in caplog.text


def arguments_of(pid: int) -> bytes:
    """The command line of a process, as others see it; empty where that cannot be had."""
    arguments = Path(f"/proc/{pid}/cmdline")
    return arguments.read_bytes() if arguments.exists() else b""
