"""The how-to pages do what they say: their files are written, their commands run, what they show is what comes out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, files, fits, run, steps

PAGES = [
    "bulk-runs.md",
    "call-from-blocking-code.md",
    "change-a-payload.md",
    "come-from.md",
    "hear-of-dead-jobs.md",
    "limit-calls.md",
    "look-after-jobs.md",
    "pack-uploads.md",
    "schedule-jobs.md",
    "see-what-runs.md",
    "stop-cleanly.md",
    "swap-your-executor.md",
    "test-your-jobs.md",
]


@pytest.mark.timeout(300)  # a dozen commands, each a process, some of which work
@pytest.mark.parametrize("name", PAGES)
def test_the_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / name).read_text("utf-8")
    for file, text in files(page).items():
        (tmp_path / file).write_text(text, "utf-8")
    ran = list(steps(page))
    assert ran, "a page without a command shows nothing"
    if any("curl " in step.command for step in ran) and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for step in ran:
        printed = run(step, tmp_path)
        assert fits(printed, step.prints), f"{step.command} printed:\n{printed}\nand the page says:\n{step.prints}"


def test_what_a_page_shows_is_compared() -> None:
    assert fits("a 1 b\nc\nd\n", "a … b\n…\nd")
    assert not fits("a 1 b\n", "a … c")
