"""The clients of `docs/wire-protocol.md`, as they stand there, against a server: curl, JavaScript and Go, each where its tool is."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
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
TOOLS = {
    "sh": ("curl", "client.sh", ["sh"]),
    "js": ("node", "client.mjs", ["node"]),
    "go": ("go", "client.go", [next((go for go in GO if go), "go"), "run"]),
}


def example(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.timeout(900)  # the first Go program of a machine compiles the standard library
@pytest.mark.parametrize("language", TOOLS)
async def test_the_client_of_the_page_works(language: str, tmp_path: Path) -> None:
    tool, name, run = TOOLS[language]
    if shutil.which(run[0]) is None or shutil.which("curl" if tool == "curl" else run[0]) is None:
        pytest.skip(f"{tool} is not installed")
    (tmp_path / "clients.py").write_text(APP, "utf-8")
    async with command(tmp_path, "serve", "clients.py:app", "--port", "0", "--store", "memory://") as started:
        await started.listening()
        (tmp_path / name).write_text(example(language).replace(":8470", f":{started.port}"), "utf-8")
        client = await asyncio.create_subprocess_exec(
            *run,
            name,
            cwd=tmp_path,
            env=os.environ | {"GO111MODULE": "off"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complained = await client.communicate()
        assert client.returncode == 0, complained.decode()
        [id] = re.findall(r"[a-z2-7]{8}-[0-9]+", said.decode())
        assert (await started.ask(get(f"/jobs/{id}?wait_s=30"))).json()["state"] == "done"
