from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest

import cabrank
from cabrank.handler import bare_handler, is_async
from cabrank.settings import Kind


class Batch(msgspec.Struct):
    numbers: list[int]


async def work(number: int) -> int:
    return number


def block(number: int) -> int:
    return number


def test_a_handler_is_found_under_its_functions_name_and_is_still_that_function() -> None:
    app = cabrank.App()

    @app.job
    async def double(number: int) -> int:
        """Twice as much."""
        return 2 * number

    assert app.handler("double") is double
    assert (double.name, double.queue, double.kind, double.__doc__) == ("double", "async", Kind.ASYNC, "Twice as much.")
    coroutine = double(3)
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == 6


def test_a_name_a_queue_and_a_policy_can_be_given() -> None:
    app = cabrank.App()
    retry = cabrank.Retry(attempts=2)
    handler = app.job(name="other", queue="uploads", retry=retry, timeout_s=5, max_crashes=7)(work)
    assert (handler.name, handler.queue, handler.retry, handler.timeout_s, handler.max_crashes) == ("other", "uploads", retry, 5, 7)
    assert app.queues == {"uploads": Kind.ASYNC}


def test_functions_go_to_threads_unless_they_say_process() -> None:
    app = cabrank.App()
    assert app.job(block).queue == "thread"
    assert app.job(name="hard", kind="process")(block).queue == "process"


def test_an_unknown_handler_is_named_beside_those_there_are() -> None:
    app = cabrank.App()
    app.job(work)
    with pytest.raises(cabrank.UnknownHandler, match="no handler named 'wrok' in this app; it has work"):
        app.handler("wrok")


@pytest.mark.parametrize("name", ["-x", "a b", "a/b", "x" * 129, "é", "a\n"])
def test_a_name_that_does_not_fit_into_a_url_is_refused(name: str) -> None:
    with pytest.raises(cabrank.RegistrationError, match="cannot name a handler"):
        cabrank.App().job(name=name)(work)
    with pytest.raises(cabrank.RegistrationError, match="cannot name a queue"):
        cabrank.App().job(queue=name)(work)


def test_a_name_is_given_once() -> None:
    app = cabrank.App()
    app.job(work)
    with pytest.raises(cabrank.RegistrationError, match="named 'work' already"):
        app.job(work)


def test_a_queue_has_workers_of_one_kind() -> None:
    app = cabrank.App()
    app.job(queue="uploads")(work)
    with pytest.raises(cabrank.RegistrationError, match=r"'uploads' has async workers.*'block'.*thread"):
        app.job(queue="uploads")(block)
    assert set(app.handlers) == {"work"}


@pytest.mark.parametrize(("function", "kind"), [(work, "thread"), (work, "process"), (block, "async"), (work, "cloud")])
def test_a_kind_that_cannot_run_it_is_refused(function: Any, kind: str) -> None:
    with pytest.raises(cabrank.RegistrationError, match=kind):
        cabrank.App().job(kind=kind)(function)


def test_a_required_keyword_only_parameter_is_refused() -> None:
    async def needs(number: int, *, bucket: str) -> None: ...

    with pytest.raises(cabrank.RegistrationError, match="nothing says what bucket is"):
        cabrank.App().job(needs)


def test_what_is_put_in_is_keyword_only() -> None:
    async def wrong(job: cabrank.JobContext = cabrank.context()) -> None: ...

    with pytest.raises(cabrank.RegistrationError, match="write it after a `\\*`"):
        cabrank.App().job(wrong)


def test_items_become_jobs_that_can_be_added_up() -> None:
    app = cabrank.App()
    one = app.job(work)
    other = app.job(name="other")(work)
    jobs = one.each(iter([1, 2])) + other.each([3])
    assert len(jobs) == 3
    assert [(handler.name, list(items)) for handler, items in jobs.parts] == [("work", [1, 2]), ("other", [3])]


