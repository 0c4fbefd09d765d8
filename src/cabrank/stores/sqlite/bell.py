"""How processes of one file wake each other: a datagram to the socket of each. One that is lost costs nothing but a short wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import tempfile
import weakref
from array import array
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

import apsw

from cabrank.job import new_prefix
from cabrank.states import State, after
from cabrank.stores.contract import Arrival, Turn
from cabrank.stores.sqlite import statements as sql
from cabrank.stores.sqlite.settle import Ended

LARGEST = 160_000  # bytes of one datagram, which hold the ids of a full turn; a socket's buffer has 208 KiB
FOLDER_LIMIT = 80  # characters: the path of a socket may have 107

_open_bells: weakref.WeakSet[Bell] = weakref.WeakSet()


def agreed_folder(connection: apsw.Connection) -> str:
    """The folder of the sockets of a file, which the file names. Within a transaction of its writer."""
    known = str(connection.execute(sql.BELL_FOLDER).get or "")
    folder = usable_folder(known)
    if folder and folder != known:
        connection.execute(sql.SET_BELL_FOLDER, (folder,))
    return folder


def usable_folder(known: str) -> str:
    """The folder for sockets of a file: the one that is known, a new one if it is gone, or "" if it cannot be trusted.

    Only its owner may look into it, and the owner must be this user: whoever could write there could keep everybody busy.
    """
    try:
        found = os.lstat(known) if known else None
    except OSError:
        found = None
    if found is None:
        return _new_folder()
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
    return known if private else ""


def _new_folder() -> str:
    for place in (os.environ.get("XDG_RUNTIME_DIR"), None):
        with contextlib.suppress(OSError):
            made = tempfile.mkdtemp(prefix="cabrank-", dir=place)
            if len(made) <= FOLDER_LIMIT:
                return made
            Path(made).rmdir()
    return ""


def together(one: Arrival, other: Arrival) -> Arrival:
    """Two arrivals as one."""
    known = one.ended is not None and other.ended is not None
    return Arrival(
        work=one.work or other.work,
        cancelled=one.cancelled or other.cancelled,
        ended=[*(one.ended or ()), *(other.ended or ())] if known else None,
    )


def ended(came: Ended, turn: Turn) -> list[int]:
    """The jobs that do not wait again after a turn that recorded this, or were replaced or dropped in it."""
    lost, cancelled = frozenset(turn.lost), frozenset(turn.cancels)
    over = [(s.id, s.run) for s in came.settlements if after(State.RUNNING, s.cause) is not State.WAITING or (s.id, s.run) in cancelled]
    over += [(id, run) for run, ids in came.returned.items() for id in ids]
    replaced = [admission.replaced for admission in turn.admitted if admission.replaced]
    replaced += turn.dropped
    return replaced + ([fence[0] for fence in over if fence not in lost] if lost else [fence[0] for fence in over])


class Rings(Protocol):
    """The way to the other holders of a file. `Bell` is one."""

    @property
    def alone(self) -> bool:
        """See `Bell.alone`."""
        ...

    def ring(self, arrival: Arrival) -> None:
        """See `Bell.ring`."""
        ...

    def close(self) -> None:
        """See `Bell.close`."""
        ...


Bells = Callable[[str, Random, Callable[[Arrival], None]], Rings]
"""How a store hangs one: in a folder, where it calls something for whatever another one rings."""


class Bell:
    """This process's socket, and the way to those of the others. `alone`: there were no others at the last look."""

    def __init__(self, folder: str, rng: Random, heard: Callable[[Arrival], None]) -> None:
        self._heard = heard
        self._folder = Path(folder)
        self._own = self._folder / f"{os.getpid()}-{new_prefix(rng)}"
        self._others: list[str] = []
        self._looked_ns = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._loop = asyncio.get_running_loop()
        try:
            self._socket.bind(str(self._own))
            self._loop.add_reader(self._socket, self._receive)
        except BaseException:
            self._socket.close()
            raise
        _open_bells.add(self)

    @property
    def alone(self) -> bool:
        """Whether nobody else has the file open."""
        try:
            changed_ns = self._folder.stat().st_mtime_ns
        except OSError:
            return True
        if changed_ns != self._looked_ns:
            with contextlib.suppress(OSError):  # no file left to open: those that are known have to do, until the next look
                self._others = [str(path) for path in self._folder.iterdir() if path != self._own]
                self._looked_ns = changed_ns
        return not self._others

    def ring(self, arrival: Arrival) -> None:
        """Tell the others. Whoever has too much to read already, or is dead, is passed over."""
        if self.alone:
            return
        ids = array("q", arrival.ended or ())
        known = arrival.ended is not None and len(ids) * ids.itemsize < LARGEST
        told = bytes([arrival.work | arrival.cancelled << 1 | (not known) << 2]) + (ids.tobytes() if known else b"")
        for other in self._others:
            try:
                self._socket.sendto(told, other)
            except (BlockingIOError, FileNotFoundError):
                continue
            except ConnectionRefusedError:  # its process is dead
                Path(other).unlink(missing_ok=True)
            except OSError:
                continue

    def close(self) -> None:
        """Be heard and hear no more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        with contextlib.suppress(OSError):
            self._own.unlink()
            self._folder.rmdir()  # by the last one: it fails while others are in it

    def forget(self) -> None:
        """Close the socket in a forked child, which has it from its parent."""
        self._socket.close()

    def _receive(self) -> None:
        """Read all that came, as one."""
        work = cancelled = some = False
        ended = array("q")
        while True:
            try:
                told = self._socket.recv(LARGEST + 1)
            except OSError:
                break
            if not told or len(told) % 8 != 1:
                continue  # not from us
            work, cancelled, some = work or bool(told[0] & 1), cancelled or bool(told[0] & 2), some or bool(told[0] & 4)
            ended.frombytes(told[1:])
        self._heard(Arrival(work=work, cancelled=cancelled, ended=None if some else ended))


def _forget_in_child() -> None:
    for bell in tuple(_open_bells):
        bell.forget()


os.register_at_fork(after_in_child=_forget_in_child)
