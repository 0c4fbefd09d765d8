"""No import cycle of any kind: what two modules need from each other belongs in a third, below both.

Layers (import-linter) keep directions between folders; this keeps the inside of a folder in order too, and counts imports
that only a type checker sees.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from tests.architecture.imports import Graph, import_graph
from tests.architecture.sources import cabrank, planted


def cycle_in(graph: Graph) -> str:
    """One cycle as `a → b → a`, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        route: list[str] = error.args[1]
        return " → ".join(reversed(route))
    return ""


def test_the_package_has_no_import_cycle() -> None:
    assert cycle_in(import_graph(cabrank())) == ""


def test_the_graph_is_that_of_the_package() -> None:
    """A check that reads nothing finds nothing: the face of the package imports its parts."""
    assert import_graph(cabrank())["cabrank"]


def test_a_cycle_at_the_top_of_modules_is_found() -> None:
    graph = import_graph([planted("import pack.b", name="pack.a"), planted("from pack import a", name="pack.b")])
    assert cycle_in(graph) in {"pack.a → pack.b → pack.a", "pack.b → pack.a → pack.b"}


def test_a_cycle_under_type_checking_is_found() -> None:
    one = planted("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.b import B", name="pack.a")
    assert cycle_in(import_graph([one, planted("from pack.a import A", name="pack.b")]))


def test_a_cycle_through_a_function_and_a_relative_import_is_found() -> None:
    one = planted("def f():\n    from .c.d import D", name="pack.a")
    other = planted("from ..a import f", name="pack.c.d")
    assert cycle_in(import_graph([one, other]))


def test_a_cycle_through_a_package_is_found() -> None:
    face = planted("from .a import A", name="pack", package=True)
    assert cycle_in(import_graph([face, planted("from pack import A", name="pack.a")]))
