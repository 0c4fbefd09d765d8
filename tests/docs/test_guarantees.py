"""Each guarantee names tests, and these are there."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "guarantees.md"
NAMED = re.compile(r"`((?:tests|src)/[\w/]+\.py)::(test_\w+)`")


def named() -> list[tuple[str, str]]:
    return NAMED.findall(PAGE.read_text("utf-8"))


@pytest.mark.parametrize(("file", "test"), named())
def test_a_test_that_is_named_is_there(file: str, test: str) -> None:
    assert re.search(rf"^ *(?:async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), f"{file} has no {test}"


def test_each_guarantee_names_one() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|") and line.count("|") == 3]
    guarantees = [row for row in rows if not row.startswith(("| guarantee", "|---"))]
    assert len(guarantees) > 20
    assert [row for row in guarantees if not NAMED.search(row)] == []
