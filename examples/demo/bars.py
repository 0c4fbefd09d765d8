"""The two progress bars: payloads acknowledged, objects in the bucket."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.demo.tally import Tally


class Bars:
    """A context in which both bars are on the screen; `show` moves them to where the tally stands."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._tally = tally
        self._progress = Progress(
            TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._acknowledged = self._progress.add_task("acknowledged", total=tally.payloads)
        self._objects = self._progress.add_task("in the bucket", total=tally.payloads)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /) -> None:
        self._progress.stop()

    def show(self) -> None:
        self._progress.update(self._acknowledged, completed=self._tally.payloads_acknowledged)
        self._progress.update(self._objects, completed=self._tally.objects)
