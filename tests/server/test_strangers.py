"""What strangers send to harm the server or those who look at it: none of it is run, shown as a page, or reaches another's work."""

from __future__ import annotations

import asyncio
import gzip
import os
import pickle
import resource
import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote

import pytest

import cabrank
from cabrank.server.access import Access
from cabrank.server.pace import HEAD_TICKS
from cabrank.settings import MIB
from cabrank.stores.contract import TURN_BYTES
from tests.server.app import make_app
from tests.server.process import GATED_APP, Server, command, gated, server
from tests.server.serving import Response, Served, Wire, get, post, serving, until
from tests.server.test_answers import told

NOTE = b'{"device":"a","count":7}'
FILES = Path("/proc/self/fd").exists()
SCRIPT = "<script>alert(1)</script>"
# Names that mean something to a shell, to SQL, to a browser, to a file system, to Python, to a message broker.
NAMES = [
    "os.system",
    "builtins.eval",
    "cos\nsystem\n(S'id'\ntR.",
    "!!python/object/apply:os.system [id]",
    "note'; drop table job; --",
    "note' or '1'='1",
    'note"',
    "%",
    "_",
    "*",
    ">",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    ".",
    "-note",
    "a b",
    "a:b",
    "a\r\nX-Injected: 1",
    "a\0b",
    "note\x00",
    "nöte",
    "\uff4e\uff4f\uff54\uff45",
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}",
    "${jndi:ldap://x}",
    "x" * 129,
    "x" * 4_000,
]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with serving(make_app(), store=f"sqlite:///{tmp_path / 'jobs.db'}", grace_s=0) as served:
        yield served


def is_data(answer: Response) -> bool:
    """Whether no browser takes it for a page."""
    media = answer.headers["content-type"]
    return media in {"application/json", "application/problem+json"} and answer.headers["x-content-type-options"] == "nosniff"


# ------------------------------------------------------------------------------------------------------------- names

PATHS = ("/jobs/{}", "/jobs/{}/batch", "/jobs/{}/stream", "/queues/{}/pause", "/queues/{}/resume", "/queues/{}/drain", "/{}")
QUERIES = ("/jobs?queue={}", "/jobs?handler={}", "/jobs?after={}", "/jobs?state={}", "/jobs/{}", "/queues/{}", "/docs/{}", "/{}")
OPTIONS = ("tags", "priority", "delay_s", "due_at", "deadline_s", "on_conflict", "unique_over", "partial", "nonsense")


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_a_name_in_every_endpoint(served: Served, name: str) -> None:
    """No name reaches a statement, a path or an import: what is not registered is not there, and nothing is harmed."""
    kept = await served.ask(post("/jobs/note?delay_s=1000&tags=blue", NOTE))
    said = quote(name, safe="")
    for path in PATHS:
        assert (await served.ask(post(path.format(said), NOTE))).status in {400, 404, 405}, path
    for path in QUERIES:
        answer = await served.ask(get(path.format(said)))
        assert answer.status in {400, 404} or answer.json() == {"jobs": [], "after": None}, path
        assert is_data(answer), path
    for option in OPTIONS:
        for path in ("/jobs/note", "/jobs/note/batch", "/telemetry"):
            assert (await served.ask(post(f"{path}?{option}={said}", b"1"))).status in {400, 422}, option
    assert (await served.ask(get("/queues/async"))).json()["waiting"] == 1
    assert (await served.ask(get(f"/jobs/{kept.json()['id']}"))).json()["tags"] == ["blue"]


async def test_a_unique_key_and_an_idempotency_key_are_values(served: Served) -> None:
    """They may be any printable text, and it is compared, not read."""
    for name in (name for name in NAMES if name.isascii() and name.isprintable() and len(name) <= 256):
        once = await served.ask(post(f"/jobs/note?delay_s=1000&unique={quote(name, safe='')}", NOTE, f"Idempotency-Key: {name}"))
        again = await served.ask(post(f"/jobs/note?delay_s=1000&unique={quote(name, safe='')}", NOTE))
        assert (once.status, again.json()) == (202, once.json()), name


