"""`/docs` in a real browser: what it shows, what it asks for, and what pages of others can do to the server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.browser.chromium import MISSING, ROOT, Browser, Page, browsing
from tests.server.process import Server, command
from tests.server.serving import get

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
    pytest.mark.timeout(120),
]
pytest.importorskip("drf_spectacular_sidecar", exc_type=ImportError)

TELEMETRY = ROOT / "examples" / "telemetry.py"
PICTURE = ROOT / "var" / "docs.png"
TOKEN = "a-token-that-is-typed-into-the-page"
DRAWN = """
  const drawn = [...document.querySelectorAll(".opblock-summary")];
  const text = (block, part) => block.querySelector(part).textContent.replaceAll("\\u200b", "").trim();
  return drawn.length && drawn.map(block => [text(block, ".opblock-summary-path"), text(block, ".opblock-summary-method").toLowerCase()]);
"""
HARM = "<img src=x onerror=harmed=1><script>harmed = 1</script> [a link](javascript:harmed=1)"
FORM = """
<form method=post enctype=text/plain action=http://127.0.0.1:{}/jobs/note><input name='"a' value='"'></form>
<script>document.forms[0].submit()</script>
"""
HARMING_APP = f"""
import cabrank

app = cabrank.App()

@app.job
async def note(text: str = {HARM!r}) -> None:
    {HARM!r}
"""


async def opened(browser: Browser, server: Server, *answers: str) -> Page:
    page = await browser.page()
    page.answers += answers
    await page.open(f"http://127.0.0.1:{server.port}/docs")
    return page


async def described(server: Server, *headers: str) -> set[tuple[str, str]]:
    """Path and method of each operation of `/openapi.json`."""
    request = get("/openapi.json").replace(b"\r\n\r\n", "\r\n".join(["", *headers, "", ""]).encode())
    paths = (await server.ask(request)).json()["paths"]
    return {(path, method) for path, methods in paths.items() for method in methods if method != "parameters"}


async def drawn(page: Page) -> set[tuple[str, str]]:
    """The same, of what the page shows."""
    return {(path, method) for path, method in await page.once(DRAWN)}


async def test_the_page_shows_each_endpoint_and_asks_nobody_but_its_server(tmp_path: Path) -> None:
    options = ("--port", "0", "--store", "memory://")
    async with (
        command(tmp_path, "serve", f"{TELEMETRY}:app", *options, TELEMETRY_BUCKET=str(tmp_path / "bucket")) as server,
        browsing(tmp_path / "browser") as browser,
    ):
        await server.listening()
        page = await opened(browser, server)
        operations = await described(server)
        assert ("/telemetry", "post") in operations
        assert await drawn(page) == operations
        assert page.complaints == []
        assert {urlsplit(url).netloc for url in page.urls if not url.startswith("data:")} == {f"127.0.0.1:{server.port}"}
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_bytes(await page.picture())
        answer = await page.run(
            'return fetch("telemetry", {method: "POST", body: JSON.stringify({version: "1", token: "t", data: []})})'
            ".then(answer => answer.json())"
        )
        assert answer == {"ids": []}, "the server takes work from its own page"


async def test_what_an_app_says_of_itself_is_text_and_the_token_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "harming.py").write_text(HARMING_APP, "utf-8")
    options = ("--port", "0", "--store", "memory://")
    async with (
        command(tmp_path, "serve", "harming.py:app", *options, CABRANK_TOKEN=TOKEN) as server,
        browsing(tmp_path / "browser") as browser,
    ):
        await server.listening()
        page = await opened(browser, server, "a wrong one", TOKEN)
        assert await drawn(page) == await described(server, f"Authorization: Bearer {TOKEN}")
        assert len(page.asked) == 2
        await page.run('document.querySelector("#operations-jobs-note button, [id*=note] button").click()')
        links = await page.once('return document.querySelectorAll("a, img").length && [...document.querySelectorAll("a")].map(a => a.href)')
        assert [link for link in links if link.startswith("javascript:")] == []
        assert await page.run("return typeof harmed") == "undefined"
        assert {urlsplit(url).netloc for url in page.urls if not url.startswith("data:")} == {f"127.0.0.1:{server.port}"}


async def test_a_page_of_another_origin_and_a_name_that_was_pointed_here_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "harming.py").write_text(HARMING_APP, "utf-8")
    async with (
        command(tmp_path, "serve", "harming.py:app", "--port", "0", "--store", "memory://") as server,
        browsing(tmp_path / "browser", "--host-resolver-rules=MAP evil.example 127.0.0.1") as browser,
    ):
        await server.listening()
        stranger = await browser.page()
        await stranger.open(f"data:text/html,{quote(FORM.format(server.port))}")
        assert await stranger.status(f"http://127.0.0.1:{server.port}/jobs/note") == 403
        rebound = await browser.page()
        await rebound.open(f"http://evil.example:{server.port}/docs")
        assert "urn:cabrank:unknown-host" in await rebound.once("return document.body && document.body.innerText")
        sent = 'return fetch("/jobs/note", {method: "POST", body: \'"a"\'}).then(answer => answer.status)'
        assert await rebound.run(sent) == 421
        assert (await server.ask(get("/jobs"))).json() == {"jobs": [], "after": None}
