"""One word for one thing: a name in the package says job, worker, store …, and none of the words that other projects use."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

import pytest

from tests.architecture.sources import Source, cabrank, planted

REFUSED = {
    "task": "job, or say what the asyncio task does: root, sweep",
    "message": "job, or payload",
    "consumer": "worker",
    "broker": "store",
    "actor": "handler",
    "manager": "say what it does",
    "helper": "say what it does",
    "util": "say what it does",
}
FOREIGN = {  # names of asyncio and uvicorn, where one of their methods is overridden
    "create_task",
    "set_task_factory",
    "task_done",
    "on_message_begin",
    "on_message_complete",
    "_start_asgi_task",
}
HOLDERS = {  # modules that hold the thing that the word means in Python
    "cabrank.errors": "message",  # an error has one
    "cabrank.root": "task",  # asyncio.Task
    "cabrank.workers.coroutine": "task",  # asyncio.Task
}


def misnamed(modules: Iterable[Source]) -> list[str]:
    """Each name that is made here out of a refused word, one line each. Names of others may be used."""
    return [finding for module in modules for finding in _misnamed(module)]


def _misnamed(module: Source) -> Iterator[str]:
    names = [(module.name.rsplit(".", maxsplit=1)[-1], 1), *_made_names(module.tree)]
    for name, line in names:
        for word in _words(name) & REFUSED.keys():
            if name not in FOREIGN and HOLDERS.get(module.name) != word:
                yield f"{module.place(line)}: {name}: not {word!r}; {REFUSED[word]}"


def _words(name: str) -> set[str]:
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
    return words | {word.removesuffix("s") for word in words}


def _made_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name, node.lineno
            case _:
                pass


def test_names_use_the_words_of_the_project() -> None:
    assert misnamed(cabrank()) == []


@pytest.mark.parametrize(
    "text",
    [
        "class TaskRunner: ...",
        "def run_tasks() -> None: ...",
        "async def f(message: str) -> None: ...",
        "class C:\n    def __init__(self) -> None:\n        self.broker_url = ''",
        "HTTP_CONSUMER = 1",
        "import asyncio as manager",
        "for actor in (): ...",
        "match 1:\n    case helper: ...",
        "utils = ()",
    ],
)
def test_a_refused_word_is_found(text: str) -> None:
    assert len(misnamed([planted(text)])) == 1


def test_a_module_named_with_a_refused_word_is_found() -> None:
    assert len(misnamed([planted("", name="cabrank.task_queue")])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio\nroot = asyncio.current_task()",
        "from contextlib import asynccontextmanager",
        "class Loop:\n    def create_task(self) -> None: ...",
        "utility = factor = multitasking = 1",
    ],
)
def test_names_of_others_may_be_used(text: str) -> None:
    assert misnamed([planted(text)]) == []


def test_a_word_is_free_where_it_means_the_thing_itself() -> None:
    text = "class E(Exception):\n    def __init__(self, message: str) -> None: ..."
    assert misnamed([planted(text, name="cabrank.errors")]) == []
    assert len(misnamed([planted(text, name="cabrank.root")])) == 1