async def test_a_payload_is_data_whatever_it_says(served: Served, tmp_path: Path) -> None:
    """Pickles, YAML tags and import paths are no JSON of the handler's type, and where any text will do they stay text."""

    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'harmed'}",)

    bodies = [pickle.dumps(Harm()), b"cos\nsystem\n(S'id'\ntR.", b"!!python/object/apply:os.system ['id']", b'{"__import__":"os"}']
    for body in bodies:
        for path in ("/jobs/note", "/jobs/note/batch", "/telemetry"):
            assert (await served.ask(post(path, body))).status in {400, 422}
    answer = await served.ask(post("/jobs/note", b'{"device":"!!python/object/apply:os.system [id]","count":7}'))
    assert await served.dispatcher.handle(answer.json()["id"]).result() == 7
    assert not (tmp_path / "harmed").exists()


# ----------------------------------------------------------------------------------------------------------- browsers


async def test_what_somebody_said_is_never_shown_as_a_page(served: Served) -> None:
    """Paths, parameters, headers and payloads come back in problems: as data, with nothing that a browser would run."""
    bad = quote(SCRIPT, safe="")
    requests = [
        get(f"/{bad}"),
        get(f"/jobs/{bad}"),
        get(f"/queues/{bad}"),
        get(f"/jobs?state={bad}"),
        get(f"/docs/{bad}"),
        post(f"/jobs/{bad}", NOTE),
        post("/jobs/note", f'{{"device":"a","{SCRIPT}":1,"count":"{SCRIPT}"}}'.encode()),
        post("/jobs/note", SCRIPT.encode()),
        post(f"/jobs/note?{bad}=1", NOTE),
        post("/jobs/note", NOTE, f"Origin: https://{SCRIPT}"),
        post("/jobs/note", NOTE).replace(b"localhost", SCRIPT.encode()),
        post("/jobs/note", NOTE, f"Idempotency-Key: {'<' * 257}"),
        SCRIPT.encode() + b"\r\n\r\n",
    ]
    for request in requests:
        answer = await served.ask(request)
        assert answer.status >= 400
        assert is_data(answer), request


async def test_the_error_of_a_job_is_data(tmp_path: Path) -> None:
    app = cabrank.App()

    @app.job(retry=cabrank.Retry(attempts=1))
    async def fail() -> None:
        raise RuntimeError(SCRIPT)

    async with serving(app, store=f"sqlite:///{tmp_path / 'jobs.db'}", grace_s=0) as served:
        id = (await served.ask(post("/jobs/fail", b""))).json()["id"]
        answer = await served.ask(get(f"/jobs/{id}?wait_s=60"))
        assert SCRIPT in answer.json()["error"]
        assert is_data(answer)
        assert is_data(await served.ask(get("/jobs?state=dead")))


async def test_the_page_for_people_is_the_same_whatever_is_asked(served: Served) -> None:
    pytest.importorskip("drf_spectacular_sidecar", exc_type=ImportError)
    plain = await served.ask(get("/docs"))
    other = await served.ask(get(f"/docs?{quote(SCRIPT)}={quote(SCRIPT)}").replace(b"\r\n\r\n", f"\r\nReferer: {SCRIPT}\r\n\r\n".encode()))
    assert other.body == plain.body
    policy = plain.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


async def test_a_page_of_another_origin_changes_nothing(served: Served) -> None:
    """Every operation that changes something, as the description lists them, asked for by a page that a user happens to look at."""
    id = (await served.ask(post("/jobs/note?delay_s=1000", NOTE))).json()["id"]
    described = (await served.ask(get("/openapi.json"))).json()["paths"]
    asked = 0
    for path, methods in described.items():
        for method in methods.keys() - {"get", "parameters"}:
            target = path.replace("{id}", id).replace("{name}", "async")
            for origin in (
                "https://evil.example",
                "null",
                f"http://localhost.evil.example:{served.port}",
                f"http://127.0.0.1:{served.port}",
            ):
                request = post(target, NOTE, f"Origin: {origin}", "Content-Type: text/plain").replace(b"POST", method.upper().encode(), 1)
                assert told(await served.ask(request)) == (403, "foreign-origin"), target
                asked += 1
    assert asked >= 4 * 9
    assert (await served.ask(get("/queues/async"))).json()["waiting"] == 1
    assert served.dispatcher.engine.counters.admitted == 1


