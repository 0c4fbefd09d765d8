"""Which release of SQLite does the work: some can damage a file that two connections write to."""

from __future__ import annotations

import apsw

from cabrank.events import logger

FIRST, MENDED = (3, 7, 0), (3, 51, 3)
MENDED_EARLIER = {(3, 44): 6, (3, 50): 7}  # lines of releases that the mend was carried back to, and in which it came

Release = tuple[int, int, int]


def has_reset_bug(release: Release) -> bool:
    """Whether this release has the WAL-reset bug, which can damage a file that two connections write to and checkpoint at once.

    Source: https://sqlite.org/wal.html#walresetbug
    """
    line, number = release[:2], release[2]
    return FIRST <= release < MENDED and not (line in MENDED_EARLIER and number >= MENDED_EARLIER[line])


def warn_of_reset_bug() -> None:
    """Say in the log when the SQLite that apsw brings has it. Its wheels have not; a build against the system's SQLite may."""
    version = apsw.sqlite_lib_version()
    first, second, third = map(int, version.split(".")[:3])
    if has_reset_bug((first, second, third)):
        logger.warning(
            "SQLite %s can damage a file that several connections write to (the WAL-reset bug, mended in 3.51.3). cabrank's processes take "
            "turns, other programs do not: install apsw's own build with `pip install --force-reinstall apsw`",
            version,
        )
