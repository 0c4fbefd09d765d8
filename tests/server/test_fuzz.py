"""A sample of what `python -m bench.fuzz` sends a million of: no crash, no 5xx, no hang, nothing in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.fuzz import Fuzzing, make_input, start

SAMPLE = 3_000
SEED = "sample"  # the same inputs each time, so that a change is refused for what it did; `bench.fuzz` draws others


def test_an_input_is_made_of_its_seed_and_number_alone() -> None:
    assert [make_input("s", number) for number in range(50)] == [make_input("s", number) for number in range(50)]
    assert make_input("s", 1) != make_input("t", 1)


@pytest.mark.timeout(600)
async def test_no_input_harms_the_server(tmp_path: Path) -> None:
    process, port, log = start(tmp_path)
    try:
        fuzzing = Fuzzing(port, SEED)
        await fuzzing.send(0, SAMPLE, at_once=16)
        assert not fuzzing.faults, fuzzing.faults[:5]
        assert process.poll() is None, "it ended"
        assert "Traceback" not in log.read_text("utf-8", "replace"), log.read_text("utf-8", "replace")[-3000:]
        assert min(fuzzing.statuses[202], fuzzing.statuses[400]) > 0, "good ones are among them, and bad ones"
    finally:
        process.kill()
        process.wait()
