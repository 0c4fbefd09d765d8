"""A stream is cut into chunks of lines, however it comes in pieces."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabrank.server.lines import CHUNK_BYTES, Chunk, Lines, TooLong


def cut(pieces: Iterable[bytes], *, most: int = 3, limit: int = 100, even: bool = False, first: int = 1) -> list[Chunk]:
    lines = Lines(first=first, most=most, limit=limit, even=even)
    return [chunk for piece in pieces for chunk in lines.feed(piece)] + list(lines.end())


def flat(chunks: Iterable[Chunk]) -> list[bytes | TooLong]:
    return [line for chunk in chunks for line in chunk.lines]


@given(
    st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"").strip())), st.randoms(use_true_random=False), st.booleans()
)
def test_all_lines_come_out_in_their_order_and_are_numbered(lines: list[bytes], rng: random.Random, even: Any) -> None:
    body = b"".join(line + b"\n" for line in lines)
    places = sorted(rng.randrange(len(body) + 1) for _ in range(5))
    pieces = [body[begin:end] for begin, end in zip([0, *places], [*places, len(body)], strict=True)]
    chunks = cut(pieces, even=even)
    assert flat(chunks) == lines
    assert [chunk.first for chunk in chunks] == [1 + sum(len(c.lines) for c in chunks[:place]) for place in range(len(chunks))]
    if even:
        assert chunks == cut([body], even=True), "the same lines are cut alike, whatever the pieces"
        assert all(len(chunk.lines) == 3 for chunk in chunks[:-1])


def test_what_is_complete_is_given_out_at_once() -> None:
    lines = Lines(first=1, most=10, limit=100, even=False)
    assert [list(lines.feed(piece)) for piece in (b"1\n2", b"2\n", b"3")] == [[Chunk(1, [b"1"])], [Chunk(2, [b"22"])], []]
    assert list(lines.end()) == [Chunk(3, [b"3"])]


@pytest.mark.parametrize("pieces", [[b"x" * 101 + b"\n1"], [b"x" * 60, b"x" * 41, b"\n1"], [b"x"] * 101 + [b"\n1"]])
def test_a_line_that_is_too_long_is_dropped_and_counted(pieces: list[bytes]) -> None:
    assert flat(cut(pieces)) == [TooLong(101), b"1"]


def test_a_line_of_any_length_is_never_held() -> None:
    lines = Lines(first=1, most=10, limit=100, even=True)
    for _ in range(1_000):
        assert list(lines.feed(b"x" * 100)) == []
        assert len(lines._rest) <= 100
    assert flat(lines.end()) == [TooLong(100_000)]


def test_a_chunk_is_bounded_by_its_bytes_too() -> None:
    line = b"x" * (CHUNK_BYTES // 2)
    assert [len(chunk.lines) for chunk in cut([b"\n".join([line] * 5)], most=100, limit=CHUNK_BYTES, even=True)] == [2, 2, 1]


def test_line_ends_of_two_characters_are_line_ends() -> None:
    assert flat(cut([b"1\r\n2\r\n"])) == [b"1", b"2"]


def test_a_stream_may_begin_with_a_later_line() -> None:
    assert [chunk.first for chunk in cut([b"1\n2\n3\n4\n"], first=101)] == [101, 104]