def test_a_document_route_takes_one_document() -> None:
    app = cabrank.App()
    handler = app.job(work)

    @app.document("/batches")
    def batches(batch: Batch) -> cabrank.Jobs:
        return handler.each(batch.numbers)

    route = app.documents["/batches"]
    assert len(route.function(*route.codec.decode(b'{"numbers": [1, 2]}'))) == 2
    assert len(batches(Batch([1]))) == 1

    def two(one: Batch, other: Batch) -> cabrank.Jobs:
        return handler.each(one.numbers + other.numbers)

    with pytest.raises(cabrank.RegistrationError, match="exactly one parameter"):
        app.document("/two")(two)  # pyright: ignore[reportArgumentType] -- the point


@pytest.mark.parametrize("path", ["batches", "/jobs", "/jobs/x", "/a b", "/a?b", "/a#b", "/{id}", "/%41", "/taken"])
def test_a_documents_path_that_cannot_be_served_is_refused(path: str) -> None:
    app = cabrank.App()

    @app.document("/taken")
    def taken(batch: Batch) -> cabrank.Jobs:
        return cabrank.Jobs(())

    with pytest.raises(cabrank.RegistrationError, match="cannot be a document's path"):
        app.document(path)


def test_a_coroutine_function_is_known_in_each_of_its_forms() -> None:
    class Callable:
        async def __call__(self) -> None: ...

        async def method(self) -> None: ...

    assert all(is_async(function) for function in (work, Callable(), Callable().method, partial(work, 1)))
    assert not any(is_async(function) for function in (block, len, Batch, partial(block, 1)))


def test_a_callable_without_an_app_is_run_once_in_the_queue_of_its_kind() -> None:
    handler = bare_handler(Kind.ASYNC)
    assert (handler.queue, handler.retry.attempts) == ("async", 1)


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"jobs": 10_001}, {"wait_s": -1}, {"bytes": 0}, {"wait_s": float("inf")}])
def test_a_batch_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(cabrank.SettingError, match=f"Batch.{next(iter(wrong))} is a"):
        cabrank.Batch(**wrong)


def test_a_batch_handler_takes_one_list() -> None:
    app = cabrank.App()
    batch = cabrank.Batch()

    async def of_one(item: int) -> None: ...
    async def of_two(items: list[int], more: int) -> None: ...
    async def right(items: list[int]) -> None: ...

    with pytest.raises(cabrank.RegistrationError, match="takes a list of its items, as in `item: list"):
        app.job(batch=batch)(of_one)  # type: ignore[arg-type] # pyright: ignore -- that is what is refused
    with pytest.raises(cabrank.RegistrationError, match="exactly one parameter, the list of its items"):
        app.job(batch=batch)(of_two)  # type: ignore[arg-type] # pyright: ignore -- as above
    with pytest.raises(cabrank.RegistrationError, match="batch is a cabrank"):
        app.job(batch=64)(right)  # type: ignore[call-overload] # pyright: ignore -- as above
    with pytest.raises(cabrank.RegistrationError, match="with max_crashes=1 one item"):
        app.job(batch=batch, max_crashes=1)(right)
    assert app.job(batch=batch)(right).codec.wire is int


def test_a_policy_of_another_type_is_refused_where_it_is_written() -> None:
    with pytest.raises(cabrank.RegistrationError, match=r"work: retry is a cabrank.Retry, as in Retry\(attempts=5\), not 3"):
        cabrank.App().job(retry=3)(work)  # type: ignore[call-overload] # pyright: ignore -- that is what is refused


async def test_what_was_called_instead_of_submitted_is_told_apart() -> None:
    called = work(1)
    async with cabrank.Dispatcher() as dispatcher:
        with pytest.raises(cabrank.RegistrationError, match=r"submit\(f, x\) and not submit\(f\(x\)\)"):
            await dispatcher.submit(called)  # type: ignore[call-overload] # pyright: ignore -- that is what is refused
        with pytest.raises(cabrank.RegistrationError, match="'work' cannot be called: submit takes a handler"):
            await dispatcher.submit("work", 1)  # type: ignore[call-overload] # pyright: ignore -- as above
    called.close()
