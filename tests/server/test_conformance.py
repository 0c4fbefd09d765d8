"""The server is what `/openapi.json` says of it: schemathesis makes requests out of that, good and bad ones, and judges the answers."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.server.process import command

SEED = "7"  # the same requests each time; another seed makes others: python -m schemathesis.cli run …/openapi.json --seed N
EXAMPLES = "3"  # of each operation; a bounded number, for the test of every day
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
)
APP = """
from typing import Annotated, Literal
import msgspec, cabrank

app = cabrank.App()

class Payload(msgspec.Struct):
    device: str
    count: int = 0
    level: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0
    kind: Literal["a", "b"] = "a"

@app.job
async def note(payload: Payload) -> int:
    return payload.count

@app.job(queue="other")
async def size(wide: int, high: int) -> None: ...

@app.job
async def bare() -> None: ...

@app.document("/telemetry")
def telemetry(document: list[Payload]) -> cabrank.Jobs:
    return note.each(document)
"""
HOOKS = """
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return str(value).encode("utf-8", "replace")
"""

pytestmark = pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed")


@pytest.mark.timeout(600)
async def test_the_server_is_what_its_description_says(tmp_path: Path) -> None:
    """A drain would make all others 503, which is right and no news: it is left out."""
    (tmp_path / "described.py").write_text(APP, "utf-8")
    (tmp_path / "hooks.py").write_text(HOOKS, "utf-8")
    options = ("--port", "0", "--store", "memory://", "--grace", "0")
    async with command(tmp_path, "serve", "described.py:app", *options, CABRANK_MAX_QUEUE="100000") as started:
        await started.listening()
        examining = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"http://127.0.0.1:{started.port}/openapi.json"),
            *("--exclude-operation-id", "drain_queue", "--checks", ",".join(CHECKS)),
            *("--phases", "coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED, "--no-color"),
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await examining.communicate()
        assert examining.returncode == 0, said.decode()[-6000:]
        started.kill()
        await started.ended()
        assert b"Traceback" not in started.log, started.log.decode()[-3000:]
