"""The command line: what is wrong is said in one line, in the user's terms, and the exit status is 1."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import cabrank
from cabrank.cli.commands import run
from cabrank.cli.loading import load_app
from cabrank.cli.logs import OneLine

GOOD = "import cabrank\nfrom beside import number\nother = 1\napp = cabrank.App()\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize("place", ["good:app", "good.py:app", "./good.py:app", "{folder}/good.py:app"])
def test_an_app_is_found_in_a_module_and_in_a_file(folder: Path, place: str) -> None:
    (folder / "good.py").write_text(GOOD, "utf-8")
    (folder / "beside.py").write_text("number = 1\n", "utf-8")
    assert isinstance(load_app(place.format(folder=folder)), cabrank.App)


def test_an_app_is_found_in_a_module_of_a_package(folder: Path) -> None:
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    (folder / "pack" / "jobs.py").write_text("from . import more\nimport cabrank\napp = cabrank.App()\n", "utf-8")
    (folder / "pack" / "more.py").touch()
    assert isinstance(load_app("pack.jobs:app"), cabrank.App)


def test_a_file_may_have_the_name_of_a_module_that_is_in_use(folder: Path) -> None:
    (folder / "json.py").write_text("import cabrank\napp = cabrank.App()\n", "utf-8")
    assert isinstance(load_app("json.py:app"), cabrank.App)
    assert sys.modules["json"].__file__ != str(folder / "json.py")


@pytest.mark.parametrize(
    ("place", "text", "words"),
    [
        ("none.py:app", None, "there is no file none.py"),
        ("none:app", None, "there is no module 'none'"),
        ("none.deep:app", None, "there is no module 'none.deep'"),
        ("bad.py", "", "'bad.py' names no app"),
        ("bad.py:", "", "'bad.py:' names no app"),
        ("bad.py:app", "", "bad.py has no 'app'; it needs a line such as: app = cabrank.App()"),
        ("bad.py:app", "import cabrank\nmine = cabrank.App()\n", "bad.py has no 'app'; did you mean bad.py:mine?"),
        ("bad.py:app", "app = 1\n", "'app' in bad.py is int, not cabrank.App"),
        ("bad.py:app", "import cabrank\ndef f(:\n", "bad.py:2: invalid syntax\n    def f(:"),
        ("bad:app", "x = 1\ny = (\n", "bad.py:2: '(' was never closed\n    y = ("),
        ("bad.py:app", "\n\nimport no_such_module\n", "bad.py:3: ModuleNotFoundError: No module named 'no_such_module'"),
        ("bad:app", "\n\nimport no_such_module\n", "bad.py:3: ModuleNotFoundError: No module named 'no_such_module'"),
        ("bad.py:app", "import json\njson.loads('{')\n", "bad.py:2: JSONDecodeError"),
        (
            "bad.py:app",
            "import cabrank\napp = cabrank.App()\n@app.job\nasync def f(*args): ...\n",
            "bad.py:3: RegistrationError: f: a handler names its parameters",
        ),
    ],
)
def test_what_is_wrong_with_an_app_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], place: str, text: str | None, words: str
) -> None:
    if text is not None:
        (folder / "bad.py").write_text(text, "utf-8")
    assert run(["serve", place, "--store", "memory://", "--port", "0"]) == 1
    assert capsys.readouterr().err.startswith(f"cabrank: {words}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "192.0.2.1"], "other machines"),
        (["--port", "70000"], "65535"),
        (["--store", "nowhere"], "store='nowhere'"),
        (["--workers", "many"], "max_workers='many'"),
        (["--max-queue", "0"], "max_queue must be at least 1"),
        (["--grace", "-1"], "grace_s"),
    ],
)
def test_what_is_wrong_with_an_option_is_told(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    (folder / "good.py").write_text("import cabrank\napp = cabrank.App()\n", "utf-8")
    assert run(["serve", "good.py:app", *(["--port", "0"] if "--port" not in options else []), *options]) == 1
    assert words in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("path/to/telemetry.py:app", "--store", "CABRANK_MAX_WORKERS", "uploads=200,thread=4"):
        assert words in text


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"cabrank {cabrank.__version__}"


def test_what_is_not_installed_is_named_with_the_line_that_installs_it() -> None:
    program = "import sys; sys.modules['uvicorn'] = None\nfrom cabrank.cli import main\nmain()"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "cabrank: uvicorn is missing, and the command needs it: pip install 'cabrank[serve]'\n"


def test_text_from_outside_cannot_pass_for_another_entry_of_the_log() -> None:
    record = logging.LogRecord("cabrank", logging.INFO, "", 0, "got %s", ("a\nERROR forged\r",), None)
    assert OneLine("%(levelname)s %(message)s").format(record) == "INFO got a\\nERROR forged\\r"


def test_the_settings_are_shown_with_their_reasons_and_those_that_are_set_stand_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CABRANK_GRACE_S", "3")
    assert run(["settings"]) == 0
    shown = capsys.readouterr().out
    assert "CABRANK_GRA" in shown, "the table may break the word"
    assert shown.count("CABRANK_GRA") == 1
    assert "supervisors" in shown, "the reason for the default of the grace"
    assert run(["settings", "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["grace_s"] == 3.0


def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CABRANK_PORT", "eighty")
    assert run(["settings"]) == 1
    assert "CABRANK_PORT='eighty'" in capsys.readouterr().err
