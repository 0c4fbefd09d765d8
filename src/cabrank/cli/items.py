"""The items of a run, read from a file or from stdin in chunks. Where a chunk begins and ends depends on the input alone."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from cabrank import foreign
from cabrank.errors import CabrankError
from cabrank.handler import AnyHandler

CHUNK_ITEMS = 1_000  # items that are admitted together: about one turn
CHUNK_BYTES = 256 * 1024  # of the input, whichever comes first: what is in memory stays small
HEAD_BYTES = 4096  # by these a run knows its input again
STDIN = "-"

Convert = Callable[[Any], bytes]


class InputUnusable(CabrankError):
    """The input cannot be read as it is."""


class Format(StrEnum):
    """How items stand in the input."""

    NDJSON = "ndjson"
    CSV = "csv"
    LINES = "lines"


class Mark(msgspec.Struct, frozen=True):
    """A place in the input: bytes, lines and items before it."""

    offset: int = 0
    line: int = 0
    item: int = 0


class Item(msgspec.Struct, frozen=True):
    """One item: the line where it begins, what stands there, and its payload, or what is wrong with it."""

    line: int
    raw: bytes
    payload: bytes = b""
    error: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """Items in a row, `end` being where the next chunk begins."""

    start: Mark
    end: Mark
    items: list[Item]


class Head(msgspec.Struct, frozen=True):
    """The first bytes of an input."""

    size: int
    digest: str


def format_of(path: str, said: Format | None) -> Format:
    """The format that was said, else that of the file's name.

    Raises:
        InputUnusable: the name does not say.
    """
    known = {".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON, ".csv": Format.CSV, ".txt": Format.LINES, ".lines": Format.LINES}
    if said is not None:
        return said
    if path == STDIN:
        return Format.NDJSON
    try:
        return known[Path(path).suffix.lower()]
    except KeyError:
        raise InputUnusable(f"{path}: its name does not say what it holds: give --format ndjson, csv or lines") from None


class Source:
    """The input: read from the beginning or from a mark, once."""

    def __init__(self, path: str, form: Format, handler: AnyHandler) -> None:
        """Open it.

        Raises:
            InputUnusable: it cannot be opened, or the handler takes no item.
        """
        self.path = path
        self._form = form
        self._handler = handler
        if not handler.codec.names:
            raise InputUnusable(f"{handler.name} takes no parameter, so there is nothing that an item could be to it")
        try:
            self._file: BinaryIO = open(sys.stdin.fileno() if path == STDIN else path, "rb", closefd=path != STDIN)  # noqa: SIM115 -- a number; it is open as long as this
            self.size = 0 if path == STDIN else Path(path).stat().st_size
        except OSError as error:
            raise InputUnusable(f"{path} cannot be read: {error.strerror}") from None
        self._first = self._file.readline() if form is Format.CSV else b""
        self._columns = self._read_header()

    @property
    def header(self) -> bytes:
        """The line of CSV that names the columns, which a file of such rows begins with."""
        return self._first if self._first.endswith(b"\n") or not self._first else self._first + b"\n"

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def head(self, size: int | None) -> Head:
        """What it begins with, up to `size` bytes. Nothing of stdin, which cannot be gone back in: there the keys of chunks tell."""
        head = b""
        if self.path != STDIN:
            self._file.seek(0)
            head = self._file.read(HEAD_BYTES if size is None else size)
            self._file.seek(len(self._first))
        return Head(len(head), hashlib.blake2b(head, digest_size=16).hexdigest())

    def chunks(self, start: Mark) -> Iterator[Chunk]:
        """The chunks from `start` on. Blank lines are no items.

        Raises:
            InputUnusable: it is not what it should be as a whole; a bad line is an item with an error.
        """
        items: list[Item] = []
        size, end = 0, start
        for raw, end, made in self._records(start):
            if made is not None:
                items.append(made)
                size += len(raw)
            if len(items) >= CHUNK_ITEMS or size >= CHUNK_BYTES or not items:
                if items:
                    yield Chunk(start, end, items)
                start, items, size = end, [], 0
        if items:
            yield Chunk(start, end, items)

    def _records(self, start: Mark) -> Iterator[tuple[bytes, Mark, Item | None]]:
        """What stands there, where it ends, and the item, if it is one."""
        read = self._csv if self._form is Format.CSV else self._plain
        offset, item = start.offset, start.item
        for raw, line, lines, made in read(start):
            offset += len(raw)
            item += made is not None
            yield raw, Mark(offset, line + lines, item), made

    def _from(self, passed: int, offset: int) -> Iterator[bytes]:
        """The lines from `offset` on, where `passed` bytes were read."""
        if self.path != STDIN:
            self._file.seek(offset)
        while self.path == STDIN and passed < offset:
            line = self._file.readline()
            if not line:
                raise InputUnusable("stdin ends before the place where this run stopped: give it the same input again")
            passed += len(line)
        return iter(self._file)

    def _plain(self, start: Mark) -> Iterator[tuple[bytes, int, int, Item | None]]:
        text, line = self._form is Format.LINES, start.line
        to_payload = converter(self._handler)
        for raw in self._from(0, start.offset):
            content = raw.strip(b"\r\n") if text else raw.strip()
            if not content.strip():
                yield raw, line, 1, None
            elif text:
                yield raw, line, 1, _item(line + 1, raw, partial(_text, content, to_payload))
            else:
                yield raw, line, 1, Item(line + 1, raw, content)
            line += 1

    def _csv(self, start: Mark) -> Iterator[tuple[bytes, int, int, Item | None]]:
        to_payload = converter(self._handler)
        taken: list[bytes] = []

        def lines() -> Iterator[str]:
            for raw in self._from(len(self._first), max(start.offset, len(self._first))):
                taken.append(raw)
                yield raw.decode("utf-8", "surrogateescape")

        line = max(start.line, 1)
        if not start.line:
            yield self._first, 0, 1, None
        rows = csv.reader(lines(), strict=True)
        while True:
            row: list[str] | str | None
            try:
                row = next(rows, None)
            except csv.Error as error:
                row = str(error)
            raw = b"".join(taken)
            if row is None and not raw:
                return
            made = None if row is None or row == [] else _item(line + 1, raw, partial(_cells, self._columns, row, to_payload))
            yield raw, line, len(taken), made
            line += len(taken)
            taken.clear()

    def _read_header(self) -> list[str]:
        rows = list(csv.reader([self._first.decode("utf-8-sig", "replace")]))
        columns = rows[0] if rows else []
        if len(set(columns)) < len(columns):
            raise InputUnusable(f"{self.path}: its first line names a column twice")
        return columns


def _item(line: int, raw: bytes, payload: Callable[[], bytes]) -> Item:
    try:
        return Item(line, raw, payload())
    except (ValueError, TypeError) as error:  # of msgspec, of a wrong encoding, of the row itself
        return Item(line, raw, error=str(error))


def _text(content: bytes, to_payload: Convert) -> bytes:
    return to_payload(content.decode())


def _cells(columns: list[str], row: list[str] | str | None, to_payload: Convert) -> bytes:
    if isinstance(row, str) or row is None:
        raise ValueError(f"it is not CSV: {row}")
    if len(row) != len(columns):
        raise ValueError(f"it has {len(row)} columns, and the first line names {len(columns)}")
    for cell in row:
        cell.encode()  # a wrong encoding is an error here
    return to_payload(dict(zip(columns, row, strict=True)))


def converter(handler: AnyHandler) -> Convert:
    """What makes the payload of a text, or of the cells of a row by column: numbers and the like are read out of the text."""
    codec, wire = handler.codec, handler.codec.wire

    def convert(value: Any) -> bytes:
        return codec.encode_exact(msgspec.convert(value, wire, strict=False, dec_hook=foreign.decode))

    def convert_any(value: Any) -> bytes:
        if not isinstance(value, dict):
            return convert(value)
        cells: dict[str, str] = value  # pyright: ignore[reportUnknownVariableType] -- isinstance cannot tell what is in it
        try:
            return convert(cells)
        except msgspec.ValidationError as error:
            for again in _other_readings(cells):
                try:
                    return convert(again)
                except msgspec.ValidationError:
                    continue
            raise error from None

    return convert_any


def _other_readings(cells: dict[str, str]) -> list[object]:
    """An empty cell is as good as none, and one column alone is the value itself."""
    filled = {name: cell for name, cell in cells.items() if cell}
    alone: list[object] = list(cells.values()) if len(cells) == 1 else []
    return [filled, *alone] if len(filled) < len(cells) else alone
