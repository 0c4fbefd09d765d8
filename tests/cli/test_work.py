"""`cabrank work` from its start to its end, as real processes; jobs come from outside over the store."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from cabrank import Intake
from cabrank.cli.commands import run
from cabrank.cli.loading import load_app
from tests.server.process import Gate, Server, command, gated, server
from tests.server.serving import get, post

STORE = ("--store", "sqlite:///jobs.db")


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncGenerator[Gate]:
    async with gated(tmp_path) as gate:
        yield gate


async def submit(folder: Path, name: str) -> str:
    app = load_app(f"{folder / 'gated.py'}:app")
    async with Intake(app, store=f"sqlite:///{folder / 'jobs.db'}") as intake:
        return (await intake.submit(app.handlers["hold"], name)).id


async def ready(started: Server) -> None:
    await started.logged(b"stop with")


async def test_it_runs_what_others_submit_and_says_what_an_acknowledgement_means(gate: Gate, tmp_path: Path) -> None:
    async with command(tmp_path, "work", "gated.py:app", *STORE, "--workers", "3") as started:
        await ready(started)
        lines = started.log.decode()
        assert "works for gated.py:app" in lines
        assert "store sqlite:///jobs.db: what is submitted is committed and fsynced" in lines
        assert "handlers hold" in lines
        assert "queue async: 3 workers" in lines
        await submit(tmp_path, "a")
        assert await gate.came.get() == "a run 1"


async def test_a_server_without_workers_takes_in_what_it_runs(gate: Gate, tmp_path: Path) -> None:
    """Two processes on one file: one answers, the other works."""
    async with server(tmp_path, *STORE, "--workers", "0") as serving:
        await serving.listening()
        await serving.logged(b"stop with")
        assert b"queue async: no workers here, `cabrank work` on the same store runs its jobs" in serving.log
        answer = await serving.ask(post("/jobs/hold", b'"a"'))
        assert answer.status == 202
        assert (await serving.ask(get(f"/jobs/{answer.json()['id']}"))).json()["state"] == "waiting"
        assert (await serving.ask(get("/readyz"))).status == 200
        assert (await serving.ask(get("/running"))).json() == {"jobs": []}
        async with command(tmp_path, "work", "gated.py:app", *STORE, "--workers", "3") as working:
            await ready(working)
            assert await gate.came.get() == "a run 1"
            gate.open()
            waited = await serving.ask(get(f"/jobs/{answer.json()['id']}?wait_s=20"))
            assert waited.json()["state"] == "done"
            for started in (serving, working):
                started.tell(signal.SIGTERM)
                assert await started.ended() == 0


def test_work_without_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.py").write_text("import cabrank\napp = cabrank.App()\n@app.job\nasync def f() -> None: ...\n", "utf-8")
    (tmp_path / "items").write_text("1\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(["work", "good.py:app", *STORE, "--workers", "0"]) == 1
    assert run(["run", "good.py:f", "items", "--workers", "0"]) == 1
    assert capsys.readouterr().err.count("with 0 workers") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_what_runs_finish(gate: Gate, tmp_path: Path, number: signal.Signals) -> None:
    async with command(tmp_path, "work", "gated.py:app", *STORE) as started:
        await ready(started)
        id = await submit(tmp_path, "a")
        assert await gate.came.get() == "a run 1"
        started.tell(number)
        await started.logged(b"stopping: ")
        gate.open()
        assert await started.ended() == 0
        assert b"Traceback" not in started.log
    async with Intake(store=f"sqlite:///{tmp_path / 'jobs.db'}") as intake:
        assert await intake.handle(id).state() == "done"


async def test_a_second_signal_hands_back_what_runs_and_the_next_takes_it_on(gate: Gate, tmp_path: Path) -> None:
    async with command(tmp_path, "work", "gated.py:app", *STORE) as started:
        await ready(started)
        await submit(tmp_path, "a")
        assert await gate.came.get() == "a run 1"
        started.tell(signal.SIGTERM)
        await started.logged(b"stopping: ")
        started.tell(signal.SIGTERM)
        assert await started.ended() == 0
    async with command(tmp_path, "work", "gated.py:app", *STORE):
        assert await gate.came.get() == "a run 2"


async def test_a_signal_while_it_opens_ends_it(gate: Gate, tmp_path: Path) -> None:
    async with command(tmp_path, "work", "gated.py:app", *STORE, SLOW="yes") as started:
        assert await gate.came.get() == "opening"
        started.tell(signal.SIGTERM)
        await started.logged(b"stopping: ")
        gate.open()
        assert await started.ended() == 0
        assert b"works for" not in started.log


async def test_two_on_one_store_share_the_work(gate: Gate, tmp_path: Path) -> None:
    one, other = (command(tmp_path, "work", "gated.py:app", *STORE, "--workers", "1") for _ in range(2))
    async with one as first, other as second:
        await ready(first)
        await ready(second)
        await submit(tmp_path, "a")
        await submit(tmp_path, "b")
        assert {await gate.came.get(), await gate.came.get()} == {"a run 1", "b run 1"}


async def test_settings_come_from_a_file(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "cabrank.toml").write_text('store = "sqlite:///other.db"\ngrace_s = 7\n[max_workers]\nasync = 4\n', "utf-8")
    async with command(tmp_path, "work", "gated.py:app", "--config", "cabrank.toml", CABRANK_GRACE_S="6") as started:
        await ready(started)
        assert b"store sqlite:///other.db" in started.log
        assert b"queue async: 4 workers" in started.log
        assert b"within 6 s" in started.log, "a variable goes before the file"


def test_a_store_that_nobody_else_can_reach_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lonely.py").write_text("import cabrank\napp = cabrank.App()\n", "utf-8")
    assert run(["work", "lonely.py:app", "--store", "memory://"]) == 1
    assert "nobody else can submit to memory://" in capsys.readouterr().err


async def test_sigusr1_prints_what_runs_and_it_goes_on(gate: Gate, tmp_path: Path) -> None:
    async with command(tmp_path, "work", "gated.py:app", *STORE) as started:
        await ready(started)
        id = await submit(tmp_path, "a")
        assert await gate.came.get() == "a run 1"
        for _ in range(2):
            started.tell(signal.SIGUSR1)
            await started.logged(b"1 job runs\n")
            await started.logged(f"{id} hold: run 1 in queue async (async) for ".encode())
            await started.logged(b"in pass_gate: ")
            started.log = b""
        gate.open()
        started.tell(signal.SIGTERM)
        assert await started.ended() == 0
