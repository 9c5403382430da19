"""One page for a whole survey: every square where it lies, coloured by what was found, and a table with links.

Neighbour: `render`, the page of one experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.report.pictures import GREEN, INK, MUTED, RULE, VERMILLION, Picture, as_png, canvas, scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HERE = Path(__file__).parent
_MOST_DOTS = 220  # a side, of an overview frame on the page
_EDGE = {"completed": GREEN, "failed": VERMILLION, "refused": VERMILLION, "cancelled": VERMILLION}


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareOnPage:
    """One square: where it is, how it stands, what it found; `image` is its overview frame (rows, columns), if any."""

    name: str
    x_nm: float
    y_nm: float
    side_nm: float
    status: str
    reason: str | None
    clean_fraction: float | None
    score: float | None
    statement: str
    frames: int
    electrons: float
    instrument_time_s: float
    experiment_id: str | None
    link: str | None
    image: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyOnPage:
    """The whole survey."""

    name: str
    id: str
    status: str
    reason: str | None
    created_at: str
    squares: Sequence[SquareOnPage]
    electrons: float
    instrument_time_s: float
    limits: Mapping[str, float | None] = field(default_factory=dict[str, float | None])


def render_survey(survey: SurveyOnPage) -> str:
    """One self-contained HTML page; the same data give the same bytes."""
    environment = Environment(
        loader=PackageLoader("orchestrator.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("survey.html.j2").render(
        survey=survey,
        css=Markup((_HERE / "templates" / "report.css").read_text(encoding="utf-8")),
        picture=survey_picture(survey),
        cards=_cards(survey),
    )


def survey_picture(survey: SurveyOnPage) -> Picture:
    """Left: where the squares are, on their overview frames where there are some. Right: what each found."""
    squares = survey.squares
    low_x, high_x = (
        min(s.x_nm - s.side_nm / 2 for s in squares), max(s.x_nm + s.side_nm / 2 for s in squares)
    )  # fmt: skip
    low_y, high_y = (
        min(s.y_nm - s.side_nm / 2 for s in squares), max(s.y_nm + s.side_nm / 2 for s in squares)
    )  # fmt: skip
    shape = (high_y - low_y) / (high_x - low_x)
    with canvas(11.0, float(np.clip(5.2 * shape + 0.8, 2.6, 7.0))) as figure:
        axes: Sequence[Any] = figure.subplots(1, 2)
        has_images = any(square.image is not None for square in squares)
        _places(axes[0], squares, has_images=has_images)
        _scores(axes[1], squares)
        margin = 0.02 * max(high_x - low_x, high_y - low_y)
        for one in axes:
            one.set_xlim(low_x - margin, high_x + margin)
            one.set_ylim(low_y - margin, high_y + margin)
            one.set_aspect("equal")
            one.set_xticks([])
            one.set_yticks([])
            for spine in one.spines.values():
                spine.set_visible(False)
        scale_bar(axes[0], high_x - low_x, dark=not has_images)
        markup = as_png(figure, f"The squares of the survey {survey.name}")
    what = "their overview frames (brighter: more carbon) and how clean they are" if has_images else "where they lie"
    return Picture(
        markup=markup,
        caption=f"Left: the squares, {what}. Right: the score each experiment ended with; green border: completed, "
        "red: failed, refused or cancelled, grey: left out or not begun.",
    )


def _places(axes: Axes, squares: Sequence[SquareOnPage], *, has_images: bool) -> None:
    shown = [square.image for square in squares if square.image is not None]
    low, high = np.percentile(np.concatenate([image.ravel() for image in shown]), (1, 99)) if shown else (0.0, 1.0)
    for square in squares:
        half = square.side_nm / 2
        if square.image is not None:
            axes.imshow(
                _smaller(square.image), cmap="gray", vmin=low, vmax=high, origin="lower",
                extent=(square.x_nm - half, square.x_nm + half, square.y_nm - half, square.y_nm + half),
            )  # fmt: skip
        _outline(axes, square, RULE)
        text = square.name if square.clean_fraction is None else f"{square.name}\n{square.clean_fraction:.0%} clean"
        _label(axes, square, text, "white" if has_images else INK)
    axes.set_title("Where")


def _scores(axes: Axes, squares: Sequence[SquareOnPage]) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    known = [square.score for square in squares if square.score is not None]
    top = max(known, default=0.0) or 1.0
    colours = colormaps["cividis"]
    for square in squares:
        half = square.side_nm / 2
        fill: Any = "white"
        ink = MUTED
        if square.score is not None:
            share = max(square.score, 0.0) / top
            fill, ink = colours(share), ("white" if share < 0.6 else INK)
        corner = (square.x_nm - half, square.y_nm - half)
        axes.add_patch(Rectangle(corner, square.side_nm, square.side_nm, facecolor=fill, edgecolor="none"))
        _outline(axes, square, _EDGE.get(square.status, RULE))
        _label(axes, square, square.name if square.score is None else f"{square.name}\n{square.score:.3g}", ink)
    axes.set_title("What was found (score)")


def _outline(axes: Axes, square: SquareOnPage, colour: str) -> None:
    from matplotlib.patches import Rectangle

    side = 0.97 * square.side_nm
    corner = (square.x_nm - side / 2, square.y_nm - side / 2)
    axes.add_patch(Rectangle(corner, side, side, facecolor="none", edgecolor=colour, linewidth=1.6))


def _label(axes: Axes, square: SquareOnPage, text: str, colour: str) -> None:
    from matplotlib.patheffects import withStroke

    effects = [withStroke(linewidth=2.2, foreground="black", alpha=0.55)] if colour == "white" else []
    axes.text(
        square.x_nm, square.y_nm, text, ha="center", va="center", color=colour, fontsize=8.5, weight="bold",
        path_effects=effects,
    )  # fmt: skip


def _smaller(image: np.ndarray) -> np.ndarray:
    step = max(int(np.ceil(max(image.shape) / _MOST_DOTS)), 1)
    rows, columns = (length // step * step for length in image.shape)
    return image[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))


def _cards(survey: SurveyOnPage) -> list[tuple[str, str, str]]:
    statuses = [square.status for square in survey.squares]
    done = statuses.count("completed")
    limits = survey.limits
    return [
        ("squares completed", f"{done} of {len(statuses)}", ""),
        ("score, all squares", f"{sum(s.score or 0.0 for s in survey.squares):.3g}", "sum"),
        ("electrons", f"{survey.electrons:.3g}", _of(limits.get("electrons"), "")),
        ("microscope time", f"{survey.instrument_time_s:.0f} s", _of(limits.get("instrument_time_s"), " s")),
    ]


def _of(limit: float | None, unit: str) -> str:
    return "no total limit" if limit is None else f"of {limit:.3g}{unit}"
