"""The public face: what `import cabrank` offers is listed once, and the version is one and the same everywhere."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version

import cabrank
from tests.architecture.sources import ROOT, Source, planted
from tests.architecture.sources import cabrank as package_sources


def bound_names(face: Source) -> list[str]:
    """The public names that the package's `__init__` binds, sorted; a function's own names are not among them."""
    return sorted({name for statement in _statements(face.tree.body) for name in _bound(statement) if not name.startswith("_")})


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from _statements([*statement.body, *statement.orelse])


def _bound(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.ImportFrom(module="typing" | "__future__"):
            pass
        case ast.ImportFrom() | ast.Import():
            yield from (alias.asname or alias.name.split(".")[0] for alias in statement.names)
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case _:
            pass


def test_all_lists_what_the_package_binds() -> None:
    face = next(module for module in package_sources() if module.name == "cabrank")
    assert sorted(cabrank.__all__) == bound_names(face)


def test_what_all_lists_is_there() -> None:
    assert [name for name in cabrank.__all__ if not hasattr(cabrank, name)] == []


def test_a_name_that_is_bound_and_not_listed_is_seen() -> None:
    text = """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        from cabrank.app import App, Jobs as Work
        if TYPE_CHECKING:
            from cabrank.executor import DispatcherExecutor
        _private = Limit = 1
        def __getattr__(name: str) -> object:
            local = name
        __all__ = ["App"]
    """
    assert bound_names(planted(text, name="cabrank", package=True)) == ["App", "DispatcherExecutor", "Limit", "Work"]


def newest_version(changelog: str) -> str:
    """The version of the first section, released or not."""
    found = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    return found[1] if found else ""


def test_changelog_project_and_installation_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert newest_version((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")) == project
    assert version("cabrank") == project


def test_the_first_section_of_the_changelog_counts() -> None:
    assert newest_version("# Changes\n\n## 0.3.0 (not released)\n\n## 0.2.0, 2026-11-24\n") == "0.3.0"
    assert newest_version("# Changes\n") == ""
