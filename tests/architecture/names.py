"""The names of other modules that a module uses, in full: `from time import time as now` uses `time.time`.

What a call returns is reached through `()`: `asyncio.get_running_loop().create_task`. A name that was not imported starts with
`~`, so that it never passes for a module: `~loop.create_task`. A call yields its name a second time, with `()` at the end.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.imports import absolute
from tests.architecture.sources import Source

Use = tuple[str, ast.expr | ast.stmt]


def used_names(module: Source) -> Iterator[Use]:
    """Every imported name, every attribute and every call, each with its node."""
    origins: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                origins[alias.asname or alias.name.split(".")[0]] = alias.name if alias.asname else alias.name.split(".")[0]
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origins[alias.asname or alias.name] = f"{absolute(module, node)}.{alias.name}"
                yield f"{absolute(module, node)}.{alias.name}", node
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Call):
            yield _full_name(node, origins), node


def _full_name(node: ast.expr, origins: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return origins.get(name, f"~{name}")
        case ast.Attribute(value=value, attr=attribute):
            return f"{_full_name(value, origins)}.{attribute}"
        case ast.Call(func=function):
            return f"{_full_name(function, origins)}()"
        case _:
            return "~"
