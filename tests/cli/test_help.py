"""The help of every command teaches: each option says what it does, and an example is a line that can be copied."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cyclopts import App

from cabrank.cli.commands import program, run


def commands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    for name in app:
        if not name.startswith("-"):
            inner = app[name]
            yield from commands(inner, (*path, name)) if inner.default_command is None else [(*path, name)]


SILENT = re.compile(r"│ (--|[A-Z])\S*( \S+)*\s+(\[|│)")
COMMANDS = sorted(commands(program))


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    assert run([*words, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_argument_of_a_command_says_what_it_does(help_of: str) -> None:
    silent = [line for line in help_of.splitlines() if SILENT.match(line)]
    assert "Usage: cabrank" in help_of
    assert silent == []


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_example_stands_in_a_line_of_its_own(words: tuple[str, ...], help_of: str) -> None:
    command = program
    for word in words:
        command = command[word]
    examples = re.findall(r"(?m)^ {4,}((?:\w+=\S+ |zcat .*)?cabrank .*)$", inspect.getdoc(command.default_command) or "")
    assert set(examples) <= {line.strip() for line in help_of.splitlines()}


def test_a_row_without_a_word_of_help_is_seen() -> None:
    rows = ["│ --store STR                  │", "│ --json --no-json  [default: False]   │", "│ NAMES   │"]
    assert [row for row in rows if SILENT.match(row)] == rows
    assert not SILENT.match("│ --store STR  Where the jobs are.   │")


def test_the_server_without_its_extra_is_named_with_the_line_that_installs_it() -> None:
    code = "import sys; sys.modules['starlette'] = None\nimport cabrank.server"
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].endswith("starlette is missing, and cabrank.server needs it: pip install 'cabrank[serve]'")
