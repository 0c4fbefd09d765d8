"""The process that starts, kills and reaps the workers of one dispatcher, and outlives it by no more than that takes.

It imports the program once and forks each worker from itself, as `multiprocessing`'s fork server does: it has one thread and opens
nothing, so there is nothing that a fork could break. A program that starts threads when it is imported is not forked: then, or if the
settings say so, each worker is a new interpreter. When the connection to the dispatcher closes, all groups of workers are killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from enum import IntEnum
from multiprocessing import spawn
from types import FrameType

import msgspec

from cabrank.errors import RegistrationError
from cabrank.settings import Start
from cabrank.workers.process import child, system, wire
from cabrank.workers.process.place import Program, import_program

COMMAND = struct.Struct("<BII")  # what to do, with which worker, which signal
START, KILL = 1, 2
GIVEN = 4  # descriptors that come with a worker: its connection, its tokens, where its output goes
CONNECTION, ORDERS, TOKENS = 3, 4, 5  # descriptors of a new interpreter


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a keeper is told once. `memory` bounds the address space of each worker (bytes)."""

    program: Program
    start: Start
    memory: int | None


class Kept(IntEnum):
    """What a keeper tells."""

    READY = 0
    FAILED = 1
    THREADED = 2
    STARTED = 3
    ENDED = 4


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One thing that happened: to which worker, its process id or the status that it ended with, words."""

    kept: Kept
    worker: int = 0
    value: int = 0
    text: str = ""


class Keeper:
    """Serves one dispatcher."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._workers: dict[int, int] = {}  # number of each worker by process id
        self._woken, self._wakes = os.pipe()

    def serve(self) -> None:
        """Do what is asked until the dispatcher is gone."""
        self._orders = orders = msgspec.json.decode(wire.receive(self._connection), type=Orders)
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _heard)
        system.adopt_orphans()
        self._forks = orders.start is Start.FORKSERVER
        try:
            self._import()
            poll = select.poll()
            poll.register(self._connection, select.POLLIN)
            poll.register(self._woken, select.POLLIN)
            while self._act({descriptor for descriptor, _ in poll.poll()}):
                pass
        finally:
            self._end()

    def _import(self) -> None:
        """Import the program, so that a failure is told once and workers start quickly."""
        self._imported = import_program(self._orders.program)
        if isinstance(self._imported, RegistrationError):
            self._tell(Event(Kept.FAILED, text=str(self._imported)))
            return
        if self._forks and system.threads() > 1:
            self._forks = False
            self._tell(Event(Kept.THREADED))
        gc.collect()
        gc.freeze()  # what is shared with all workers stays shared
        self._tell(Event(Kept.READY))

    def _act(self, ready: set[int]) -> bool:
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
            self._reap()
        if self._connection.fileno() not in ready:
            return True
        command, descriptors, _, _ = socket.recv_fds(self._connection, COMMAND.size, GIVEN)
        while 0 < len(command) < COMMAND.size:
            command += self._connection.recv(COMMAND.size - len(command))
        if not command:
            return False
        what, worker, number = COMMAND.unpack(command)
        if what == START:
            self._start(worker, descriptors)
        else:
            for pid in [pid for pid, known in self._workers.items() if known == worker]:
                system.kill_group(pid, number)
        return True

    def _start(self, worker: int, descriptors: list[int]) -> None:
        try:
            pid = self._fork(*descriptors) if self._forks else self._spawn(*descriptors)
        except OSError as error:  # no more processes, or memory: that ends this worker and no other
            os.write(descriptors[-1], f"it cannot be started: {error}\n".encode())
            self._tell(Event(Kept.ENDED, worker, 1))
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._workers[pid] = worker
        self._tell(Event(Kept.STARTED, worker, pid))

    def _fork(self, connection: int, tokens: int, out: int, err: int) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(out, 1)
            os.dup2(err, 2)
            for descriptor in (out, err, self._woken, self._wakes):
                os.close(descriptor)
            self._connection.close()
            near, program = (socket.socket(fileno=connection), socket.socket(fileno=tokens)), self._orders.program
            child.live(*near, self._imported, program.prefix, memory=self._orders.memory, parent=parent)
        finally:
            os._exit(1)

    def _spawn(self, connection: int, tokens: int, out: int, err: int) -> int:
        with tempfile.TemporaryFile() as orders:
            orders.write(msgspec.json.encode(self._orders))
            orders.flush()
            orders.seek(0)
            wanted = (CONNECTION, ORDERS, TOKENS, 1, 2)
            given = (connection, orders.fileno(), tokens, out, err)
            high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, max(wanted) + 1) for one in given]  # none of them is where another goes
            actions = [(os.POSIX_SPAWN_DUP2, one, place) for one, place in zip(high, wanted, strict=True)]
            try:
                command = interpreter(f"from cabrank.workers.process.keeper import be_spawned; be_spawned({os.getpid()})")
                return os.posix_spawn(command[0], command, os.environ, file_actions=actions)
            finally:
                for descriptor in high:
                    os.close(descriptor)

    def _reap(self) -> None:
        """Kill what a dead worker leaves behind before its number is free again, then tell of it."""
        for pid, code in system.reaped(self._workers):
            worker = self._workers.pop(pid, None)
            if worker is not None:
                self._tell(Event(Kept.ENDED, worker, code))
        self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Kill what workers that are dead have left to this process."""
        for pid in system.orphans(self._workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _end(self) -> None:
        """Kill everything below, and what that leaves, until nothing is there."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in self._workers:
            system.kill_group(pid)
        with contextlib.suppress(ChildProcessError):
            while True:
                self._kill_orphans()
                os.waitpid(-1, 0)

    def _tell(self, event: Event) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # then the next look at the connection ends this
            self._connection.sendall(wire.framed(msgspec.msgpack.encode(event)))


def _heard(_signal: int, _frame: FrameType | None) -> None:
    """The descriptor that the signal wakes is what counts."""


def interpreter(code: str) -> list[str]:
    """The command of a new interpreter like this one that runs `code`, with the same places to import from."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # noqa: SLF001 # pyright: ignore -- as multiprocessing does
    executable = os.fsdecode(spawn.get_executable() or sys.executable)
    return [executable, *flags, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]


def be_kept(descriptor: int) -> None:
    """Be a keeper."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Keeper(socket.socket(fileno=descriptor)).serve()


def be_spawned(parent: int) -> None:
    """Be a worker of the keeper `parent` in a new interpreter."""
    with os.fdopen(ORDERS, "rb") as file:
        orders = msgspec.json.decode(file.read(), type=Orders)
    near = socket.socket(fileno=CONNECTION), socket.socket(fileno=TOKENS)
    child.live(*near, import_program(orders.program), orders.program.prefix, memory=orders.memory, parent=parent)