# -------------------------------------------------------------------------------------------------------------- sizes


def memory_kb(pid: int) -> int:
    """The most that a process ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.skipif(not FILES, reason="needs /proc")
@pytest.mark.timeout(120)
async def test_nothing_that_is_sent_makes_the_server_large(tmp_path: Path) -> None:
    """Bodies and heads beyond the limits, deep and strange JSON, compressed bodies: refused in less memory than four full bodies."""
    bomb = gzip.compress(b"0" * 64 * MIB)
    strange = [
        post("/jobs/note", b"", length=10**12),
        post("/jobs/note/batch", b"x" * (TURN_BYTES + 1)),
        post("/jobs/note", bomb, "Content-Encoding: gzip"),
        post("/jobs/note/batch", bomb, "Content-Encoding: gzip"),
        post("/jobs/note", NOTE, *(f"X-{number}: {number}" for number in range(100_000))),
        post("/jobs/note", b"[" * MIB),
        post("/jobs/note/batch", b"[" * 4 * MIB),
        post("/jobs/note/batch", b'[{"device":' + b"[" * MIB + b"]" * MIB + b"}]"),
        post("/jobs/note", b'{"device":"a","count":' + b"9" * 900_000 + b"}"),
        post("/jobs/note", b'{"device":"a","count":NaN}'),
        post("/jobs/note", b'{"device":"a","count":1e999}'),
        post("/jobs/note", b'{"device":"a","count":-Infinity}'),
        post("/jobs/note", b'{"device":"\\ud800","count":1}'),
    ]
    (tmp_path / "noting.py").write_text(NOTING, "utf-8")
    async with command(tmp_path, "serve", "noting.py:app", "--port", "0", "--store", "memory://") as started:
        await started.listening()
        for _ in range(20):
            assert (await started.ask(post("/jobs/note", NOTE))).status == 202
        before = memory_kb(started.pid)
        for request in strange * 3:
            assert 400 <= await status_of(started, request) < 500, request[:80]
        assert memory_kb(started.pid) - before < 4 * TURN_BYTES // 1024
        assert (await started.ask(post("/jobs/note", NOTE))).status == 202


NOTING = """
import msgspec, cabrank

app = cabrank.App()

class Payload(msgspec.Struct):
    device: str
    count: int = 0

@app.job
async def note(payload: Payload) -> None: ...
"""


async def status_of(started: Server, request: bytes) -> int:
    """The status of the answer to what may be refused before all of it was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
    writer.write(request)  # not waited for: the server may not read all of it
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    writer.transport.abort()
    return status


# -------------------------------------------------------------------------------------------------------------- token

TOKEN = "canary-4c1f0b7a9d3e5582-token"
LEAKING_APP = """
import asyncio, os, sys
import cabrank

app = cabrank.App()

@app.job(retry=cabrank.Retry(attempts=1))
async def tell() -> None:
    raise RuntimeError(f"{dict(os.environ)} {sys.argv}")

@app.job(kind="process", retry=cabrank.Retry(attempts=1))
def tell_elsewhere() -> None:
    raise RuntimeError(f"{dict(os.environ)} {sys.argv}")

@app.job
async def stand() -> None:
    print("standing", file=sys.stderr, flush=True)
    await asyncio.sleep(1000)

@app.document("/broken")
def broken(document: dict) -> cabrank.Jobs:
    raise RuntimeError(f"{dict(os.environ)}")
"""


