"""Fixtures for tests of programs that use cabrank. Nothing of it is imported before a test asks for one of them.

They are not entered: `async with cabrank_dispatcher as dispatcher:` works with whichever plugin runs the test. Override `cabrank_app`
in your conftest.py to return your app.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cabrank import App, Dispatcher, Intake
    from cabrank.testing import FakeClock, InlineDispatcher


@pytest.fixture
def cabrank_app() -> App:
    """The app that the other fixtures work for: an empty one, unless you override this."""
    from cabrank import App  # noqa: PLC0415 -- as the module says

    return App()


@pytest.fixture
def cabrank_clock() -> FakeClock:
    """A clock that stands still until `await cabrank_clock.advance(60)`."""
    from cabrank.testing import FakeClock  # noqa: PLC0415

    return FakeClock()


@pytest.fixture
def cabrank_dispatcher(cabrank_app: App, cabrank_clock: FakeClock) -> Dispatcher:
    """A real dispatcher in memory on that clock. A job that waits for time is stopped when the block is left: there is no grace."""
    from cabrank import Dispatcher, Settings  # noqa: PLC0415

    return Dispatcher(cabrank_app, store="memory://", settings=Settings(grace_s=0), clock=cabrank_clock)


@pytest.fixture
def cabrank_intake(cabrank_app: App, cabrank_clock: FakeClock) -> Intake:
    """A real intake in memory, whose jobs nobody runs: see `cabrank.testing.Recording`."""
    from cabrank import Intake, Settings  # noqa: PLC0415

    return Intake(cabrank_app, store="memory://", settings=Settings(), clock=cabrank_clock)


@pytest.fixture
def cabrank_inline(cabrank_app: App) -> InlineDispatcher:
    """A dispatcher that runs each job where it is submitted, and raises what that raises."""
    from cabrank.testing import InlineDispatcher  # noqa: PLC0415

    return InlineDispatcher(cabrank_app)
