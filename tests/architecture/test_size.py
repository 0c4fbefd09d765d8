"""A module fits on a few pages and a function on one: what is longer has two subjects."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator

from tests.architecture.sources import Definition, Source, planted, sources

MODULE_LIMIT = 300  # code lines: no blank line, no comment, no docstring
FUNCTION_LIMIT = 40  # code lines, signature included

NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
Documented = ast.Module | ast.ClassDef | Definition


def oversized(modules: Iterable[Source]) -> list[str]:
    """What is too long, one line each."""
    return [finding for module in modules for finding in _oversized(module)]


def _oversized(module: Source) -> Iterator[str]:
    code = code_lines(module)
    if len(code) > MODULE_LIMIT:
        yield f"{module.path}: {len(code)} code lines, the limit is {MODULE_LIMIT}: find its second subject and move that out"
    for function in module.functions():
        length = sum(function.lineno <= line <= _end(function) for line in code)
        if length > FUNCTION_LIMIT:
            yield f"{module.place(function.lineno)}: {function.name} has {length} code lines, the limit is {FUNCTION_LIMIT}"


def code_lines(module: Source) -> set[int]:
    """The numbers of the lines that hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    lines = {line for token in tokens if token.type not in NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    return lines - _docstring_lines(module.tree)


def _docstring_lines(tree: ast.Module) -> set[int]:
    documented = (node for node in ast.walk(tree) if isinstance(node, Documented) and ast.get_docstring(node) is not None)
    return {line for node in documented for line in range(node.body[0].lineno, _end(node.body[0]) + 1)}


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def test_modules_and_functions_are_short() -> None:
    assert oversized([*sources("src"), *sources("bench"), *sources("examples")]) == []


def test_a_module_one_line_too_long_is_found() -> None:
    assert oversized([planted("a = 1\n" * MODULE_LIMIT)]) == []
    [finding] = oversized([planted("a = 1\n" * (MODULE_LIMIT + 1))])
    assert "301 code lines, the limit is 300" in finding


def test_a_function_one_line_too_long_is_found() -> None:
    assert oversized([planted("def f():\n" + "    a = 1\n" * (FUNCTION_LIMIT - 1))]) == []
    [finding] = oversized([planted("class C:\n    async def f(self):\n" + "        a = 1\n" * FUNCTION_LIMIT)])
    assert "planted.py:2: f has 41 code lines, the limit is 40" in finding


def test_docstrings_comments_and_blank_lines_are_free() -> None:
    text = '"""Page.\n\nMore.\n"""\n\n# why\n\n\ndef f():\n    """First.\n\n    More.\n    """\n    # why\n\n    return 1\n'
    assert code_lines(planted(text)) == {9, 16}


def test_each_line_of_a_text_that_is_no_docstring_counts() -> None:
    assert code_lines(planted('SQL = """\nselect 1\n"""\n')) == {1, 2, 3}
