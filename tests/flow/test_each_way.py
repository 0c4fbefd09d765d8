"""The short way of a document's jobs in memory: they join what waits for the next turn, all of them or none."""

from __future__ import annotations

import msgspec

import cabrank


class Item(msgspec.Struct):
    number: int


class Ran:
    """An app whose handlers note what they were called with."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.numbers: list[int] = []

        @self.app.job
        async def work(item: Item) -> None:
            self.numbers.append(item.number)

        @self.app.job(limit=cabrank.Limit(running=1))
        async def limited(item: Item) -> None:
            self.numbers.append(item.number)

        self.work, self.limited = work, limited


async def test_documents_that_follow_each_other_are_run_in_their_order_and_what_they_gave_stays_theirs() -> None:
    ran = Ran()
    documents = [ran.work.each([Item(1), Item(2)]), ran.work.each([Item(3)]), ran.work.each([Item(4), Item(5)])]
    async with cabrank.Dispatcher(ran.app, store="memory://") as dispatcher:
        firsts = [dispatcher.plain.take_each(document) for document in documents]
        assert [first - firsts[0] for first in firsts] == [0, 2, 3]
        [block] = dispatcher.engine.committer.pending.jobs
        assert [job.payload for job in block] == [b'{"number":%d}' % number for number in range(1, 6)]
        await dispatcher.join()
        again = dispatcher.plain.take_each(documents[0])
        await dispatcher.join()
    assert again > firsts[2]
    assert ran.numbers == [1, 2, 3, 4, 5, 1, 2]
    assert [len(document) for document in documents] == [2, 1, 2]


async def test_what_finds_no_room_for_all_of_it_is_not_taken() -> None:
    ran = Ran()
    async with cabrank.Dispatcher(ran.app, store="memory://", max_queue=3) as dispatcher:
        assert dispatcher.plain.take_each(ran.work.each([Item(1), Item(2)]))
        assert dispatcher.plain.take_each(ran.work.each([Item(3), Item(4)])) == 0
        assert dispatcher.plain.take_each(ran.work.each([Item(5)]))
        await dispatcher.join()
    assert ran.numbers == [1, 2, 5]


async def test_what_is_not_plain_goes_the_long_way() -> None:
    ran, other = Ran(), Ran()
    async with cabrank.Dispatcher(ran.app, store="memory://") as dispatcher:
        for jobs in (
            ran.work.each([]),
            ran.work.each([Item(1)]) + ran.work.each([Item(2)]),
            ran.limited.each([Item(3)]),
            other.work.each([Item(4)]),
            ran.work.each(["no item"]),  # type: ignore[list-item] # pyright: ignore[reportArgumentType] -- nobody checked it
        ):
            assert dispatcher.plain.take_each(jobs) == 0
        await dispatcher.join()
    assert ran.numbers == other.numbers == []


async def test_nothing_is_taken_by_a_queue_that_is_drained_or_a_dispatcher_that_stops() -> None:
    ran = Ran()
    async with cabrank.Dispatcher(ran.app, store="memory://") as dispatcher:
        assert dispatcher.plain.take_each(ran.work.each([Item(1)]))
        await dispatcher.drain("async")
        assert dispatcher.plain.take_each(ran.work.each([Item(2)])) == 0
        await dispatcher.resume("async")
        dispatcher.engine.close_door()
        assert dispatcher.plain.take_each(ran.work.each([Item(3)])) == 0
    assert ran.numbers == [1]
