"""Lines of a command that goes through many files, with a bar below them on a terminal."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class PredictionLines:
    """Print lines; on a terminal they scroll above a bar, elsewhere there is none.

    Args:
        total: Number of steps; None: unknown.
        unit: What a step is, in the plural.
    """

    def __init__(self, total: int | None, unit: str = "images"):
        columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        terminal = sys.stdout.isatty()
        self._bar = Progress(*columns, console=Console(), transient=True) if terminal else None
        self._task = None if self._bar is None else self._bar.add_task(unit, total=total)

    def __enter__(self) -> "PredictionLines":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str, problem: bool = False) -> None:
        """Print a line, on standard error where it is a problem."""
        if self._bar is not None:
            style = "yellow" if problem else None
            self._bar.console.print(
                text, style=style, markup=False, highlight=False, soft_wrap=True
            )
        else:
            print(text, file=sys.stderr if problem else sys.stdout, flush=True)

    def step(self) -> None:
        """Move the bar on by one."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)
