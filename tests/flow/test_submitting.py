"""What is submitted is run, with what it was given, when and in the order that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

import cabrank
from cabrank.testing import FakeClock


class Parcel(msgspec.Struct):
    name: str
    weight: int = 1


async def test_a_job_is_run_and_its_result_comes_back(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def weigh(parcel: Parcel) -> int:
        return parcel.weight

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(weigh, Parcel("a", 7))
        assert await handle.result() == 7
        assert handle.settled
        assert await handle.state() is cabrank.State.DONE
        assert await dispatcher.handle(handle.id).state() is cabrank.State.DONE
        assert await dispatcher.handle(handle.id).result() == 7


async def test_a_result_comes_back_as_its_type_by_id_too(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def same(parcel: Parcel) -> Parcel:
        return parcel

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        first = await dispatcher.submit(same, Parcel("one"))
        many = await dispatcher.submit_many(same, [Parcel("two"), Parcel("three")])
        assert await first.result() == Parcel("one")
        assert [await handle.result() for handle in many] == [Parcel("two"), Parcel("three")]
        assert await dispatcher.handle(first.id).result() == Parcel("one")


async def test_a_handler_takes_no_one_or_several_arguments(store: str) -> None:
    app = cabrank.App()
    seen: list[object] = []

    @app.job
    async def nothing() -> None:
        seen.append(())

    @app.job
    async def several(name: str, count: int, factor: float = 0.5) -> None:
        seen.append((name, count, factor))

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await dispatcher.submit(nothing)
        await dispatcher.submit(several, "a", 1)
        await dispatcher.submit(several, "b", 2, 2.0)
        await dispatcher.join()
    assert seen == [(), ("a", 1, 0.5), ("b", 2, 2.0)]


async def test_arguments_of_another_type_are_refused_before_anything_is_stored(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def weigh(parcel: Parcel) -> None: ...

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        with pytest.raises(cabrank.PayloadInvalid, match="weigh"):
            await dispatcher.submit(weigh, 3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue] -- the point
        with pytest.raises(cabrank.PayloadTooLarge, match="1,048,576"):
            await dispatcher.submit(weigh, Parcel("x" * 2**20))
        assert dispatcher.engine.counters.admitted == 0


async def test_a_handler_of_another_app_is_refused(store: str) -> None:
    async def stray() -> None: ...

    handler = cabrank.App().job(stray)
    async with cabrank.Dispatcher(cabrank.App(), store=store) as dispatcher:
        with pytest.raises(cabrank.RegistrationError, match="stray"):
            await dispatcher.submit(handler)


async def test_many_are_read_as_they_are_needed_and_each_is_run_once(store: str) -> None:
    app = cabrank.App()
    ran: list[int] = []

    @app.job
    async def note(number: int) -> int:
        ran.append(number)
        return -number

    def numbers() -> Iterator[int]:
        yield from range(5_000)

    async with cabrank.Dispatcher(app, store=store, max_workers=8) as dispatcher:
        handles = await dispatcher.submit_many(note, numbers())
        await dispatcher.join()
        assert len(handles) == 5_000
        assert sorted(ran) == list(range(5_000))
        assert await handles[17].result() == -17
        assert await handles[-1].result() == -4_999
        assert [handle.number for handle in handles[1:3]] == [handles[1].number, handles[2].number]
        with pytest.raises(IndexError, match="5000"):
            _ = handles[5_000]


async def test_nothing_submitted_at_once_is_nothing(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def note(number: int) -> None: ...

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        assert list(await dispatcher.submit_many(note, [])) == []


async def test_what_is_urgent_starts_first_and_equals_in_their_order(store: str) -> None:
    app = cabrank.App()
    started: list[str] = []
    busy, go = asyncio.Event(), asyncio.Event()

    @app.job
    async def block() -> None:
        busy.set()
        await go.wait()

    @app.job
    async def note(name: str) -> None:
        started.append(name)

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await dispatcher.submit(block)
        await busy.wait()
        for name, priority in (("last", 9), ("usual", None), ("usual too", 5), ("first", 0)):
            await dispatcher.submit(note, name, priority=priority)
        go.set()
        await dispatcher.join()
    assert started == ["first", "usual", "usual too", "last"]


async def test_a_delayed_job_starts_when_it_is_due_and_not_before(store: str, clock: FakeClock) -> None:
    app = cabrank.App()
    started: list[float] = []

    @app.job
    async def note() -> None:
        started.append(clock.now())

    @app.job
    async def at_once() -> None: ...

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        began_at = clock.now()
        delayed = await dispatcher.submit(note, delay_s=60)
        dated = await dispatcher.submit(note, due_at=began_at + 60)
        await clock.advance(59)
        await (await dispatcher.submit(at_once)).result()
        assert started == []
        assert await delayed.state() is cabrank.State.WAITING
        await clock.advance(6)
        await delayed.result()
        await dated.result()
    assert len(started) == 2
    assert min(started) >= began_at + 60


async def test_a_job_whose_deadline_passed_while_it_waited_is_not_run(store: str, clock: FakeClock) -> None:
    app = cabrank.App()
    busy, go = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    @app.job
    async def block() -> None:
        busy.set()
        await go.wait()

    @app.job
    async def note(name: str, *, job: cabrank.JobContext = cabrank.context()) -> None:
        ran.append(name)
        assert job.deadline_at > clock.now()

    async with cabrank.Dispatcher(app, store=store, max_workers=1, clock=clock) as dispatcher:
        await dispatcher.submit(block)
        await busy.wait()
        late = await dispatcher.submit(note, "late", deadline_s=10)
        in_time = await dispatcher.submit(note, "in time", deadline_s=100)
        clock.jump(11)
        go.set()
        with pytest.raises(cabrank.JobExpired, match="deadline"):
            await late.result()
        await in_time.result()
        assert await late.state() is cabrank.State.EXPIRED
        assert dispatcher.engine.counters.expired == 1
    assert ran == ["in time"]


async def test_a_key_makes_a_submit_repeatable(store: str) -> None:
    app = cabrank.App()
    ran: list[int] = []

    @app.job
    async def note(number: int) -> int:
        ran.append(number)
        return number

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        first = await dispatcher.submit(note, 1, key="order-1")
        await dispatcher.join()
        again = await dispatcher.submit(note, 1, key="order-1")
        assert again.id == first.id
        assert await again.result() == 1
        with pytest.raises(cabrank.KeyReused, match="order-1"):
            await dispatcher.submit(note, 2, key="order-1")
        await dispatcher.join()
    assert ran == [1]


async def test_any_callable_is_a_job_where_jobs_stay_in_memory() -> None:
    class Unwilling(Exception): ...

    shared = object()

    async def same(thing: object) -> object:
        return thing

    async def refuse() -> None:
        raise Unwilling

    async with cabrank.Dispatcher() as dispatcher:
        assert await (await dispatcher.submit(same, shared)).result() is shared
        assert await (await dispatcher.submit_many(same, [1, shared]))[1].result() is shared
        with pytest.raises(Unwilling):
            await (await dispatcher.submit(refuse)).result()


async def test_a_callable_without_a_name_is_refused_by_a_durable_store(durable: str) -> None:
    async def stray() -> None: ...

    async with cabrank.Dispatcher(store=durable) as dispatcher:
        with pytest.raises(cabrank.RegistrationError, match=r"@app\.job"):
            await dispatcher.submit(stray)


@pytest.mark.parametrize("id", ["", "1", "aaaaaaaa-0", "aaaaaaaa-1", "k7x2m9q4-9999999999999999999999"])
async def test_an_id_of_no_job_of_this_store_is_refused(store: str, id: str) -> None:
    async with cabrank.Dispatcher(cabrank.App(), store=store) as dispatcher:
        with pytest.raises(cabrank.UnknownJob):
            dispatcher.handle(id)


async def test_a_job_that_never_was_is_unknown(store: str) -> None:
    async with cabrank.Dispatcher(cabrank.App(), store=store) as dispatcher:
        handle = dispatcher.handle(f"{dispatcher.engine.handles.prefix}-99")
        with pytest.raises(cabrank.UnknownJob, match="not known"):
            await handle.state()
        with pytest.raises(cabrank.UnknownJob, match="not known"):
            await handle.result()
        assert not await handle.cancel()


async def test_options_that_cannot_be_meant_are_refused(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def note() -> None: ...

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        with pytest.raises(cabrank.SettingError, match="priority"):
            await dispatcher.submit(note, priority=10)
        with pytest.raises(cabrank.SettingError, match="not both"):
            await dispatcher.submit(note, delay_s=1, due_at=1.0)
        with pytest.raises(cabrank.SettingError, match="negative"):
            await dispatcher.submit(note, delay_s=-1)


async def test_an_intake_submits_what_a_dispatcher_runs(durable: str) -> None:
    app = cabrank.App()
    ran: list[int] = []

    @app.job
    async def note(number: int) -> int:
        ran.append(number)
        return number * 2

    async with cabrank.Intake(app, store=durable) as intake:
        handle = await intake.submit(note, 4)
        assert await handle.state() is cabrank.State.WAITING
        async with cabrank.Dispatcher(app, store=durable):
            assert await handle.result() == 8
    assert ran == [4]


async def test_what_waits_in_a_file_is_run_by_the_next_who_opens_it(durable: str) -> None:
    app = cabrank.App()
    ran: list[int] = []

    @app.job
    async def note(number: int) -> None:
        ran.append(number)

    async with cabrank.Intake(app, store=durable) as intake:
        handles = await intake.submit_many(note, range(100))
        ids = [handle.id for handle in handles]
    async with cabrank.Dispatcher(app, store=durable) as dispatcher:
        await dispatcher.join()
        assert await dispatcher.handle(ids[0]).state() is cabrank.State.DONE
    assert sorted(ran) == list(range(100))


async def test_a_job_of_a_handler_that_nobody_here_has_waits(durable: str) -> None:
    old, new = cabrank.App(), cabrank.App()

    @old.job
    async def retired() -> None: ...

    @new.job
    async def current() -> None: ...

    async with cabrank.Intake(old, store=durable) as intake:
        waiting = (await intake.submit(retired)).id
    async with cabrank.Dispatcher(new, store=durable) as dispatcher:
        await (await dispatcher.submit(current)).result()
        assert await dispatcher.handle(waiting).state() is cabrank.State.WAITING


async def test_a_payload_that_does_not_decode_any_more_is_held(durable: str) -> None:
    old, new = cabrank.App(), cabrank.App()

    @old.job(name="note")
    async def took_text(text: str) -> None: ...

    @new.job(name="note")
    async def takes_a_number(number: int) -> None: ...

    async with cabrank.Intake(old, store=durable) as intake:
        id = (await intake.submit(took_text, "three")).id
    async with cabrank.Dispatcher(new, store=durable) as dispatcher:
        await dispatcher.join()
        assert await dispatcher.handle(id).state() is cabrank.State.HELD


async def test_an_intake_over_memory_acknowledges_and_is_left() -> None:
    app = cabrank.App()

    @app.job
    async def note() -> None: ...

    async with cabrank.Intake(app) as intake:
        handle = await intake.submit(note)
        assert await handle.state() is cabrank.State.WAITING
    with pytest.raises(cabrank.IntakeClosed):
        await intake.submit(note)
