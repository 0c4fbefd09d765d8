"""`cabrank run` as real processes over real files: interrupted in any way, each item stands once in what it wrote."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.run import run as run_and_kill
from cabrank.cli.commands import run
from tests.server.process import command, gated

PROGRAM = """
import asyncio, os
import msgspec
import cabrank

app = cabrank.App()

class Person(msgspec.Struct):
    name: str
    age: int | None = None

async def double(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return number * 2

def shout(text: str) -> str:
    return text.upper()

def years(person: Person) -> int | None:
    return person.age

def add(a: int, b: int = 10) -> int:
    return a + b

def count(path: str) -> int:
    with open("tries", "a") as file:
        file.write("x")
    raise OSError("never")

def nothing() -> None: ...

@app.job(retry=cabrank.Retry(attempts=1))
async def once(number: int) -> None:
    with open("tries", "a") as file:
        file.write("x")
    raise OSError("never")

@app.job(batch=cabrank.Batch(jobs=3))
async def packed(numbers: list[int]) -> list[cabrank.Failure | None]:
    return [cabrank.Failure("odd", retry=False) if number % 2 else None for number in numbers]

@app.job(limit=cabrank.Limit(running=2, key=lambda number: "a" * number))
async def limited(number: int) -> int:
    return number

async def gated(number: int) -> int:
    reader, writer = await asyncio.open_unix_connection(os.environ["GATE"])
    writer.write(b"%d\\n" % number)
    await reader.read()
    writer.close()
    return number

def pid(number: int) -> int:
    return os.getpid()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cabrank(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cabrank", "run", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def results(path: str = "items.results.ndjson") -> list[tuple[int, object]]:
    return [(entry["line"], entry["result"]) for entry in map(json.loads, Path(path).read_text("utf-8").splitlines())]


def errors(path: str = "items.errors.ndjson") -> list[tuple[int, str, str]]:
    lines = map(json.loads, Path(path).read_text("utf-8").splitlines())
    return [(entry["line"], entry["reason"], entry["error"].splitlines()[-1]) for entry in lines]


def test_results_come_in_the_order_of_the_input_and_failures_can_be_fed_in_again() -> None:
    Path("items.ndjson").write_text("3\n\n-1\nnot json\n7", "utf-8")
    first = cabrank("program.py:double", "items.ndjson", "--store", "run.db", "--attempts", "1")
    assert first.returncode == 1
    assert "finished: 2 done, 2 failed" in first.stderr
    assert results() == [(1, 6), (5, 14)]
    assert Path("items.failures.ndjson").read_text("utf-8") == "-1\nnot json\n"
    assert errors()[0] == (3, "failed", "ValueError: -1 is below 0")
    assert errors()[1][:2] == (4, "invalid")
    assert errors()[1][2].startswith("line 4: not valid JSON")

    Path("items.failures.ndjson").write_text("1\n2\n", "utf-8")  # mended by hand
    second = cabrank("program.py:double", "items.failures.ndjson", "--store", "again.db", "--output", "again.ndjson")
    assert second.returncode == 0, second.stderr
    assert results("again.ndjson") == [(1, 2), (2, 4)]


def test_a_run_that_is_finished_does_nothing_again_and_goes_on_where_the_input_has_grown() -> None:
    Path("items.ndjson").write_text("1\n2\n", "utf-8")
    for _ in range(2):
        ended = cabrank("program.py:double", "items.ndjson")
        assert ended.returncode == 0, ended.stderr
        assert results() == [(1, 2), (2, 4)]
    with Path("items.ndjson").open("a") as file:
        file.write("3\n")
    assert cabrank("program.py:double", "items.ndjson").returncode == 0
    assert results() == [(1, 2), (2, 4), (3, 6)]


def test_csv_is_read_by_its_columns_and_numbers_are_read_out_of_text() -> None:
    Path("items.csv").write_text('name,age\nann,41\n"bob\nold",\neve,x\nonly\n\n', "utf-8")
    assert cabrank("program.py:years", "items.csv", "--store", "run.db").returncode == 1
    assert results() == [(2, 41), (3, None)]
    assert Path("items.failures.csv").read_text("utf-8") == "name,age\neve,x\nonly\n"
    assert [line for line, _, _ in errors()] == [5, 6]
    assert errors()[1][2] == "line 6: it has 1 columns, and the first line names 2"


def test_several_parameters_are_columns_or_fields() -> None:
    Path("items.csv").write_text("a,b\n1,2\n3,\n", "utf-8")
    Path("other.ndjson").write_text('{"a": 1}\n{"a": 1, "b": 1}\n', "utf-8")
    assert cabrank("program.py:add", "items.csv").returncode == 0
    assert cabrank("program.py:add", "other.ndjson").returncode == 0
    assert results() == [(2, 3), (3, 13)]
    assert results("other.results.ndjson") == [(1, 11), (2, 2)]


def test_lines_are_texts_and_stdin_is_an_input() -> None:
    options = ("--store", "run.db", "--format", "lines", "--output", "out.ndjson")
    ended = cabrank("program.py:shout", "-", *options, stdin="a b\r\n\n  c\n")
    assert ended.returncode == 0, ended.stderr
    assert results("out.ndjson") == [(1, "A B"), (3, "  C")]


def test_an_item_is_tried_three_times_unless_the_handler_or_the_option_says_otherwise() -> None:
    Path("one.txt").write_text("a\n", "utf-8")
    Path("one.ndjson").write_text("1\n", "utf-8")
    tries = Path("tries")
    for handler, items, options, expected in (
        ("count", "one.txt", (), 3),
        ("count", "one.txt", ("--attempts", "2"), 2),
        ("once", "one.ndjson", (), 1),
    ):
        tries.write_text("", "utf-8")
        store = f"{handler}{expected}.db"
        ended = cabrank(f"program.py:{handler}", items, "--store", store, "--output", f"{handler}{expected}.ndjson", *options)
        assert ended.returncode == 1, ended.stderr
        assert len(tries.read_text("utf-8")) == expected


def test_a_plain_function_can_run_in_processes() -> None:
    Path("items.ndjson").write_text("1\n2\n", "utf-8")
    ended = cabrank("program.py:pid", "items.ndjson", "--kind", "process", "--workers", "1")
    assert ended.returncode == 0, ended.stderr
    assert len(results()) == 2


def test_a_batch_handler_says_of_each_item_what_became_of_it() -> None:
    Path("items.ndjson").write_text("".join(f"{n}\n" for n in range(8)), "utf-8")
    ended = cabrank("program.py:packed", "items.ndjson")
    assert "finished: 4 done, 4 failed" in ended.stderr
    assert [line for line, _ in results()] == [1, 3, 5, 7]
    assert Path("items.failures.ndjson").read_text("utf-8") == "1\n3\n5\n7\n"


def test_an_item_whose_limit_has_no_key_is_a_failure() -> None:
    Path("items.ndjson").write_text("1\n300\n2\n", "utf-8")
    ended = cabrank("program.py:limited", "items.ndjson")
    assert "finished: 2 done, 1 failed" in ended.stderr
    assert errors()[0][:2] == (2, "invalid")


async def test_sigusr1_prints_what_runs_and_it_goes_on(folder: Path) -> None:
    (folder / "items.ndjson").write_text("1\n2\n", "utf-8")
    async with gated(folder) as gate, command(folder, "run", "program.py:gated", "items.ndjson") as started:
        assert {await gate.came.get(), await gate.came.get()} == {"1", "2"}
        started.tell(signal.SIGUSR1)
        await started.logged(b"2 jobs run\n")
        await started.logged(b" gated: run 1 in queue async (async) for ")
        await started.logged(b"in gated: ")
        gate.open()
        assert await started.ended() == 0
    assert results() == [(1, 1), (2, 2)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_lets_what_runs_finish_and_the_same_command_goes_on(folder: Path, number: signal.Signals) -> None:
    (folder / "items.ndjson").write_text("".join(f"{n}\n" for n in range(3_000)), "utf-8")
    arguments = ("run", "program.py:gated", "items.ndjson", "--store", "run.db", "--workers", "2")
    async with gated(folder) as gate:
        async with command(folder, *arguments) as started:
            assert {await gate.came.get(), await gate.came.get()} == {"0", "1"}
            started.tell(number)
            await started.logged(b"stopping: ")
            gate.open()
            await started.logged(b"the same command again")
            assert await started.ended() == 130
            assert b"interrupted: " in started.log
            assert b"Traceback" not in started.log
        first = results()
        assert first[:2] == [(1, 0), (2, 1)]
        assert len(first) < 3_000, "nothing more is begun"
        async with command(folder, *arguments) as again:
            await again.logged(b"finished: 3,000 done")
            assert await again.ended() == 0
        came = [int(gate.came.get_nowait()) for _ in range(gate.came.qsize())]
    assert sorted(came) == list(range(2, 3_000)), "what was settled is not run again"
    assert results() == [(n + 1, n) for n in range(3_000)]


async def test_completed_order_lets_nobody_wait_for_a_slow_item(folder: Path) -> None:
    (folder / "items.ndjson").write_text("0\n1\n", "utf-8")
    program = PROGRAM.replace("await reader.read()", "await (reader.read() if number == 0 else asyncio.sleep(0))")
    (folder / "program.py").write_text(program, "utf-8")
    output = folder / "items.results.ndjson"
    async with gated(folder) as gate:
        arguments = ("run", "program.py:gated", "items.ndjson", "--store", "run.db", "--order", "completed")
        async with command(folder, *arguments) as started:
            await asyncio.to_thread(_written, output)
            assert results() == [(2, 1)]
            gate.open()
            assert await started.ended() == 0
    assert results() == [(2, 1), (1, 0)]


def _written(path: Path) -> None:
    """Return when something stands in the file."""
    until = time.monotonic() + 50
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("order", ["input", "completed"])
def test_each_item_stands_once_in_the_output_however_often_it_is_killed(tmp_path: Path, order: str) -> None:
    found = run_and_kill(tmp_path, 20_000, 5, random.Random(order), "--order", order)
    assert (found.results, found.missing, found.twice, found.wrong) == (20_000, 0, 0, 0)
    assert found.in_order or order == "completed"


def test_what_is_behind_the_record_is_cut_off() -> None:
    Path("items.ndjson").write_text("1\n2\n", "utf-8")
    assert cabrank("program.py:double", "items.ndjson").returncode == 0
    with Path("items.results.ndjson").open("a") as file:
        file.write('{"line":3,"result":6}\n{"line":4,"res')  # written, and the process killed before the record was
    with Path("items.ndjson").open("a") as file:
        file.write("3\n")
    assert cabrank("program.py:double", "items.ndjson").returncode == 0
    assert results() == [(1, 2), (2, 4), (3, 6)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("program.py:nobody", "items.ndjson"), "has no 'nobody'"),
        (("program.py:app", "items.ndjson"), "which is App"),
        (("program.py", "items.ndjson"), "names no fetch"),
        (("program.py:double", "absent.ndjson"), "absent.ndjson cannot be read: No such file"),
        (("program.py:double", "items.dat"), "give --format"),
        (("program.py:double", "-"), "give --store run.db"),
        (("program.py:double", "items.ndjson", "--store", "memory://"), "needs a file"),
        (("program.py:nothing", "items.ndjson"), "takes no parameter"),
        (("program.py:once", "items.ndjson", "--kind", "process"), "--kind is for a plain function"),
        (("program.py:double", "items.ndjson", "--output", "items.ndjson"), "would be written over"),
        (("program.py:double", "items.ndjson", "--output", "program.py"), "program.py exists already"),
        (("program.py:double", "items.ndjson", "--store", "none/run.db"), "lock file cannot be made"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_in_one_line(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("items.ndjson").write_text("1\n", "utf-8")
    Path("items.dat").write_text("1\n", "utf-8")
    assert run(["run", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_another_input_or_other_options_are_not_the_same_run() -> None:
    Path("items.ndjson").write_text("1\n2\n", "utf-8")
    assert cabrank("program.py:double", "items.ndjson").returncode == 0
    other = cabrank("program.py:double", "items.ndjson", "--order", "completed")
    assert "was begun with order input, not completed" in other.stderr
    Path("items.ndjson").write_text("9\n2\n", "utf-8")
    assert "was begun with another input" in cabrank("program.py:double", "items.ndjson").stderr
