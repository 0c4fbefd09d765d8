"""Who imports whom in the package, wherever the import stands: at the top, in a function, under `if TYPE_CHECKING`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from tests.architecture.sources import Source

Graph = dict[str, set[str]]


def import_graph(modules: Sequence[Source]) -> Graph:
    """For each module the modules that it names in an import; those outside of `modules` do not appear."""
    known = {module.name for module in modules}
    return {module.name: {name for name in _imported(module, known) if name != module.name} for module in modules}


def _imported(module: Source, known: set[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(module, node)
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                if submodule in known:
                    yield submodule
                elif origin in known:
                    yield origin


def absolute(module: Source, node: ast.ImportFrom) -> str:
    """The module that `from … import` names, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    kept = package[: len(package) - (node.level - 1)]
    return ".".join([*kept, node.module] if node.module else kept)
