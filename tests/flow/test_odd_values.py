"""One odd value of one job or one caller ends that job or that call, and nothing else."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

import cabrank
from cabrank.server.problems import answer_to
from cabrank.settings import Settings
from cabrank.stores.contract import Submission, Tally


class Unset(msgspec.Struct):
    """A result that fails when it is looked at."""

    number: int

    @classmethod
    def broken(cls) -> Unset:
        value = cls.__new__(cls)
        assert isinstance(value, cls)
        return value


class Wordless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


def surrogate() -> object:
    raise ValueError("file-\udcff.txt")


def endless() -> object:
    raise cabrank.Snooze(for_s=math.inf)


def textual() -> object:
    raise cabrank.TryAgain(after_s=cast(Any, "3"))


def wordless() -> object:
    raise Wordless


@pytest.mark.parametrize("odd", [surrogate, endless, textual, wordless, Unset.broken])
async def test_what_a_handler_leaves_behind_hurts_nobody_else(store: str, odd: Callable[[], object]) -> None:
    app = cabrank.App()

    @app.job(retry=cabrank.Retry(attempts=1))
    async def strange() -> object:
        return odd()

    @app.job
    async def plain() -> int:
        return 1

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(strange)
        with pytest.raises(cabrank.JobFailed):
            await handle.result()
        assert await (await dispatcher.submit(plain)).result() == 1


@pytest.mark.parametrize(
    "when",
    [{"due_at": datetime.now(UTC)}, {"delay_s": math.nan}, {"delay_s": "1"}, {"deadline_s": -1.0}, {"key": "\udcff"}, {"key": "x" * 257}],
)
async def test_an_option_that_cannot_be_meant_is_refused_where_it_is_given(store: str, when: dict[str, Any]) -> None:
    app = cabrank.App()

    @app.job
    async def plain() -> int:
        return 1

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        with pytest.raises(cabrank.SettingError, match=next(iter(when)).split("_")[0]):
            await dispatcher.submit(plain, **when)
        assert await (await dispatcher.submit(plain)).result() == 1


@pytest.mark.parametrize("policy", [{"timeout_s": "30"}, {"timeout_s": -5}, {"timeout_s": math.nan}, {"max_crashes": 0}])
def test_a_policy_that_cannot_be_meant_is_refused_at_registration(policy: dict[str, Any]) -> None:
    async def work() -> None: ...

    with pytest.raises(cabrank.RegistrationError, match=next(iter(policy))):
        cabrank.App().job(**policy)(work)


def test_errors_that_are_not_retried_are_exception_types() -> None:
    with pytest.raises(cabrank.SettingError, match="tuple of exception types"):
        cabrank.Retry(unless=cast(Any, [ValueError]))


def test_keywords_go_before_settings() -> None:
    dispatcher = cabrank.Dispatcher(store="sqlite:///said.db", max_workers=3, max_queue=7, settings=Settings(grace_s=5))
    assert dispatcher.engine.store.capabilities.durable
    assert (dispatcher.settings.max_workers, dispatcher.settings.max_queue, dispatcher.settings.grace_s) == (3, 7, 5)


@pytest.mark.parametrize("numbers", [{"max_workers": {"uplaods": 2}}, {"max_queue": {"uplaods": 2}}])
def test_a_number_for_a_queue_that_is_not_there_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(cabrank.SettingError, match=r"uplaods.*there are async, process, thread"):
        cabrank.Dispatcher(**numbers)


async def test_a_submit_that_is_cancelled_while_it_waits_for_room_stores_nothing(store: str) -> None:
    app = cabrank.App()
    go, ran = asyncio.Event(), list[int]()

    @app.job
    async def work(number: int) -> None:
        await go.wait()
        ran.append(number)

    async with cabrank.Dispatcher(app, store=store, max_workers=1, max_queue=1) as dispatcher:
        await dispatcher.submit(work, 0)
        while (await dispatcher.engine.store.tally())["async"].running < 1:
            await asyncio.sleep(0)
        await dispatcher.submit(work, 1)
        waiting = asyncio.ensure_future(dispatcher.submit(work, 2))
        while not dispatcher.engine.committer.in_line("async"):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        await dispatcher.join()
    assert ran == [0, 1]


async def test_a_bulk_of_large_payloads_goes_in_parts(durable: str) -> None:
    app = cabrank.App()
    seen: list[int] = []

    @app.job
    async def weigh(text: str) -> None:
        seen.append(len(text))

    async with cabrank.Dispatcher(app, store=durable) as dispatcher:
        await dispatcher.submit_many(weigh, ("x" * 1_000_000 for _ in range(20)))
        await dispatcher.join()
    assert seen == [1_000_000] * 20


def test_keys_of_handlers_with_long_names_do_not_meet() -> None:
    from cabrank.job import digest_of  # noqa: PLC0415

    assert digest_of("x" * 64 + "a", b"1") != digest_of("x" * 64 + "b", b"1")


async def test_more_jobs_together_than_the_queue_takes_are_refused_for_good_and_not_asked_to_come_again(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def work(number: int) -> None: ...

    answers: list[object] = []
    async with cabrank.Dispatcher(app, store=store, max_queue=2) as dispatcher:
        dispatcher.enter(Submission(jobs=dispatcher.drafts.together(work.each([1, 2, 3]))), answers.append)
        assert isinstance(answers[0], cabrank.NeverFits)
        assert answer_to(answers[0]).status == 413
        assert not (await dispatcher.engine.store.tally()).get("async", Tally()).waiting
