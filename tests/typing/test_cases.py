"""What a type checker must say to users, in mypy's words and in pyright's.

A line of a case ends in `# error: arg-type reportArgumentType` when both checkers must refuse it under those names (mypy's have
dashes and no capitals, pyright's begin with `report`). Each unmarked line must pass both; `assert_type` says what is inferred.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.typing.checkers import Finding, mypy, pyright

CASES = Path(__file__).parent / "cases"
MARK = re.compile(r"# error: (?P<rules>[\w -]+)$")
Checker = Callable[[Path], set[Finding]]

pytestmark = pytest.mark.timeout(180)  # both checkers start cold on a new machine, pyright with its own Node


def marked(folder: Path) -> set[Finding]:
    """The errors that the files themselves announce, of both checkers."""
    return {
        Finding(file=file.name, line=number, rule=rule)
        for file in folder.glob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if (mark := MARK.search(line))
        for rule in mark["rules"].split()
    }


def of_pyright(findings: set[Finding]) -> set[Finding]:
    return {finding for finding in findings if finding.rule.startswith("report")}


def of_mypy(findings: set[Finding]) -> set[Finding]:
    return findings - of_pyright(findings)


def test_mypy_refuses_what_is_marked_and_nothing_else() -> None:
    assert mypy(CASES) == of_mypy(marked(CASES))


def test_pyright_refuses_what_is_marked_and_nothing_else() -> None:
    assert pyright(CASES) == of_pyright(marked(CASES))


def test_each_mark_names_a_rule_of_each_checker() -> None:
    places = [{(finding.file, finding.line) for finding in findings} for findings in (of_mypy(marked(CASES)), of_pyright(marked(CASES)))]
    assert places[0] == places[1] != set()


@pytest.mark.parametrize(("checker", "rule"), [(mypy, "assignment"), (pyright, "reportAssignmentType")])
def test_an_error_without_a_mark_is_seen(checker: Checker, rule: str, tmp_path: Path) -> None:
    shutil.copy(CASES / "pyrightconfig.json", tmp_path)
    (tmp_path / "unmarked.py").write_text('limit: int = "ten"\n', encoding="utf-8")
    assert checker(tmp_path) == {Finding(file="unmarked.py", line=1, rule=rule)}
    assert marked(tmp_path) == set()
