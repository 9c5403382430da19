"""The map of the specimen as inline SVG: every field to scale and coloured by dose, the finds, the last and the next.

Its neighbour in the report, `orchestrator.report.overview`, draws the same for paper; ground and finds come from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from orchestrator.answer_file import AnswerSoFar
from orchestrator.dashboard.chronicle import Chronicle, Step
from orchestrator.dashboard.footprints import Footprint, footprint_of, report_frame
from orchestrator.report.census_view import CensusView, species_style
from orchestrator.report.overview import Extent, extent_of
from orchestrator.report.pictures import round_length_nm

WIDTH_PX = 720.0
_LEAST_PX = 3.0
_BAR_SHARE = 0.22
_DARKEST = 0.25
_SHAPES: Mapping[str, str] = {
    "x": '<path d="M{left:.1f} {top:.1f}L{right:.1f} {bottom:.1f}M{left:.1f} {bottom:.1f}L{right:.1f} {top:.1f}"/>',
    "o": '<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>',
    "s": '<rect x="{left:.1f}" y="{top:.1f}" width="{d:.1f}" height="{d:.1f}"/>',
    "D": '<path d="M{x:.1f} {top:.1f}L{right:.1f} {y:.1f}L{x:.1f} {bottom:.1f}L{left:.1f} {y:.1f}Z"/>',
    "^": '<path d="M{x:.1f} {top:.1f}L{right:.1f} {bottom:.1f}L{left:.1f} {bottom:.1f}Z"/>',
    "v": '<path d="M{left:.1f} {top:.1f}L{right:.1f} {top:.1f}L{x:.1f} {bottom:.1f}Z"/>',
    "P": '<path class="cross" d="M{x:.1f} {top:.1f}V{bottom:.1f}M{left:.1f} {y:.1f}H{right:.1f}"/>',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendEntry:
    """A symbol of the map and what it stands for."""

    symbol: Markup
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecimenMap:
    """A drawn map; `dose_range` are the ends of the colour scale in words, None where nothing was exposed."""

    markup: Markup
    legend: tuple[LegendEntry, ...]
    dose_range: tuple[str, str] | None
    sentence: str


@dataclass(frozen=True, slots=True)
class _Frame:
    """From nanometres, y upwards, to picture units, y downwards."""

    extent: Extent

    @property
    def px_per_nm(self) -> float:
        return WIDTH_PX / (self.extent[1] - self.extent[0])

    @property
    def height_px(self) -> float:
        return (self.extent[3] - self.extent[2]) * self.px_per_nm

    def x(self, x_nm: float) -> float:
        return (x_nm - self.extent[0]) * self.px_per_nm

    def y(self, y_nm: float) -> float:
        return (self.extent[3] - y_nm) * self.px_per_nm


def map_extent(chronicle: Chronicle, spec: Mapping[str, Any], answer: AnswerSoFar | None) -> Extent | None:
    """The objective's map, or all frames, or the search space while there are none; None without any of them."""
    frames = [report_frame(step) for step in chronicle.frames]
    if (found := extent_of(answer.maps if answer is not None else {}, frames)) is not None:
        return found
    x, y = (spec.get("search_space", {}).get(axis, {}) for axis in ("x_nm", "y_nm"))
    if {"low", "high"} <= x.keys() & y.keys():
        return float(x["low"]), float(x["high"]), float(y["low"]), float(y["high"])
    return None


