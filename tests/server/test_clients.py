"""The clients of `docs/wire-protocol.md`, as they stand there, against a server: curl, JavaScript and Go, each where its tool is."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.process import command
from tests.server.serving import get

PAGE = Path(__file__).parents[2] / "docs" / "wire-protocol.md"
APP = """
import msgspec, cabrank

app = cabrank.App()

class Upload(msgspec.Struct):
    device: str

@app.job
async def upload(upload: Upload) -> None: ...
"""
GO = (shutil.which("go"), *(str(path) for path in Path(sys.prefix).glob("bin/go")))
FOUND = next((go for go in GO if go), "go")
# file, what runs it, and what only a tool does that is there and new enough
TOOLS = {
    "sh": ("client.sh", ["sh"], ["curl", "--fail-with-body", "--version"]),
    "js": ("client.mjs", ["node"], ["node", "--input-type=module", "--eval", "fetch; crypto.randomUUID()"]),
    "go": ("client.go", [FOUND, "run"], [FOUND, "version"]),
}


def works(probe: list[str]) -> bool:
    return shutil.which(probe[0]) is not None and not subprocess.run(probe, capture_output=True, check=False).returncode


def example(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.timeout(900)  # the first Go program of a machine compiles the standard library
@pytest.mark.parametrize("language", TOOLS)
async def test_the_client_of_the_page_works(language: str, tmp_path: Path) -> None:
    name, run, probe = TOOLS[language]
    if not works(probe):
        pytest.skip(f"{probe[0]} is not installed, or too old")
    (tmp_path / "clients.py").write_text(APP, "utf-8")
    async with command(tmp_path, "serve", "clients.py:app", "--port", "0", "--store", "memory://") as started:
        await started.listening()
        (tmp_path / name).write_text(example(language).replace(":8470", f":{started.port}"), "utf-8")
        client = await asyncio.create_subprocess_exec(
            *run,
            name,
            cwd=tmp_path,
            env=os.environ | {"GO111MODULE": "off", "no_proxy": "127.0.0.1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complained = await client.communicate()
        assert client.returncode == 0, complained.decode()
        [id] = re.findall(r"[a-z2-7]{8}-[0-9]+", said.decode())
        assert (await started.ask(get(f"/jobs/{id}?wait_s=30"))).json()["state"] == "done"
