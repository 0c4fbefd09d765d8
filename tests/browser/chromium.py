"""A headless Chromium, told what to do over a pair of pipes (the DevTools protocol); `python -m tests.browser.get` brings one."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "var" / "browser"
PROGRAM = Path(os.environ.get("CHROMIUM") or FOLDER / "chromium")
MISSING = "" if PROGRAM.exists() else f"there is no browser at {PROGRAM}: `make browser` brings one, CHROMIUM=/path/to/one names one"
LIBRARIES = FOLDER / "lib"
"""What the program that `get` brings is linked with, for machines that have none of it."""
MESSAGE_LIMIT = 64 * 1024 * 1024  # bytes of one message: a picture of a whole page is one
OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root has none, and what is looked at is ours
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
)
# It reads from descriptor 3 and writes to 4; what it says on its own is of no interest.
PIPES = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null'
AT_ONCE = "(() => {{ {} }})()"
ONCE_TRUE = """new Promise(resolve => {{
  const look = () => {{ const found = (() => {{ {} }})(); if (found) resolve(found); }};
  new MutationObserver(look).observe(document, {{childList: true, subtree: true, characterData: true}});
  look();
}})"""

Said = Mapping[str, Any]


class Page:
    """One tab. `urls` is what it asked for, `complaints` what its console and its scripts complained of."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.urls: list[str] = []
        self.complaints: list[str] = []
        self.asked: list[str] = []
        """The questions that it stopped for."""
        self.answers: list[str] = []
        """What is typed in, question after question."""
        self._statuses: dict[str, asyncio.Future[int]] = {}

    async def call(self, method: str, **parameters: Any) -> Any:
        return await self._browser.call(method, self._session, **parameters)

    async def open(self, url: str) -> None:
        """Go there."""
        for domain in ("Network", "Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def run(self, script: str, form: str = AT_ONCE) -> Any:
        """What the script returns; a promise is waited for."""
        said = await self.call("Runtime.evaluate", expression=form.format(script), awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def once(self, script: str) -> Any:
        """What the script returns, as soon as that is something; it is asked again after each change of the page."""
        return await self.run(script, ONCE_TRUE)

    async def status(self, url: str) -> int:
        """That of the answer to what it asked for, or will ask for."""
        return await self._status(url)

    def _status(self, url: str) -> asyncio.Future[int]:
        return self._statuses.setdefault(url, asyncio.get_running_loop().create_future())

    async def picture(self) -> bytes:
        """The whole page as a PNG."""
        said = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(said["data"])

    def heard(self, method: str, said: Said) -> None:
        """Something happened in it."""
        match method:
            case "Network.requestWillBeSent":
                self.urls.append(said["request"]["url"])
            case "Network.responseReceived":
                if not (status := self._status(said["response"]["url"])).done():
                    status.set_result(said["response"]["status"])
            case "Log.entryAdded":
                self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.complaints.append(str(said))
            case "Page.javascriptDialogOpening":
                self.asked.append(said["message"])
                typed = self.answers[len(self.asked) - 1]
                self._browser.tell("Page.handleJavaScriptDialog", self._session, accept=True, promptText=typed)
            case _:
                pass


class Browser:
    """One process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._number = 0
        self._waits: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[str, Page] = {}

    async def page(self) -> Page:
        """A new tab, empty."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        self._pages[session] = page = Page(self, session)
        return page

    async def call(self, method: str, session: str = "", **parameters: Any) -> Any:
        """Tell it to do something; its answer."""
        number = self.tell(method, session, **parameters)
        self._waits[number] = answer = asyncio.get_running_loop().create_future()
        return await answer

    def tell(self, method: str, session: str = "", **parameters: Any) -> int:
        """Tell it to do something. The number of that."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(message) + b"\0")
        return self._number

    async def listen(self) -> None:
        """Hear what it says until it ends."""
        assert self._process.stdout is not None
        try:
            while True:
                self._heard(msgspec.json.decode((await self._process.stdout.readuntil(b"\0"))[:-1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            for answer in self._waits.values():
                answer.cancel()

    def _heard(self, said: Said) -> None:
        answer = self._waits.pop(said.get("id", 0), None)
        if answer is None:
            page = self._pages.get(said.get("sessionId", ""))
            if page is not None and "method" in said:
                page.heard(said["method"], said["params"])
        elif "error" in said:
            answer.set_exception(AssertionError(said["error"]))
        else:
            answer.set_result(said["result"])


@asynccontextmanager
async def browsing(folder: Path, *options: str) -> AsyncGenerator[Browser]:
    """A browser that keeps what it has to keep in `folder`."""
    libraries = {"LD_LIBRARY_PATH": str(LIBRARIES)} if PROGRAM.is_relative_to(FOLDER) else {}
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", PIPES, str(PROGRAM), *OPTIONS, f"--user-data-dir={folder}", *options),
        env=os.environ | libraries | {"HOME": str(folder)},
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        limit=MESSAGE_LIMIT,
        process_group=0,  # its children end with it
    )
    browser = Browser(process)
    listening = asyncio.create_task(browser.listen())
    try:
        yield browser
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await listening
