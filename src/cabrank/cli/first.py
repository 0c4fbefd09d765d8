"""Process 1 of a container has duties that no program knows: it does those alone, and the program goes on in a child.

Whatever in the container loses its parent becomes a child of process 1, and stays a zombie until that waits for it. The program
cannot: a wait for any child would take the end of one that a handler has started from the handler.
"""

from __future__ import annotations

import contextlib
import os
import signal

PASSED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
HEARD = PASSED | {signal.SIGCHLD}
BY_SIGNAL = 128  # what a shell adds to the number of the signal that ended a program


def apart_from_first() -> None:
    """Return in a child, if this is process 1; that one passes signals on, waits for whatever ends, and ends as the child does.

    To be called before there is a thread.
    """
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # from here on none is lost
    program = os.fork()
    if program:
        os._exit(_serve(program))
    os.setpgid(0, 0)  # a Ctrl-C of the terminal reaches process 1, which passes it on: once
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)


def _serve(program: int) -> int:
    """The exit status of the program."""
    while True:
        number = signal.sigwait(HEARD)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(program, number)
            continue
        status = _reap(program)
        if status is not None:
            return status if status >= 0 else BY_SIGNAL - status


def _reap(program: int) -> int | None:
    """Wait for all that have ended. The exit code of the program, if it has; below 0 it is the signal."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == program:
                return os.waitstatus_to_exitcode(ended[1])
    return None
