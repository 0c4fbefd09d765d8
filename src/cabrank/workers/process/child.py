"""What runs in a worker process: one call after another, each with one reply. It ends when this side's parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import io
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Never, cast

import msgspec

from cabrank.batch import together
from cabrank.errors import PayloadInvalid, RegistrationError
from cabrank.handler import AnyHandler
from cabrank.inject import Resources
from cabrank.job import BARE, Job, Lease
from cabrank.workers.contract import Calls
from cabrank.workers.process import system, wire

LOOK_S = 0.1  # how often it looks how much memory it holds


Imported = Mapping[str, AnyHandler] | RegistrationError
"""The handlers that the program has, or why it could not be imported."""


class ToldToStop(BaseException):
    """Raised in the job that runs when the process is told to end, so that its `finally` blocks run. What catches it is killed soon."""


class Child:
    """Serves one connection."""

    def __init__(self, connection: socket.socket, tokens: socket.socket, program: Imported, prefix: str) -> None:
        self._connection = connection
        self._incoming = wire.Incoming(connection, tokens)
        self._program = program
        self._prefix = prefix
        self._calls: dict[str, Calls] = {}
        self._resources = Resources()
        self._runner: asyncio.Runner | None = None
        self._running = False
        self._looked_at = 0.0
        self._sending = threading.Lock()
        self._interrupted: bool | None = None  # while the main thread sends a report: whether it was told to stop meanwhile

    def serve(self) -> None:
        """Run what comes until there is no more."""
        signal.signal(signal.SIGTERM, self._told)
        try:
            while frame := self._incoming.next():
                self._send(wire.sent(self._run(wire.read_call(frame))))
        except BrokenPipeError:
            return  # nobody is there any more
        finally:
            self._close()

    def _send(self, frame: bytes) -> None:
        with self._sending:  # a handler's own threads report too
            self._connection.sendall(frame)

    def _report(self, call: wire.Call, fraction: float, note: str) -> None:
        """Send how far the run is. What tells this process to stop must not cut the frame in two, so it is heard behind it."""
        frame = wire.reported(call, fraction, note)
        if threading.current_thread() is not threading.main_thread():  # signals are heard in that one
            self._send(frame)
            return
        self._interrupted = False
        try:
            self._send(frame)
        finally:
            told, self._interrupted = self._interrupted, None
        if told:
            raise ToldToStop

    def _run(self, call: wire.Call) -> wire.Reply:
        try:
            function, args, keywords = self._prepared(call)
        except PayloadInvalid as error:
            return wire.unreadable(str(error))
        except Exception as error:  # noqa: BLE001 -- unpickling and opening resources run the user's code
            return wire.raised(call, error)
        self._running = True
        try:
            value = contextvars.copy_context().run(function, *args, **keywords)
        except ToldToStop:
            raise
        except BaseException as error:  # noqa: BLE001 -- a handler may raise anything, and only its run ends
            return self._with_memory(wire.raised(call, error))
        finally:
            self._running = False
        return self._with_memory(wire.returned(call, value, self._encode))

    def _prepared(self, call: wire.Call) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
        if isinstance(self._program, RegistrationError):
            raise self._program
        if call.handler == BARE:
            return *wire.bare_call(call), {}
        items = self._program[call.handler].codec.decode_each(call.payload) if call.ids else None
        calls = self._calls_of(call.handler, self._program)
        calls.report = lambda _lease, fraction, note: self._report(call, fraction, note)
        return calls.prepare(_lease(call, items))

    def _calls_of(self, name: str, program: Mapping[str, AnyHandler]) -> Calls:
        """How the handler is called; its resources are opened with its first call here."""
        calls = self._calls.get(name)
        if calls is None:
            calls = Calls({name: program[name]})
            self._runner = self._runner or asyncio.Runner()
            self._runner.run(calls.open(self._prefix, self._resources))
            self._calls[name] = calls
        return calls

    def _encode(self, handler: str, value: object) -> bytes | None:
        assert not isinstance(self._program, RegistrationError)  # noqa: S101 -- then nothing was run
        return self._program[handler].codec.encode_result(value)

    def _with_memory(self, reply: wire.Reply) -> wire.Reply:
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return reply
        self._looked_at = now
        return wire.Reply(reply.said, reply.body, system.memory())

    def _told(self, _signal: int, _frame: FrameType | None) -> None:
        if self._interrupted is not None:
            self._interrupted = True
            return
        if self._running:
            raise ToldToStop
        os._exit(0)

    def _close(self) -> None:
        if self._runner is not None:
            with contextlib.closing(self._runner):
                self._runner.run(self._resources.close())


def _lease(call: wire.Call, items: list[object] | None) -> Lease:
    job = Job(id=call.id, handler=call.handler, queue="", payload=call.payload, deadline_at=call.deadline_at)
    if items is None:
        return Lease(job, call.run, call.failures)
    return together([Lease(msgspec.structs.replace(job, id=id), call.run, call.failures) for id in call.ids], items)


def live(connection: socket.socket, tokens: socket.socket, program: Imported, prefix: str, *, memory: int | None, parent: int) -> Never:
    """Be a worker process, to its end. Never returns."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        system.end_with_parent(parent, connection.fileno())
        system.adopt_orphans()
        if memory is not None:
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (memory, most))
        for stream in (sys.stdout, sys.stderr):
            cast(io.TextIOWrapper, stream).reconfigure(line_buffering=True)  # what was printed is there, however it ends
        faulthandler.enable()
        Child(connection, tokens, program, prefix).serve()
        code = 0
    except ToldToStop:
        code = 128 + signal.SIGTERM
    except BaseException:  # noqa: BLE001 -- nothing may return from here: in a forked child the keeper's own loop is above
        sys.stderr.write(traceback.format_exc())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)
