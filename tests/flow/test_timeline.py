"""What happened to a job, asked of its handle."""

from __future__ import annotations

import pytest

import cabrank
import cabrank.blocking
from cabrank import Happened, State


def failing() -> cabrank.App:
    app = cabrank.App()

    @app.job(retry=cabrank.Retry(attempts=2, base_s=0.0))
    def fail(word: str) -> None:
        raise ValueError(word)

    return app


EXPECTED = [
    (Happened.SUBMITTED, State.WAITING, 0),
    (Happened.BEGAN, State.RUNNING, 1),
    (Happened.FAILED, None, 1),
    (Happened.BEGAN, State.RUNNING, 2),
    (Happened.FAILED, None, 2),
    (Happened.BECAME, State.DEAD, 0),
]


async def test_a_handle_tells_what_happened_to_its_job(store: str) -> None:
    app = failing()
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(app.handlers["fail"], "no")
        with pytest.raises(cabrank.JobFailed):
            await handle.result()
        told = await handle.timeline()
        assert [(one.what, one.state, one.run) for one in told if one.what is not Happened.DUE] == EXPECTED
        moments = [one.at for one in told]
        assert moments == sorted(moments)
        assert moments[0] > 0
        assert await dispatcher.handle(handle.id).timeline() == told
        with pytest.raises(cabrank.UnknownJob):
            await dispatcher.handle(handle.id + "0").timeline()


def test_a_blocking_handle_does_too(store: str) -> None:
    app = failing()
    with cabrank.blocking.Dispatcher(app, store=store) as dispatcher:
        handle = dispatcher.submit(app.handlers["fail"], "no")
        with pytest.raises(cabrank.JobFailed):
            handle.result()
        assert [(one.what, one.state, one.run) for one in handle.timeline() if one.what is not Happened.DUE] == EXPECTED
