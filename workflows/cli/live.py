"""What a person sees while an experiment runs: budget bars, last decision and its reason, score; or plain lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.spec import ExperimentSpec
from workflows.progress import FrameLines


class View(Protocol):
    """Listens to the loop; used as a context manager around it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Show an event of the loop."""
        ...

    def say(self, text: str) -> None:
        """One line for the person."""
        ...


@dataclass
class Silent:
    """Nothing at all (`--json`)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


@dataclass
class PlainLines:
    """One line a frame, for logs and pipes."""

    console: Console

    def __post_init__(self) -> None:
        self._lines = FrameLines(self.say)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """A line for a frame, or for why there is none."""
        self._lines(kind, payload)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


@dataclass
class LiveView:
    """A panel that is redrawn: budget bars, last decision, score."""

    console: Console
    spec: ExperimentSpec
    _rows: dict[str, str] = field(default_factory=dict[str, str])
    _spent: tuple[float, float, int] = (0.0, 0.0, 0)

    def __post_init__(self) -> None:
        self._live = Live(self._panel(), console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def __call__(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Draw the panel again with what an event tells."""
        if kind == "suggested":
            point = payload["point"]
            self._rows["decision"] = "  ".join(f"{key} {_short(value)}" for key, value in point.items())
            self._rows["because"] = str(payload["reason"].get("why", ""))
        elif kind == "scored":
            spent = payload["spent"]
            self._spent = (spent.electrons, spent.instrument_time_s, spent.frames)
            self._rows["score"] = payload["score"].statement
        else:
            self._rows["last problem"] = f"{kind}: {payload.get('reason', '')}"
        self._live.update(self._panel())

    def say(self, text: str) -> None:
        """One line above the panel."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _panel(self) -> Panel:
        bars = Table.grid(padding=(0, 1), expand=False)
        budget = self.spec.budget
        electrons, seconds, frames = self._spent
        for name, spent, limit, unit in (
            ("electrons", electrons, budget.electrons, ""),
            ("microscope", seconds, budget.instrument_time_s, "s"),
            ("frames", float(frames), float(budget.frames) if budget.frames else None, ""),
        ):
            if limit is None:
                bars.add_row(name, "", f"{spent:.4g} {unit}")
            else:
                bars.add_row(
                    name,
                    ProgressBar(total=limit, completed=min(spent, limit), width=40),
                    f"{spent:.3g} of {limit:.3g} {unit}",
                )
        words = Table.grid(padding=(0, 1))
        for name, text in self._rows.items():
            words.add_row(Text(name, style="bold"), Text(text))
        return Panel(Group(bars, words), title=self.spec.name, subtitle="Ctrl-C once: finish the frame, blank, save")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def view_for(spec: ExperimentSpec, console: Console, *, as_json: bool) -> View:
    """The view that fits where the output goes."""
    if as_json:
        return Silent()
    return LiveView(console, spec) if console.is_terminal else PlainLines(console)
