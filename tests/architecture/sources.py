"""The project's modules as the checks of this folder read them: parsed, never imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One module: its dotted name, where it lies, its text."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    def place(self, line: int) -> str:
        return f"{self.path}:{line}"

    def functions(self) -> Iterator[Definition]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Definition))


def planted(text: str, *, name: str = "cabrank.planted", package: bool = False) -> Source:
    """A module that is not there, for showing that a check catches what it should."""
    path = Path("src", *name.split("."))
    return Source(name=name, path=path / "__init__.py" if package else path.with_suffix(".py"), text=dedent(text))


@cache
def sources(folder: str) -> tuple[Source, ...]:
    """Every module below a folder of the project."""
    return tuple(_read(path, base=ROOT / "src" if folder == "src" else ROOT) for path in sorted((ROOT / folder).rglob("*.py")))


def cabrank() -> tuple[Source, ...]:
    """Every module of the package."""
    return sources("src")


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of `packages` (dotted names) or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _read(path: Path, *, base: Path) -> Source:
    parts = path.relative_to(base).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Source(name=name, path=path.relative_to(ROOT), text=path.read_text(encoding="utf-8"))
