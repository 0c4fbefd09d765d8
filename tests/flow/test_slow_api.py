"""`examples/slow_api.py`, with a server that allows ten times as much and a machine that may be busy."""

from __future__ import annotations

from examples.slow_api import AT_ONCE, run


async def test_a_slow_api_is_never_overrun_and_its_allowance_is_used() -> None:
    figures = await run(600, 300, use=0.8)
    assert figures.calls == 600
    assert figures.over == 0, figures
    assert figures.most_in_a_second <= 300
    assert 1 < figures.most_at_once <= AT_ONCE
    assert figures.used <= 0.85, "no more than was asked for, but for the burst"