def specimen_map(
    chronicle: Chronicle, extent: Extent, answer: AnswerSoFar | None, *, ground_url: str | None, is_running: bool
) -> SpecimenMap:
    """The map of an experiment as far as it got."""
    frame, view = _Frame(extent), _view_of(answer)
    fields = [step for step in chronicle.frames if step.command["purpose"] != "survey"]
    surveys = [step for step in chronicle.frames if step.command["purpose"] == "survey"]
    most = max((step.dose_e_per_a2 or 0.0 for step in fields), default=0.0)
    last = chronicle.frames[-1] if chronicle.frames else None
    waiting = [step for step in chronicle.steps if step.status == "intended"]
    finds, entries = _finds(frame, view)
    parts = [
        _ground(frame, ground_url),
        _group("survey", (_field(frame, step, None) for step in surveys)),
        _group(
            "fields",
            (_field(frame, step, _dose_colour(step.dose_e_per_a2, most)) for step in _large_first(fields)),
        ),
        Markup('<g class="finds">{}</g>').format(finds),
        _marked(frame, last, "last"),
        _marked(frame, waiting[-1] if waiting else None, "next"),
        _scale_bar(frame),
    ]
    legend = [*entries, *_legend_of_marks(last, waiting, surveys, "exposing now" if is_running else "not finished")]
    sentence = _sentence(extent, fields, surveys, legend)
    markup = Markup(
        '<svg class="map" width="{0:.0f}" height="{1:.1f}" viewBox="0 0 {0:.0f} {1:.1f}" role="img" aria-label="{2}">'
        "{3}</svg>"
    ).format(WIDTH_PX, frame.height_px, sentence, Markup("").join(parts))
    dose_range = ("0", f"{most:,.0f} e/Å²") if fields else None
    return SpecimenMap(markup=markup, legend=tuple(legend), dose_range=dose_range, sentence=sentence)


