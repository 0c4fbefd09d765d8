"""Finds the user's app in a file or a module. What is wrong with it is said in the user's terms, without a traceback."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from cabrank.app import App
from cabrank.errors import CabrankError
from cabrank.handler import AnyHandler, Handler


class AppUnusable(CabrankError):
    """There is no app where it was said to be."""


def load_app(place: str) -> App:
    """The app that `place` names: `telemetry:app`, `path/to/telemetry.py:app`.

    Raises:
        AppUnusable: there is none; the message says where to look.
    """
    source, module, name = _found(place, "app")
    try:
        app: object = getattr(module, name)
    except AttributeError:
        raise AppUnusable(f"{source} has no {name!r}{_apps_in(module, source)}") from None
    if not isinstance(app, App):
        raise AppUnusable(f"{name!r} in {source} is {type(app).__name__}, not cabrank.App{_apps_in(module, source)}")
    return app


def load_handler(place: str) -> AnyHandler | Callable[..., object]:
    """What `place` names: a handler, or a plain function; `path/to/fetch.py:fetch`.

    Raises:
        AppUnusable: there is none; the message says where to look.
    """
    source, module, name = _found(place, "fetch")
    found: object = getattr(module, name, None)
    if isinstance(found, Handler):
        return found  # pyright: ignore[reportUnknownVariableType] -- isinstance cannot tell the parameters
    if found is None or isinstance(found, type) or not callable(found):
        what = f"has no {name!r}" if found is None else f"has {name!r}, which is {type(found).__name__}"
        raise AppUnusable(f"{source} {what}: name a function, or a handler that stands there under a name")
    return found


def _found(place: str, example: str) -> tuple[str, ModuleType, str]:
    source, colon, name = place.rpartition(":")
    if not (colon and source and name):
        raise AppUnusable(
            f"{place!r} names no {example}: write telemetry:{example} for a module, path/to/telemetry.py:{example} for a file"
        )
    return source, _file(Path(source)) if source.endswith(".py") or os.sep in source else _module(source), name


def _apps_in(module: ModuleType, source: str) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, App)]
    return f"; did you mean {source}:{names[0]}?" if names else "; it needs a line such as: app = cabrank.App()"


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise AppUnusable(f"there is no file {path}")
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_app"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise AppUnusable(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python file.py` does, so that files beside it can be imported
    sys.modules[name] = module  # types are looked up there by name
    loader = spec.loader
    _run(lambda: loader.exec_module(module), str(path))
    return module


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        found = False
    if not found:
        raise AppUnusable(f"there is no module {name!r} here or among what is installed; a file is written path/to/{name}.py:app")
    _run(lambda: importlib.import_module(name), name)
    return sys.modules[name]


def _run(execute: Callable[[], object], source: str) -> None:
    try:
        execute()
    except SyntaxError as error:
        shown = f"\n    {error.text.strip()}" if error.text else ""
        raise AppUnusable(f"{_short(error.filename or source)}:{error.lineno}: {error.msg}{shown}") from None
    except Exception as error:  # the user's module may raise anything
        raise AppUnusable(f"{_place(error, source)}: {type(error).__name__}: {error}") from error


def _place(error: Exception, source: str) -> str:
    """The last line of the user's own code that was running: the last that is not installed."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<", *_NOT_OWN))]
    return f"{_short(own[-1].filename)}:{own[-1].lineno}" if own else source


# cabrank itself, what is installed, and what comes with Python.
_NOT_OWN = (str(Path(__file__).parents[1]) + os.sep, *(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")))


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename
