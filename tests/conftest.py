"""What holds for every test."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

LAST_STEPS_S = 30  # far more than a thread takes to end on a machine that stalls

# No deadline for an example: a shared machine stalls, and tests wait for events, not for time. Where changes are judged, the
# same examples run each time, so that a change is refused for what it did.
settings.register_profile("cabrank", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("cabrank")

# A shell without job control starts what stands before `&` with Ctrl-C ignored, and so would every program that a test starts and
# interrupts. What is caught here goes back to its default there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _sockets_of_killed_processes_are_removed() -> Iterator[None]:
    """Where processes put the sockets by which they wake each other: a short path, which pytest's own folders have not."""
    folder = tempfile.mkdtemp(prefix="run-")
    os.environ["XDG_RUNTIME_DIR"] = folder
    yield
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _no_thread_of_ours_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    ours = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("cabrank")]
    for thread in ours:  # one that has just been let go is on its way out: what would stay is what is looked for
        thread.join(LAST_STEPS_S)
    left = [thread.name for thread in ours if thread.is_alive()]
    assert not left, f"the test left {left} behind"