@lru_cache(1)
def dose_colours() -> tuple[str, ...]:
    """256 colours from no dose to the highest: matplotlib's plasma without its dark end, which no image would show."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return tuple(to_hex(colormaps["plasma"](_DARKEST + (1 - _DARKEST) * number / 255)) for number in range(256))


def dose_scale() -> Markup:
    """The colour scale as a small SVG, low on the left."""
    colours = dose_colours()[::16]
    cells = Markup("").join(
        Markup('<rect x="{}" width="6.2" height="10" fill="{}"/>').format(6 * number, colour)
        for number, colour in enumerate(colours)
    )
    return Markup('<svg class="scale" viewBox="0 0 96 10" aria-hidden="true">{}</svg>').format(cells)


def _view_of(answer: AnswerSoFar | None) -> CensusView | None:
    return None if answer is None else CensusView.of_answer(answer.summary, answer.maps)


def _dose_colour(dose_e_per_a2: float | None, most: float) -> str:
    return dose_colours()[round(255 * (dose_e_per_a2 or 0.0) / most) if most > 0 else 0]


def _large_first(steps: Sequence[Step]) -> list[Step]:
    return sorted(steps, key=lambda step: -footprint_of(step).width_nm)


def _group(name: str, shapes: Iterable[str]) -> Markup:
    return Markup(f'<g class="{name}">{"".join(shapes)}</g>')


def _ground(frame: _Frame, url: str | None) -> Markup:
    size = Markup('width="{:.0f}" height="{:.1f}"').format(WIDTH_PX, frame.height_px)
    ground = Markup('<rect class="bare" {}/>').format(size)
    if url is not None:
        ground += Markup('<image href="{}" {} preserveAspectRatio="none"/>').format(url, size)
    return ground


def _field(frame: _Frame, step: Step, colour: str | None) -> str:
    dose = "" if step.dose_e_per_a2 is None else f", {step.dose_e_per_a2:,.0f} e/Å²"
    place = footprint_of(step)
    title = escape(f"decision {step.seq}: {step.command['purpose']}, {place.width_nm:.3g} nm{dose}")
    paint = "" if colour is None else f' stroke="{colour}" fill="{colour}"'
    return f"<rect {_box(frame, place)}{paint}><title>{title}</title></rect>"


def _box(frame: _Frame, place: Footprint, margin_px: float = 0.0) -> str:
    """Position and size; a field too small to see is drawn 3 px wide. Numbers only: nothing in it needs escaping."""
    width, height = (
        max(side * frame.px_per_nm, _LEAST_PX) + 2 * margin_px for side in (place.width_nm, place.height_nm)
    )
    x, y = frame.x(place.x_nm), frame.y(place.y_nm)
    box = f'x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}"'
    if place.rotation_deg:  # from +x towards +y is anticlockwise to the eye; SVG turns clockwise
        box += f' transform="rotate({-place.rotation_deg:.2f} {x:.1f} {y:.1f})"'
    return box


def _marked(frame: _Frame, step: Step | None, name: str) -> Markup:
    if step is None:
        return Markup("")
    return Markup(f'<rect class="{name}" {_box(frame, footprint_of(step), 3.0)}/>')


def _finds(frame: _Frame, view: CensusView | None) -> tuple[Markup, list[LegendEntry]]:
    if view is None:
        return Markup(""), []
    drawn: list[Markup] = []
    legend: list[LegendEntry] = []
    for mask, (colour, marker), name in _groups(view):
        if not mask.any():
            continue
        shapes = [
            _shape(marker, frame.x(x), frame.y(y), 5.0) for x, y in zip(view.x_nm[mask], view.y_nm[mask], strict=True)
        ]
        drawn.append(_painted(marker, colour, shapes))
        legend.append(LegendEntry(symbol=_swatch(marker, colour), words=f"{name}: {int(mask.sum())}"))
    return Markup("").join(drawn), legend


def _groups(view: CensusView) -> list[tuple[np.ndarray, tuple[str, str], str]]:
    groups = [(view.of_species(number), species_style(number), name) for number, name in enumerate(view.species)]
    return [
        (view.undetermined, ("#ffffff", "x"), "candidates, undecided"),
        *groups,
        (view.beam_made, ("#E69F00", "v"), "made by the beam"),
    ]


def _class_of(marker: str) -> str:
    return "candidate" if marker == "x" else "find"


def _shape(marker: str, x: float, y: float, r: float) -> str:
    if marker == "x":
        r *= 0.7
    places = {"x": x, "y": y, "r": r, "d": 2 * r, "left": x - r, "right": x + r, "top": y - r, "bottom": y + r}
    return _SHAPES[marker].format(**places)


def _swatch(marker: str, colour: str) -> Markup:
    return _small(_painted(marker, colour, [_shape(marker, 8, 8, 5)]))


def _painted(marker: str, colour: str, shapes: Iterable[str]) -> Markup:
    return Markup(f'<g fill="{colour}" color="{colour}" class="{_class_of(marker)}">{"".join(shapes)}</g>')


def _small(content: Markup) -> Markup:
    ground = Markup('<rect class="bare" width="16" height="16"/>')
    return Markup('<svg class="swatch" viewBox="0 0 16 16" aria-hidden="true">{}{}</svg>').format(ground, content)


def _legend_of_marks(
    last: Step | None, waiting: Sequence[Step], surveys: Sequence[Step], waiting_is: str
) -> list[LegendEntry]:
    marks = [("last", "last frame", last is not None), ("next", waiting_is, waiting), ("survey", "survey", surveys)]
    box = Markup('<g class="{0}"><rect class="{0}" x="3" y="3" width="10" height="10"/></g>')
    return [LegendEntry(symbol=_small(box.format(name)), words=words) for name, words, is_there in marks if is_there]


def _scale_bar(frame: _Frame) -> Markup:
    width_nm = frame.extent[1] - frame.extent[0]
    length_nm = round_length_nm(_BAR_SHARE * width_nm)
    return scale_bar(length_nm * frame.px_per_nm, length_nm, frame.height_px)


def scale_bar(length_px: float, length_nm: float, height_px: float) -> Markup:
    """A bar with its length in the lower left corner of a picture, legible on any image."""
    return Markup(
        '<g class="bar"><rect class="plate" x="10" y="{:.1f}" width="{:.1f}" height="42" rx="3"/>'
        '<rect class="length" x="20" y="{:.1f}" width="{:.1f}" height="7"/>'
        '<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{:g} nm</text></g>'
    ).format(
        height_px - 52, max(length_px, 64) + 20, height_px - 24, length_px,
        20 + max(length_px, 64) / 2, height_px - 31, length_nm,
    )  # fmt: skip


def _sentence(extent: Extent, fields: Sequence[Step], surveys: Sequence[Step], legend: Sequence[LegendEntry]) -> str:
    finds = "; ".join(entry.words for entry in legend if ":" in entry.words)
    words = (
        f"Map of {extent[1] - extent[0]:.4g} by {extent[3] - extent[2]:.4g} nm with {len(surveys)} survey frames and "
        f"{len(fields)} other fields"
    )
    return words + (f"; {finds}" if finds else "") + "."
