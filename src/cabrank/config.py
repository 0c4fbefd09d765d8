"""The TOML file of settings: its names with their values, and the line that each stands on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cabrank.errors import SettingError

VARIABLE = "CABRANK_CONFIG"  # names the file where no keyword does


class Entry(msgspec.Struct, frozen=True):
    """One value, and where it stands: `cabrank.toml:3`."""

    value: Any
    place: str


def read(path: str) -> Mapping[str, Entry]:
    """What the file says, by the names at its top.

    Raises:
        SettingError: there is no such file, or it is not TOML; the message says where.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingError(f"{path} is not a text file: settings are written in TOML, in UTF-8") from None
    except OSError as error:
        raise SettingError(f"{path}: the file of settings cannot be read ({error.strerror})") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f'{path}: {error}; write `grace_s = 10`, and texts in quotes: `store = "sqlite:///jobs.db"`') from None
    return {name: Entry(value, f"{path}:{_line_of(name, text)}") for name, value in values.items()}


def _line_of(name: str, text: str) -> int:
    """The line where a name at the top first stands: `name =`, `[name]` or `name.part =`."""
    written = re.compile(rf"""\s*\[?\s*["']?{re.escape(name)}\b""")
    return next((number for number, line in enumerate(text.splitlines(), start=1) if written.match(line)), 1)
