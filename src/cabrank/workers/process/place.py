"""How another process finds a handler: by its module and its name there, as `multiprocessing` finds a function that it spawns."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing import spawn
from typing import Any

import msgspec

from cabrank.batch import Batch
from cabrank.errors import RegistrationError
from cabrank.handler import AnyHandler, Handler
from cabrank.policy import NO_RETRY, traced
from cabrank.settings import Kind

IMPORTING = "CABRANK_IMPORTING"  # set in a worker process while it imports the program, which must not start another one then
MAIN = ("sys_path", "sys_argv", "dir", "orig_dir", "init_main_from_name", "init_main_from_path")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a handler's function stands: in `file`, if its module cannot be imported by its name."""

    handler: str
    module: str
    name: str
    file: str | None
    batch: Batch | None = None


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process has to import, and how."""

    prefix: str
    places: list[Place]
    main: dict[str, Any]
    """What `multiprocessing` needs to run the main module in another process under another name."""


def place_of(handler: AnyHandler) -> Place:
    """Where the function of `handler` stands.

    Raises:
        RegistrationError: inside a function, where no other process can find it.
    """
    function: Callable[..., Any] = handler.function
    module, name = function.__module__, getattr(function, "__qualname__", "")
    if not name or "<" in name:
        raise RegistrationError(
            f"handler {handler.name!r} of kind process stands inside a function ({name or function!r}), where a worker process cannot "
            f"find it: move it to the top of a module"
        )
    return Place(
        handler=handler.name, module=module, name=name, file=getattr(sys.modules.get(module), "__file__", None), batch=handler.batch
    )


def program_of(places: list[Place], prefix: str) -> Program:
    """The program of this process as its worker processes import it.

    Raises:
        RegistrationError: this is a worker process that is importing it.
    """
    if os.environ.get(IMPORTING):
        raise RegistrationError(
            "a dispatcher with process workers is entered while a worker process imports this program: put what is to run once under "
            'if __name__ == "__main__":'
        )
    data = spawn.get_preparation_data("cabrank")
    return Program(prefix=prefix, places=places, main={key: data[key] for key in MAIN if key in data})


def import_program(program: Program) -> Mapping[str, AnyHandler] | RegistrationError:
    """Import it here, in a worker process: the handlers by name, or why that cannot be."""
    os.environ[IMPORTING] = "1"
    try:
        spawn.prepare(program.main)
        return {place.handler: _found(place) for place in program.places}
    except BaseException as error:  # noqa: BLE001 -- importing runs the user's code
        return RegistrationError(f"the program cannot be imported in a worker process:\n{traced(error)}")
    finally:
        del os.environ[IMPORTING]


def _found(place: Place) -> AnyHandler:
    found: Any = _module(place)
    for part in place.name.split("."):
        found = getattr(found, part)
    if isinstance(found, Handler) and found.name == place.handler:
        return found  # pyright: ignore[reportUnknownVariableType] -- isinstance cannot tell the parameters
    function = found.function if isinstance(found, Handler) else found  # pyright: ignore[reportUnknownMemberType] -- as above
    return Handler(  # registered under another name, or by a call
        function,
        name=place.handler,
        queue=Kind.PROCESS,
        kind=Kind.PROCESS,
        retry=NO_RETRY,
        timeout_s=None,
        max_crashes=None,
        batch=place.batch,
    )


def _module(place: Place) -> Any:
    try:
        return importlib.import_module(place.module)
    except ModuleNotFoundError as error:
        if place.file is None or error.name is None or not f"{place.module}.".startswith(f"{error.name}."):
            raise
    spec = importlib.util.spec_from_file_location(place.module, place.file)
    assert spec is not None  # noqa: S101 -- it has a file
    assert spec.loader is not None  # noqa: S101 -- as above
    module = importlib.util.module_from_spec(spec)
    sys.modules[place.module] = module  # types are looked up there by name
    spec.loader.exec_module(module)
    return module
