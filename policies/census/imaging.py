"""Ways of imaging: which mode, current, pixel and dwell give a dose, what each teaches and costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.census.detection import columns_of, information_matrix
from policies.census.field_plan import FieldModel, Outcomes, outcomes_of
from policies.census.settings import CensusSettings
from policies.context import Context
from policies.cost import Cost
from policies.dimensions import Choice, Point
from policies.errors import InvalidOption
from policies.fields import bounds_of, cost_of, dose_of, dwell_for_dose_us, placed
from policies.space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of imaging; `dose_e_per_a2` is what the rounded settings really give."""

    mode: str
    probe_current_pa: float
    pixel_size_nm: float
    dwell_time_us: float
    dose_e_per_a2: float

    def settings(self) -> Point:
        """As part of a point."""
        return {
            "mode": self.mode,
            "probe_current_pa": self.probe_current_pa,
            "pixel_size_nm": self.pixel_size_nm,
            "dwell_time_us": self.dwell_time_us,
        }


class Imaging:
    """Static part of the decisions: ways for first and second looks, their information and their prices (cached)."""

    def __init__(self, space: SearchSpace, context: Context, settings: CensusSettings) -> None:
        self.space = space
        self.context = context
        self.settings = settings
        self.modes = context.modes or modes_of(space)
        self.currents_pa = settings.current_options_pa or default_currents_pa(space)
        self.field_ways = self._ways(settings.field_dose_options_e_per_a2)
        self.revisit_ways = self._ways(settings.revisit_dose_options_e_per_a2)
        if not self.field_ways or not self.revisit_ways:
            raise InvalidOption("no dose can be given within the search space's dwell_time_us and pixel_size_nm")
        self._information: dict[tuple[str, float], np.ndarray] = {}
        self._costs: dict[tuple[object, ...], Cost] = {}
        self._outcomes: dict[bytes, Outcomes] = {}

    def squared_distance(self, ways: list[Way], contrast: float) -> np.ndarray:
        """(W, 1 + S, 1 + S) d^2 of each way; information falls with the square of the contrast reached."""
        scale = self.settings.efficiency_ratio * min(max(contrast, 0.3), 1.0) ** 2
        return np.array([self._per_dose(way) * way.dose_e_per_a2 * scale for way in ways])

    def cost(self, way: Way, view_nm: float, previous: Point | None) -> Cost:
        """Of a field elsewhere than `previous`; a change of mode or current is spread over a batch of actions."""
        before = None if previous is None else _signature(previous)
        key = (way, view_nm, before)
        if key not in self._costs:
            point = self.point(way, "field", 0.0, 0.0, view_nm, 0.0)
            alone = cost_of(point, self._elsewhere(point), self.context)
            changed = alone
            if previous is not None and is_complete(previous):
                changed = cost_of(point, self._elsewhere({**point, **_optics(previous)}), self.context)
            extra = changed.minus(alone)
            n = self.settings.batch_count
            self._costs[key] = alone + Cost(extra.electrons / n, extra.seconds / n)
        return self._costs[key]

    def outcomes(self, model: FieldModel) -> Outcomes:
        """`outcomes_of`, looked up where doses and densities are those of an earlier decision."""
        parts = (model.field_distance, model.revisit_distance, model.density_per_nm2, model.revisit_fits)
        key = b"".join(part.tobytes() for part in parts)
        if key not in self._outcomes:
            self._outcomes[key] = outcomes_of(model)
        return self._outcomes[key]

    def point(self, way: Way, purpose: str, x_nm: float, y_nm: float, view_nm: float, defocus_nm: float) -> Point:
        """Census point on the actuators' steps."""
        return placed(
            self.space,
            {
                "purpose": purpose,
                "x_nm": x_nm,
                "y_nm": y_nm,
                "field_of_view_nm": view_nm,
                "defocus_nm": defocus_nm,
                **way.settings(),
            },
        )

    def way_for(self, mode: str, current_pa: float, dose_e_per_a2: float) -> Way | None:
        """The finest pixel whose dwell is not too short for the dose; None where no allowed dwell gives it."""
        low, high = bounds_of(self.space, "dwell_time_us")
        shortest = max(low, min(self.settings.shortest_dwell_us, high))
        for pixel in self.settings.pixel_options_nm:
            if "pixel_size_nm" in self.space.dimensions and self.space.dimensions["pixel_size_nm"].violation(pixel):
                continue
            dwell = dwell_for_dose_us(dose_e_per_a2, current_pa, pixel)
            if shortest <= dwell <= high:
                dwell = float(f"{float(self.space.dimensions['dwell_time_us'].round(dwell)):.6g}")
                given = dose_of({"probe_current_pa": current_pa, "dwell_time_us": dwell, "pixel_size_nm": pixel})
                return Way(
                    mode=mode,
                    probe_current_pa=current_pa,
                    pixel_size_nm=pixel,
                    dwell_time_us=dwell,
                    dose_e_per_a2=given,
                )
        return None

    def views_nm(self, options_nm: tuple[float, ...]) -> list[float]:
        """The sizes that the space allows."""
        dimension = self.space.dimensions.get("field_of_view_nm")
        return [view for view in options_nm if dimension is None or dimension.violation(view) is None]

    def _ways(self, doses: tuple[float, ...]) -> list[Way]:
        found = [self.way_for(m, c, d) for m in self.modes for c in self.currents_pa for d in doses]
        return [way for way in found if way is not None]

    def _per_dose(self, way: Way) -> np.ndarray:
        key = (way.mode, way.probe_current_pa)
        if key not in self._information:
            assert self.context.information is not None
            point = self.point(way, "field", 0.0, 0.0, self.views_nm(self.settings.field_of_view_options_nm)[0], 0.0)
            self._information[key] = information_matrix(
                self.context.information, self.context.species, columns_of(self.context), way.mode, point
            )
        return self._information[key]

    def _elsewhere(self, point: Point) -> Point:
        """The same point a field away inside the area, so that the cost holds one settling of the beam."""
        low, high = bounds_of(self.space, "x_nm")
        step = min(20.0, (high - low) / 2)
        x_nm = float(point["x_nm"])
        return {**point, "x_nm": x_nm + step if x_nm + step <= high else x_nm - step}


def is_complete(point: Point) -> bool:
    """Whether a point names its optics."""
    return "mode" in point and "probe_current_pa" in point


def _optics(point: Point) -> Point:
    return {name: point[name] for name in ("mode", "probe_current_pa")}


def _signature(point: Point) -> tuple[object, ...]:
    return (point.get("mode"), point.get("probe_current_pa"))


def modes_of(space: SearchSpace) -> tuple[str, ...]:
    """Values of the dimension `mode`. Raises InvalidOption without one."""
    dimension = space.dimensions.get("mode")
    if not isinstance(dimension, Choice):
        raise InvalidOption("census needs modes: a choice `mode` in the search space, or context.modes")
    return tuple(str(value) for value in dimension.choices)


def default_currents_pa(space: SearchSpace) -> tuple[float, ...]:
    """The lowest current, and its double as far as the space goes.

    More current only saves time, which 10 pA leaves plenty of, and widens the source.
    """
    dimension = space.dimensions.get("probe_current_pa")
    if isinstance(dimension, Choice):
        return tuple(float(value) for value in dimension.choices)
    low, high = bounds_of(space, "probe_current_pa")
    return tuple(float(dimension.round(low * k)) for k in (1, 2) if low * k <= high) if dimension else ()
