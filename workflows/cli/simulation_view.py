"""The bar of `stempilot simulate` on a terminal; what a simulation tells is in `simulation.progress`."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from simulation.progress import SHOWN_AFTER_S, Standing, duration


class RichBar:
    """What is done and the time left, on stderr; gone at the end. Work of under two seconds shows none."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"),
            console=console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    @classmethod
    def if_seen(cls) -> Self | None:
        """A bar where stderr is a terminal, else none."""
        console = Console(stderr=True)
        return cls(console) if console.is_terminal else None

    def advance(self, standing: Standing) -> None:
        """Draw it."""
        if standing.elapsed_s < SHOWN_AFTER_S:
            return
        left = "" if standing.left_s is None else f"{duration(standing.left_s)} left"
        what = f"{standing.what} {standing.done}/{standing.total}"
        if self._task is None:
            self._task = self._progress.add_task(what, total=1.0, left=left)
            self._progress.start()
        self._progress.update(self._task, completed=standing.fraction, description=what, left=left)

    def end(self) -> None:
        """Nothing of it remains."""
        if self._task is not None:
            self._progress.stop()
            self._task = None
