"""Every relative link of a page leads to a file, and to a heading if it names one; the index leads to every page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

SHOWN = ("*.md", "docs/**/*.md", "bench/**/*.md", "examples/**/*.md", "src/**/*.md", "tests/**/*.md")
PAGES = sorted({page for shown in SHOWN for page in ROOT.glob(shown) if "node_modules" not in page.parts})
INDEX = ROOT / "docs" / "README.md"
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


def links(text: str) -> list[str]:
    """The targets of a text's links that stay in the project."""
    targets = [link["target"] for link in LINK.finditer(CODE.sub("code", text))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> Iterator[str]:
    """What the headings of a page are called in links, as GitHub calls them."""
    seen: Counter[str] = Counter()
    for heading in HEADING.finditer(FENCED.sub("", text)):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["title"]).lower()).replace(" ", "-")
        yield f"{words}-{seen[words]}" if seen[words] else words
        seen[words] += 1


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target in links(page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        place = page.parent / name if name else page
        if not place.exists() or (anchor and anchor not in set(anchors(place.read_text("utf-8")))):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_the_index_leads_to_every_page() -> None:
    led_to = {(INDEX.parent / link.partition("#")[0]).resolve() for link in links(INDEX.read_text("utf-8"))}
    pages = [page for page in PAGES if INDEX.parent in page.parents and page.parent.name != "adr" and page != INDEX]
    assert len(pages) > 30
    assert [str(page.relative_to(ROOT)) for page in pages if page not in led_to] == []


def test_the_list_of_decisions_leads_to_each() -> None:
    folder = ROOT / "docs" / "adr"
    assert sorted(set(links((folder / "README.md").read_text("utf-8")))) == sorted(page.name for page in folder.glob("0*.md"))


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`: c, d\n[a](#a-b-c-d) [b](#e) [c](other.md) `[d](e.md)` [e](https://example.org)\n```\n# e\n```\n", "utf-8")
    assert broken(page) == ["#e", "other.md"]
