"""What the file is when it is open, and which files are refused, each with what to do about it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from cabrank.errors import NotEntered, SettingError, StoreUnusable
from cabrank.job import PRIORITIES
from cabrank.settings import Settings
from cabrank.stores import open_url
from cabrank.stores.contract import JobFilter, Terms
from cabrank.stores.sqlite import migrations, schema
from cabrank.stores.sqlite import past_statements as past_sql
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.release import has_reset_bug
from cabrank.testing import FakeClock
from cabrank.testing.store_contract import Opened
from tests.contract.sqlite.files import Files

TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})
NOBODY = 65534


async def refusal(files: Files) -> str:
    """Why the file cannot be opened."""
    store = files.another()
    with pytest.raises(StoreUnusable) as caught:
        await store.open(TERMS)
    with pytest.raises(NotEntered):
        await store.tally()
    await store.close()
    return str(caught.value)


async def test_a_commit_is_synced_and_the_file_is_ours(files: Files) -> None:
    store = files.another()
    await store.open(TERMS)
    assert store._ledger
    pragma = {
        name: store._ledger._connection.execute(f"pragma {name}").get
        for name in ("journal_mode", "synchronous", "auto_vacuum", "wal_autocheckpoint", "application_id", "user_version")
    }
    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 2,
        "auto_vacuum": 2,
        "wal_autocheckpoint": schema.CHECKPOINT_PAGES,
        "application_id": migrations.APPLICATION_ID,
        "user_version": migrations.VERSION,
    }
    await store.close()


HAVE_THE_BUG = ("3.7.0", "3.40.1", "3.44.5", "3.45.0", "3.49.2.1", "3.50.4", "3.51.2")
HAVE_IT_NOT = ("3.6.23", "3.44.6", "3.50.7", "3.51.3", "3.54.0")


@pytest.mark.parametrize("version", HAVE_THE_BUG + HAVE_IT_NOT)
async def test_a_release_of_sqlite_that_can_damage_the_file_is_warned_of(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    store = files.another()
    await store.open(TERMS)
    await store.close()
    warned = [record.message for record in caplog.records if version in record.message and "pip install" in record.message]
    assert len(warned) == (version in HAVE_THE_BUG)


def test_the_pinned_build_of_sqlite_has_no_such_bug() -> None:
    first, second, third = map(int, apsw.sqlite_lib_version().split(".")[:3])
    assert not has_reset_bug((first, second, third))


async def test_all_writing_is_one_connection_which_takes_the_lock_at_the_beginning(files: Files) -> None:
    """One writer a process, `begin immediate`: a turn never finds out half-way that another program writes."""
    store, before = files.another(), len(apsw.connections())
    await store.open(TERMS)
    assert store._ledger
    statements: list[str] = []
    store._ledger._connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: statements.append(event["sql"]))
    assert len(apsw.connections()) == before + 2, "one that writes, one that reads"
    await store.take_ids()
    await store.pause("work")
    await store.turn(1, new=(), settlements=(), want={})
    assert [word for sql in statements if (word := sql.split()[0]) in {"begin", "commit", "rollback"}] == [
        "begin", "commit", "begin", "commit", "begin", "rollback",
    ]  # fmt: skip
    assert {sql for sql in statements if sql.startswith("begin")} == {"begin immediate"}
    await store.close()


async def test_the_reader_cannot_write(files: Files) -> None:
    store = files.another()
    await store.open(TERMS)
    assert store._reader
    assert store._questions
    reader = store._reader
    with pytest.raises(apsw.ReadOnlyError):
        await store._questions.call(lambda: reader._connection.execute("delete from job"))
    await store.close()


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(files: Files) -> None:
    first = files.another()
    await first.open(TERMS)
    await first.close()
    with files.outside() as connection:
        connection.execute(f"pragma user_version = {migrations.VERSION + 1}")
    assert f"has schema {migrations.VERSION + 1}" in await refusal(files)
    with files.outside() as connection:
        assert connection.execute("pragma user_version").get == migrations.VERSION + 1


async def test_a_file_of_another_program_is_refused_and_left_alone(files: Files) -> None:
    with files.outside() as connection:
        connection.execute("create table mine (a); insert into mine values (1)")
    before = files.path.read_bytes()
    assert "another program" in await refusal(files)
    assert files.path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_alone(files: Files) -> None:
    text = b"Dear diary, this is not a database. " * 100
    files.path.write_bytes(text)
    assert "is not a SQLite file" in await refusal(files)
    assert files.path.read_bytes() == text


async def test_an_empty_file_becomes_a_store(files: Files) -> None:
    files.path.touch()
    store = files.another()
    await store.open(TERMS)
    assert await store.tally() == {}
    await store.close()


async def test_a_folder_that_is_missing_is_named(tmp_path: Path, clock: FakeClock) -> None:
    why = await refusal(Files(tmp_path / "missing", clock))
    assert f"there is no folder {tmp_path / 'missing'}" in why


async def test_a_folder_is_no_file(files: Files) -> None:
    files.path.mkdir()
    assert "cannot be opened for writing" in await refusal(files)


@pytest.fixture
def folder() -> Generator[Path]:
    """A folder that everybody can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.fixture
def files_of_others(folder: Path, clock: FakeClock) -> Files:
    """An empty file that cannot be written to, and a folder for its locks."""
    files = Files(folder, clock)
    files.path.touch(0o444)
    locks = folder / "jobs.db-locks"
    locks.mkdir()
    locks.chmod(0o777)
    return files


