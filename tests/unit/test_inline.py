"""A job that runs where it is submitted."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import pytest

import cabrank
from cabrank.testing import InlineDispatcher
from tests.faults import program


class Size(msgspec.Struct):
    wide: int


def make_app() -> cabrank.App:
    app = cabrank.App()

    @app.job
    async def double(size: Size) -> Size:
        return Size(2 * size.wide)

    @app.job
    def fails(text: str) -> None:
        raise LookupError(text)

    @app.job
    async def returns_no_json() -> object:
        return object()

    @app.job
    async def injected(*, job: cabrank.JobContext = cabrank.context(), stock: list[int] = cabrank.resource(lambda: [7])) -> str:
        return f"{job.run} {job.attempt} {stock}"

    return app


@pytest.fixture
async def inline() -> AsyncGenerator[InlineDispatcher]:
    async with InlineDispatcher(make_app()) as inline:
        yield inline


async def test_it_has_run_when_the_submit_returns(inline: InlineDispatcher) -> None:
    handle = await inline.submit(inline.app.handler("double"), Size(4))
    assert handle.settled
    assert await handle.result() == Size(8)
    assert await handle.state() == "done"
    assert not await handle.cancel()


async def test_what_it_raises_is_raised_by_the_submit(inline: InlineDispatcher) -> None:
    with pytest.raises(LookupError, match="no such"):
        await inline.submit(inline.app.handler("fails"), "no such")
    with pytest.raises(LookupError, match="no such"):
        await inline.try_submit(inline.app.handler("fails"), "no such")
    with pytest.raises(LookupError, match="first"):
        await inline.submit_many(inline.app.handler("fails"), ["first", "second"])


async def test_payload_and_result_go_through_json(inline: InlineDispatcher) -> None:
    with pytest.raises(cabrank.PayloadInvalid):
        await inline.submit(inline.app.handler("double"), object())
    with pytest.raises(cabrank.JobFailed, match="unrecordable"):
        await inline.submit(inline.app.handler("returns_no_json"))


async def test_context_and_resources_are_put_in(inline: InlineDispatcher) -> None:
    assert await (await inline.submit(inline.app.handler("injected"))).result() == "1 1 [7]"


async def test_any_callable_and_options_are_taken(inline: InlineDispatcher) -> None:
    handle = await inline.submit(int, "17", delay_s=3_600, key="once", tags=("a",))
    assert await handle.result() == 17
    with pytest.raises(cabrank.SettingError, match="priority"):
        await inline.submit(int, "17", priority=10)
    with pytest.raises(cabrank.SettingError, match="key"):
        await inline.submit(int, "17", key="\n")


async def test_a_handler_may_submit(inline: InlineDispatcher) -> None:
    async def outer() -> int:
        return await (await inline.submit(int, "5")).result() + 1

    assert await (await inline.submit(outer)).result() == 6
    assert [await handle.result() for handle in await inline.submit_many(int, ["1", "2"])] == [1, 2]


async def test_it_is_a_dispatcher_otherwise(inline: InlineDispatcher) -> None:
    assert [number async for number in inline.map(int, ["1", "2"])] == [1, 2]
    await inline.join()
    await inline.stop()
    with pytest.raises(cabrank.IntakeClosed):
        await inline.submit(int, "1")


async def test_no_process_is_started() -> None:
    async with InlineDispatcher(program.app) as inline:
        assert await (await inline.submit(program.double, 21)).result() == 42
        import os  # noqa: PLC0415

        assert await (await inline.submit(program.works_in)).result() == os.getpid()
