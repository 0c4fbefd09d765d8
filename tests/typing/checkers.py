"""What mypy and pyright, both strict, say about the files of a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]


class Finding(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One error: where, and the rule's name (`arg-type` for mypy, `reportArgumentType` for pyright)."""

    file: str
    line: int
    rule: str


class _MypyLine(msgspec.Struct):
    file: str
    line: int
    code: str | None
    severity: str


class _Position(msgspec.Struct):
    line: int


class _Range(msgspec.Struct):
    start: _Position


class _PyrightDiagnostic(msgspec.Struct):
    file: str
    range: _Range
    severity: str
    rule: str = ""


class _PyrightReport(msgspec.Struct, rename="camel"):
    general_diagnostics: list[_PyrightDiagnostic]


def mypy(folder: Path) -> set[Finding]:
    """Its errors by the project's own settings."""
    files = map(str, sorted(folder.glob("*.py")))
    lines = _run("mypy", "--output=json", "--no-error-summary", *files).splitlines()
    return set(_from_mypy(msgspec.json.decode(line, type=_MypyLine) for line in lines))


def _from_mypy(lines: Iterable[_MypyLine]) -> Iterator[Finding]:
    for line in lines:
        if line.severity == "error":
            yield Finding(file=Path(line.file).name, line=line.line, rule=line.code or "syntax")


def pyright(folder: Path) -> set[Finding]:
    """Its errors by the `pyrightconfig.json` of the folder: it judges no file that the project's settings exclude."""
    text = _run("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(folder))
    return set(_from_pyright(msgspec.json.decode(text, type=_PyrightReport).general_diagnostics))


def _from_pyright(diagnostics: Iterable[_PyrightDiagnostic]) -> Iterator[Finding]:
    for found in diagnostics:
        if found.severity == "error":
            line = found.range.start.line + 1  # pyright counts lines from 0
            yield Finding(file=Path(found.file).name, line=line, rule=found.rule or "syntax")


def _run(module: str, *arguments: str) -> str:
    ran = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode not in {0, 1}:  # 1: it found errors, which is what the cases are for
        raise RuntimeError(f"{module} ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
    return ran.stdout
