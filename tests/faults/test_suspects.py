"""A job that ends the whole server is given up after `max_crashes`, and costs none of the jobs beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.suspects import serve_suspects

INNOCENTS = 500


@pytest.mark.timeout(120)  # four processes, each of which imports and opens
async def test_a_job_that_ends_its_server_is_dead_after_max_crashes_and_no_innocent_is(tmp_path: Path) -> None:
    outcome = await serve_suspects(tmp_path, INNOCENTS)
    assert (outcome.guilty_state, outcome.guilty_reason) == ("dead", "worker_lost")
    assert outcome.starts == 4, "it ended three, and the fourth had nothing left to fear"
    assert (outcome.dead, outcome.unrun) == (0, 0)