@contextlib.contextmanager
def unprivileged(folder: Path) -> Generator[None]:
    """Nobody may write to the folder; root, who may everywhere, becomes nobody for a while."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


async def test_a_folder_that_cannot_be_written_to_is_named(folder: Path, clock: FakeClock) -> None:
    with unprivileged(folder):
        assert "may this user write there?" in await refusal(Files(folder, clock))


async def test_a_file_that_cannot_be_written_to_is_named(files_of_others: Files) -> None:
    with unprivileged(files_of_others.path.parent):
        assert "cannot be opened for writing" in await refusal(files_of_others)


@pytest.mark.parametrize("url", ["", "memory", "memory://x", "sqlite://", "sqlite:///", "sqlite://x.db", "postgres://x", "/x.db"])
def test_a_url_that_names_no_store_is_refused(url: str, clock: FakeClock) -> None:
    with pytest.raises(SettingError, match="memory://"):
        open_url(url, clock)


def test_relative_and_absolute_paths_are_written_as_elsewhere(clock: FakeClock) -> None:
    assert open_url("sqlite:///a/b.db", clock).path == Path("a/b.db")  # type: ignore[attr-defined]
    assert open_url("sqlite:////a/b.db", clock).path == Path("/a/b.db")  # type: ignore[attr-defined]


async def test_a_claim_reads_ready_jobs_in_their_order_out_of_the_index(files: Files) -> None:
    """However large the backlog: no sorting, no table scan."""
    one = Opened(files.another(), files)
    await one.open(TERMS)
    await one.submit(*one.jobs(1_000))
    with files.outside() as connection:
        plan = details(connection, sql.ready("1,2"), (1, 10))
        assert any("USING INDEX job_ready" in step for step in plan)
        assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN job")]
    await one.close()


async def test_a_claim_by_age_reads_the_first_of_each_priority_out_of_the_index(files: Files) -> None:
    """However large the backlog: what is sorted is at most what is claimed, ten times over."""
    one = Opened(files.another(), files)
    await one.open(TERMS)
    with files.outside() as connection:
        plan = details(connection, sql.ready_aged("1,2", 60), (1, 10))
        assert len([step for step in plan if "USING COVERING INDEX job_ready (queue=? AND priority=?)" in step]) == len(PRIORITIES)
        assert not [step for step in plan if step.startswith("SCAN job")]
    await one.close()


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (sql.PROMOTE, (0,), "job_later"),
        (sql.NEXT_DUE, (), "job_later"),
        (sql.CANCELS, (1,), "job"),
        (sql.GIVE_BACK, (0, 0, 1), "job_running"),
        (sql.COUNT_BACK, (1,), "job_running"),
        (sql.TALLY, (), "job_shelved"),
        (past_sql.FIND_DONE, (1, 1), "done_range"),
    ],
)
async def test_what_is_asked_often_is_answered_by_an_index(files: Files, statement: str, values: tuple[int, ...], index: str) -> None:
    one = Opened(files.another(), files)
    await one.open(TERMS)
    with files.outside() as connection:
        plan = details(connection, statement, values)
        assert any(index in step for step in plan if step.startswith(("SEARCH", "SCAN")))
        assert "SCAN job" not in plan
        assert "SCAN done" not in plan
    await one.close()


@pytest.mark.parametrize(
    ("statement", "values", "order"),
    [
        (sql.LOOK_AT_ALL, (0, 9), "SEARCH job USING INTEGER PRIMARY KEY (rowid>?)"),
        (sql.LOOK_AT_SHELF, (0, 9, 3, 1), "SEARCH job USING COVERING INDEX job_shelved (phase=? AND queue=? AND rowid>?)"),
        (sql.BROWSE, (0, 9, "line", "work", 99), "SEARCH job USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (sql.BROWSE_WAITING, (0, 9, "", "work", 99), "SEARCH job USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (sql.BROWSE_SHELF, (0, 9, 3, 1, "work", 99), "SEARCH job USING INDEX job_shelved (phase=? AND queue=? AND rowid>? AND rowid<?)"),
    ],
)
async def test_a_page_of_jobs_is_read_in_the_order_of_an_index(
    files: Files, statement: str, values: tuple[object, ...], order: str
) -> None:
    one = Opened(files.another(), files)
    await one.open(TERMS)
    with files.outside() as connection:
        plan = details(connection, statement, values)
        assert next(step for step in plan if "job" in step) == order
        assert not [step for step in plan if "TEMP B-TREE" in step]
    await one.close()


async def test_a_look_at_a_long_backlog_ends_and_the_next_goes_on(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabrank.stores.sqlite.browse.LOOKED_AT", 10)
    one = Opened(files.another(), files)
    await one.open(TERMS)
    jobs = [one.job(queue="rare" if place == 25 else "line") for place in range(30)]
    await one.submit(*jobs)
    pages = [await one.store.browse(JobFilter(queue="rare"), after=after) for after in (0, jobs[9].id, jobs[19].id)]
    assert [(len(page.records), page.after) for page in pages] == [(0, jobs[9].id), (0, jobs[19].id), (1, jobs[29].id)]
    await one.close()


def details(connection: apsw.Connection, statement: str, values: tuple[object, ...]) -> list[str]:
    """The steps of a query's plan."""
    return [str(row[3]) for row in connection.execute(f"explain query plan {statement}", cast(Any, values))]
