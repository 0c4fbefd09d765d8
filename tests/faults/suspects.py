"""One job that ends its whole server, among many innocents: what became of them, and how often the server had to be started."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

import cabrank
from tests.faults.suspecting import SETTINGS, make_app

ROOT = Path(__file__).parents[2]
MOST_STARTS = 20


class Outcome(msgspec.Struct, kw_only=True):
    """`dead` are the innocents that were given up, `unrun` those that were not run."""

    innocents: int
    starts: int
    dead: int
    unrun: int
    guilty_state: str
    guilty_reason: str


async def serve_suspects(folder: Path, innocents: int) -> Outcome:
    """Submit them, and start the server again as long as it dies."""
    app = make_app(folder)
    async with cabrank.Intake(app, store=f"sqlite:///{folder}/jobs.db", settings=SETTINGS) as intake:
        half = innocents // 2
        await intake.submit_many(app.handler("innocent"), range(half))
        bad = await intake.submit(app.handler("guilty"))
        await intake.submit_many(app.handler("innocent"), range(half, innocents))
    starts = 1
    while starts < MOST_STARTS and await _served(folder):
        starts += 1
    async with cabrank.Intake(app, store=f"sqlite:///{folder}/jobs.db", settings=SETTINGS) as intake:
        record = (await intake.engine.store.find([bad.number]))[bad.number]
        dead = sum(counted.dead for counted in (await intake.engine.store.tally()).values()) - (record.state is cabrank.State.DEAD)
    ran = {int(line) for line in (folder / "ran").read_bytes().split()}
    return Outcome(
        innocents=innocents, starts=starts, dead=dead, unrun=innocents - len(ran), guilty_state=record.state, guilty_reason=record.reason
    )


async def _served(folder: Path) -> int:
    """What the server ended with."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.faults.suspecting", str(folder), cwd=ROOT)
    return await process.wait()