@pytest.mark.timeout(120)
async def test_the_token_is_in_no_error_dump_or_child(tmp_path: Path) -> None:
    """Errors of jobs with all their surroundings, the dump of what runs, the log, the store's file, children, answers."""
    (tmp_path / "leaking.py").write_text(LEAKING_APP, "utf-8")
    known = f"Authorization: Bearer {TOKEN}"
    said: list[Response] = []
    options = ("--port", "0", "--store", "sqlite:///jobs.db", "--grace", "0")
    async with command(tmp_path, "serve", "leaking.py:app", *options, CABRANK_TOKEN=TOKEN) as started:
        await started.listening()

        async def ask(request: bytes) -> Response:
            said.append(await started.ask(request.replace(b"\r\n\r\n", f"\r\n{known}\r\n\r\n".encode(), 1)))
            return said[-1]

        assert (await ask(post("/jobs/stand", b""))).status == 202
        await started.logged(b"standing")
        for name in ("tell", "tell_elsewhere"):
            id = (await ask(post(f"/jobs/{name}", b""))).json()["id"]
            assert "PATH" in (await ask(get(f"/jobs/{id}?wait_s=60"))).json()["error"], "the error has the surroundings in it"
        assert (await ask(post("/broken", b"{}"))).status == 500
        for request in (get("/running"), get("/jobs"), get("/queues"), get("/metrics"), get("/openapi.json"), get("/readyz")):
            assert (await ask(request)).status == 200
        for request in (get(f"/jobs?token={TOKEN}"), get(f"/jobs/{TOKEN}"), get(f"/{TOKEN}")):
            assert (await started.ask(request)).status == 401, "in a URL it is none"
        started.tell(signal.SIGUSR1)
        await started.logged(b"stand")
        started.tell(signal.SIGTERM)
        await started.ended()
    assert [answer for answer in said if TOKEN in str(answer)] == []
    assert TOKEN.encode() not in started.log
    assert files_with(TOKEN.encode(), tmp_path) == []


def files_with(text: bytes, folder: Path) -> list[str]:
    return [file.name for file in folder.rglob("*") if file.is_file() and text in file.read_bytes()]


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_token_is_not_in_what_is_printed_of_its_holder() -> None:
    assert TOKEN not in repr(Access([TOKEN])) + str(Access([TOKEN]))


# -------------------------------------------------------------------------------------------------- slow, and too many


async def test_slow_connections_are_told_so_and_delay_nobody(served: Served) -> None:
    """Heads that do not end and bodies that trickle, on hundreds of connections."""
    heads = [await served.connect() for _ in range(100)]
    bodies = [await served.connect() for _ in range(100)]
    for wire in heads:
        await wire.send(b"POST /jobs/note HTTP/1.1\r\nX")
    for wire in bodies:
        await wire.send(post("/jobs/note", b"{", length=100_000))
    await until(lambda: len(served.http.server_state.connections) == 200)
    good = await served.connect()
    for second in range(HEAD_TICKS + 2):
        assert (await good.ask(post("/jobs/note", NOTE))).status == 202
        for wire in heads if second < HEAD_TICKS else ():
            await wire.send(b"x")
        for connection in tuple(served.http.server_state.connections):
            connection.tick()  # type: ignore[union-attr] # pyright: ignore[reportAttributeAccessIssue] -- a lane
    for wire in (*heads, *bodies):
        assert told(await wire.receive()) == (408, "request-late")
        assert await wire.rest() == b""
    assert (await good.ask(post("/jobs/note", NOTE))).status == 202


