"""`cabrank store`: what comes out of a file goes into another one and runs there; a copy is made while others write."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec
import pytest

import cabrank
from cabrank import Intake
from cabrank.cli.commands import run

LATER_S = 3600


def made(ran: Counter[str]) -> cabrank.App:
    """An app that says what ran."""
    app = cabrank.App()

    @app.job(retry=cabrank.Retry(attempts=1))
    async def note(word: str) -> None:
        ran[word] += 1
        if word == "broken":
            raise ValueError(word)

    @app.job(limit=cabrank.Limit(running=1, key=lambda word: word[:1]))
    async def narrow(word: str) -> None:
        ran[word] += 1

    return app


async def filled(folder: Path) -> dict[str, str]:
    """Jobs in every state that a file keeps; the id of each word."""
    app, ids = made(Counter()), dict[str, str]()
    note, narrow = app.handlers["note"], app.handlers["narrow"]
    async with cabrank.Dispatcher(app, store=f"sqlite:///{folder}/jobs.db") as dispatcher:
        handle = await dispatcher.submit(note, "broken")
        with pytest.raises(cabrank.JobFailed):
            await handle.result()
        ids["broken"] = handle.id
    async with Intake(app, store=f"sqlite:///{folder}/jobs.db") as intake:
        for word in ("one", "two"):
            ids[word] = (await intake.submit(note, word, priority=3, tags=("blue",), unique=word)).id
        for word in ("ax", "ay", "bx"):
            ids[word] = (await intake.submit(narrow, word)).id
        ids["later"] = (await intake.submit(note, "later", delay_s=LATER_S)).id
        ids["keyed"] = (await intake.submit(note, "keyed", key="once")).id
        cancelled = await intake.submit(note, "cancelled")
        assert await cancelled.cancel()
        ids["cancelled"] = cancelled.id
    return ids


def ok(*arguments: str) -> None:
    assert run(["store", *arguments]) == 0


async def test_what_is_exported_can_be_imported_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = await filled(tmp_path)
    there = f"sqlite:///{tmp_path}/new.db"
    await asyncio.to_thread(ok, "export", f"{tmp_path}/jobs.ndjson", "--store", f"sqlite:///{tmp_path}/jobs.db")
    await asyncio.to_thread(ok, "import", f"{tmp_path}/jobs.ndjson", "--store", there)
    await asyncio.to_thread(ok, "check", "--store", there)
    assert f"{len(ids):,} jobs" in capsys.readouterr().out
    ran = Counter[str]()
    app = made(ran)
    async with cabrank.Dispatcher(app, store=there) as dispatcher:
        states = {word: await dispatcher.handle(id).state() for word, id in ids.items() if word in {"broken", "cancelled", "later"}}
        assert states == {"broken": "dead", "cancelled": "cancelled", "later": "waiting"}
        again = await dispatcher.submit(app.handlers["note"], "keyed", key="once")
        assert again.id == ids["keyed"], "the key is remembered"
        for word in ("one", "two", "ax", "ay", "bx", "keyed"):
            await dispatcher.handle(ids[word]).result()
        new = await dispatcher.submit(app.handlers["note"], "new")
        assert new.id not in ids.values()
        await new.result()
    assert ran == Counter({"one": 1, "two": 1, "ax": 1, "ay": 1, "bx": 1, "keyed": 1, "new": 1})


def test_the_lines_can_be_read_by_others(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    asyncio.run(filled(tmp_path))
    ok("export", "--store", f"sqlite:///{tmp_path}/jobs.db")
    lines = [msgspec.json.decode(line) for line in capfdbinary.readouterr().out.splitlines()]
    jobs = {job["payload"]: job for job in lines if "job" in job}
    assert (jobs["one"]["handler"], jobs["one"]["queue"], jobs["one"]["state"]) == ("note", "async", "waiting")
    assert jobs["broken"]["state"] == "dead"


def shortened(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def with_nonsense(lines: list[bytes]) -> list[bytes]:
    return [lines[0], b"nonsense\n", *lines[1:]]


def of_another_schema(lines: list[bytes]) -> list[bytes]:
    return [b'{"cabrank_schema": 1, "jobs": 0}\n', *lines[1:]]


def with_a_row_of_jobs(lines: list[bytes]) -> list[bytes]:
    return [lines[0], b'{"table": "job", "row": {}}\n']


def with_an_unknown_table(lines: list[bytes]) -> list[bytes]:
    return [lines[0], b'{"table": "nowhere", "row": {}}\n']


def emptied(lines: list[bytes]) -> list[bytes]:
    return lines[:0]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shortened, "ends after line"),
        (with_nonsense, "line 2 is not what an export writes"),
        (of_another_schema, "the export has schema 1"),
        (with_a_row_of_jobs, "line 2 is not what an export writes"),
        (with_an_unknown_table, "line 2 is not what an export writes"),
        (emptied, "ends after line 0"),
    ],
)
def test_a_spoilt_export_makes_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    asyncio.run(filled(tmp_path))
    source = tmp_path / "jobs.ndjson"
    ok("export", str(source), "--store", f"sqlite:///{tmp_path}/jobs.db")
    source.write_bytes(b"".join(spoil(source.read_bytes().splitlines(keepends=True))))
    assert run(["store", "import", str(source), "--store", f"sqlite:///{tmp_path}/new.db"]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("new.db*"))


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(filled(tmp_path))
    url, other = f"sqlite:///{tmp_path}/jobs.db", str(tmp_path / "there")
    Path(other).write_bytes(b"mine")
    for words in (("backup", other), ("export", other), ("import", other)):
        assert run(["store", *words, "--store", url]) == 1
        assert "is there already" in capsys.readouterr().err
    assert Path(other).read_bytes() == b"mine"


async def test_a_copy_is_whole_while_others_write(tmp_path: Path) -> None:
    app, ran, copied = made(Counter()), Counter[str](), asyncio.Event()
    url, note = f"sqlite:///{tmp_path}/jobs.db", "note"

    async def write(intake: Intake) -> int:
        written = 0
        while not copied.is_set():
            written += len(await intake.submit_many(app.handlers[note], [f"{written + one}" for one in range(100)]))
        return written

    async with Intake(app, store=url) as intake:
        await intake.submit(app.handlers[note], "first")
        writing = asyncio.ensure_future(write(intake))
        await asyncio.to_thread(ok, "backup", f"{tmp_path}/copy.db", "--store", url)
        copied.set()
        written = await writing
    await asyncio.to_thread(ok, "check", "--store", f"sqlite:///{tmp_path}/copy.db")
    async with cabrank.Dispatcher(made(ran), store=f"sqlite:///{tmp_path}/copy.db") as dispatcher:
        await dispatcher.join()
    assert ran["first"] == 1
    assert len(ran) - 1 in range(written + 1)
    assert (len(ran) - 1) % 100 == 0, "each bulk submit is in it whole or not at all"


async def test_a_vacuum_gives_back_what_is_not_used(tmp_path: Path) -> None:
    app, url = made(Counter()), f"sqlite:///{tmp_path}/jobs.db"
    async with Intake(app, store=url) as intake:
        await intake.submit_many(app.handlers["note"], ["x" * 1000] * 5000)
    async with cabrank.Dispatcher(app, store=url) as dispatcher:
        await dispatcher.join()
    async with Intake(app, store=url):  # others have it open
        await asyncio.to_thread(ok, "vacuum", "--store", url)
    assert (tmp_path / "jobs.db").stat().st_size < 1 << 20
    await asyncio.to_thread(ok, "check", "--store", url)


def test_a_damaged_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(filled(tmp_path))
    path = tmp_path / "jobs.db"
    connection = apsw.Connection(str(path))
    connection.execute("update queue set waiting = waiting + 7 where name = 'async'")
    connection.close()
    assert run(["store", "check", "--store", f"sqlite:///{path}"]) == 1
    assert "queue async says that 14 jobs wait, and 7 do" in capsys.readouterr().out
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    path.write_bytes(content)
    assert run(["store", "check", "--store", f"sqlite:///{path}", "--json"]) == 1


def test_another_file_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.db"
    path.write_text("not a database, but long enough to look like one " * 20)
    for words in (("check",), ("vacuum",), ("backup", f"{tmp_path}/copy.db"), ("export",)):
        assert run(["store", *words, "--store", f"sqlite:///{path}"]) == 1
        assert "is not a store of cabrank" in capsys.readouterr().err