def own_address() -> str:
    """An address of this machine that is not loopback, empty if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address = str(probe.getsockname()[0])
    return "" if address.startswith("127.") else address


@pytest.mark.skipif(not own_address(), reason="this machine has no address but loopback")
async def test_one_address_has_its_share_of_connections(tmp_path: Path) -> None:
    (tmp_path / "noting.py").write_text(NOTING, "utf-8")
    options = ("--port", "0", "--host", "0.0.0.0", "--store", "memory://")  # noqa: S104
    async with command(tmp_path, "serve", "noting.py:app", *options, CABRANK_TOKEN=TOKEN, CABRANK_CONNECTIONS_PER_ADDRESS="3") as started:
        while b"http://" not in started.log:
            await started.logged(b"http://")
        port = int(started.log.rpartition(b":")[2].split()[0])
        wires = [Wire(*await asyncio.open_connection(own_address(), port)) for _ in range(3)]
        for wire in wires:
            assert (await wire.ask(get("/healthz"))).status == 200
        one_more = Wire(*await asyncio.open_connection(own_address(), port))
        assert told(await one_more.receive()) == (503, "too-many-connections")
        neighbour = Wire(*await asyncio.open_connection("127.0.0.1", port))
        assert (await neighbour.ask(get("/healthz"))).status == 200
        for wire in (*wires, one_more, neighbour):
            await wire.close()


# --------------------------------------------------------------------------------------------------------- open files


@pytest.mark.skipif(not FILES, reason="needs /proc")
@pytest.mark.timeout(120)
async def test_without_a_file_to_open_what_is_there_goes_on_and_it_recovers(tmp_path: Path) -> None:
    """New connections get in no more; those that are open are served, also what nobody asked before; what runs ends and is recorded."""
    store = ("--store", "sqlite:///jobs.db")
    async with (
        gated(tmp_path) as gate,
        server(tmp_path, *store, CABRANK_SWEEP_S="0.01") as started,  # each turn looks for the dead, which opens a file
        command(tmp_path, "work", "gated.py:app", *store) as beside,
    ):
        await started.listening()
        await beside.logged(b"stop with")
        wire = await started.connect()
        id = (await wire.ask(post("/jobs/hold", b'"a"'))).json()["id"]
        assert await gate.came.get() == "a run 1"
        _, most = resource.prlimit(started.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(started.pid, resource.RLIMIT_NOFILE, (open_files(started.pid), most))
        strangers = [await started.connect() for _ in range(50)]
        answer = await wire.ask(get(f"/jobs/{id}"))
        assert (answer.status, answer.json().get("state")) == (200, "running"), (answer, started.log)
        for path in ("/jobs", "/queues", "/queues/async", "/running", "/readyz", "/metrics", "/openapi.json"):
            answer = await wire.ask(get(path))
            assert answer.status == 200, (path, answer, started.log)
        answer = await wire.ask(get("/docs"))  # is in a file
        assert (told(answer), answer.headers["retry-after"] in {"1", "2"}) == ((503, "too-many-files"), True)
        assert b"cabrank_ready 1" in (await wire.ask(get("/metrics"))).body
        assert (await wire.ask(post("/jobs/hold?delay_s=1000", b'"b"'))).status == 202
        gate.open()
        assert (await wire.ask(get(f"/jobs/{id}?wait_s=60"))).json()["state"] == "done"
        resource.prlimit(started.pid, resource.RLIMIT_NOFILE, (most, most))
        for one in (wire, *strangers):
            await one.close()
        assert (await started.ask(post("/jobs/hold", b'"c"'))).status == 202
        assert await gate.came.get() == "c run 1", "no run of a process that lives was taken for one of the dead"
        started.kill()
        await started.ended()
        assert b"Traceback" not in started.log


@pytest.mark.skipif(not FILES, reason="needs /proc")
@pytest.mark.timeout(120)
async def test_connections_leave_the_server_files_to_open(tmp_path: Path) -> None:
    """With 96 files there are 64 connections at most; who comes then is told 503, and room comes back."""
    (tmp_path / "few.py").write_text(f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))\n{GATED_APP}", "utf-8")
    async with gated(tmp_path) as gate, command(tmp_path, "serve", "few.py:app", "--port", "0", "--store", "sqlite:///jobs.db") as started:
        await started.listening()
        first = await started.connect()
        id = (await first.ask(post("/jobs/hold", b'"a"'))).json()["id"]
        await gate.came.get()
        others = [await started.connect() for _ in range(63)]
        for wire in others:
            assert (await wire.ask(get("/healthz"))).status == 200
        for _ in range(100):
            refused = await started.connect()
            assert told(await refused.receive()) == (503, "too-many-connections")
            await refused.close()
        gate.open()
        assert (await first.ask(get(f"/jobs/{id}?wait_s=60"))).json()["state"] == "done"
        for wire in (first, *others):
            await wire.close()
        answers = 0
        while answers != 202:  # the server hears of the ends one after another
            stranger = await started.connect()
            answers = (await stranger.ask(post("/jobs/hold", b'"b"'))).status
            await stranger.close()
        started.kill()
        await started.ended()
        assert b"Traceback" not in started.log
