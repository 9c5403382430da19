"""Which axis is what on the server: its endpoint, its unit, its sign. `temscript_card` says which of them there are.

temscript speaks metres and radians, and its defocus grows towards overfocus; the house speaks nanometres, degrees and
milliradians, and its defocus towards underfocus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import pi
from typing import Any, Final

import numpy as np

from instruments.adapters.temscript_config import TemscriptConfig
from instruments.axes import AxisFrame
from instruments.commands import AxisValue

NM_PER_M: Final = 1e9
DEG_PER_RAD: Final = 180 / pi
MRAD_PER_RAD: Final = 1e3


@dataclass(frozen=True, slots=True)
class ServerAxis:
    """A number of the server: house value = factor * its value; `place` is its index or key within the endpoint."""

    endpoint: str
    factor: float = 1.0
    place: str | int | None = None
    frame: AxisFrame = "optics"
    tolerance: float = 0.0
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """A word of the server: house word -> its value."""

    endpoint: str
    words: Mapping[str, object]
    frame: AxisFrame = "optics"


def _pair(stem: str, unit: str, endpoint: str, factor: float, frame: AxisFrame, tolerance: float) -> dict[str, Any]:
    return {
        f"{stem}_{letter}_{unit}": ServerAxis(endpoint, factor, place, frame, tolerance)
        for place, letter in enumerate("xy")
    }


STAGE: Final = "stage_position"
NUMBERS: Final[Mapping[str, ServerAxis]] = {
    **{f"{letter}_nm": ServerAxis(STAGE, NM_PER_M, letter, "stage", 10.0) for letter in "xyz"},
    "alpha_deg": ServerAxis(STAGE, DEG_PER_RAD, "a", "stage", 0.01),
    "beta_deg": ServerAxis(STAGE, DEG_PER_RAD, "b", "stage", 0.01),
    **_pair("beam_shift", "nm", "beam_shift", NM_PER_M, "beam_shift", 0.1),
    **_pair("image_shift", "nm", "image_shift", NM_PER_M, "optics", 0.1),
    **_pair("tilt", "mrad", "beam_tilt", MRAD_PER_RAD, "optics", 1e-3),
    **_pair("descan", "mrad", "diffraction_shift", MRAD_PER_RAD, "optics", 1e-3),
    **_pair("condenser_stigmator", "fraction", "condenser_stigmator", 1.0, "optics", 1e-4),
    **_pair("objective_stigmator", "fraction", "objective_stigmator", 1.0, "optics", 1e-4),
    "defocus_nm": ServerAxis("defocus", -NM_PER_M, tolerance=0.1),
    "intensity_fraction": ServerAxis("intensity", tolerance=1e-5),
    "spot_index": ServerAxis("spot_size_index", is_whole=True),
    "magnification_index": ServerAxis("magnification_index", is_whole=True),
    "semi_convergence_angle_mrad": ServerAxis("convergence_angle", MRAD_PER_RAD, tolerance=1e-3),
}
CHOICES: Final[Mapping[str, ServerChoice]] = {
    "screen": ServerChoice("screen_position", {"up": "UP", "down": "DOWN"}, "detector"),
    "column_valves": ServerChoice("column_valves_open", {"closed": False, "open": True}, "column"),
}
_VECTORS: Final = {axis.endpoint for axis in NUMBERS.values() if isinstance(axis.place, int)}


@dataclass(frozen=True, slots=True)
class Write:
    """One request that sets one or more axes."""

    endpoint: str
    body: object
    names: tuple[str, ...]


class AxisTable:
    """Axis names and values against the server's, with the calibration of one configuration."""

    def __init__(self, config: TemscriptConfig) -> None:
        self._numbers = dict(NUMBERS)
        if config.defocus_of != "defocus":
            self._numbers["defocus_nm"] = ServerAxis(config.defocus_of, -NM_PER_M, tolerance=0.1)
        self._to_house = {str(name): np.array(matrix) for name, matrix in config.matrices.items()}

    @property
    def numbers(self) -> Mapping[str, ServerAxis]:
        """Every axis with numbers, by house name."""
        return self._numbers

    def values(self, state: Mapping[str, Any], vacuum: Mapping[str, Any]) -> dict[str, AxisValue]:
        """Every axis the server told of, in house units."""
        found: dict[str, AxisValue] = {}
        for name, axis in self._numbers.items():
            raw = state.get(axis.endpoint)
            if raw is not None and (axis.endpoint != STAGE or axis.place in raw):
                found[name] = self._house(axis, raw)
        position = str(state.get("screen_position", "")).lower()
        if position in CHOICES["screen"].words:
            found["screen"] = position
        if "column_valves_open" in vacuum:
            found["column_valves"] = "open" if vacuum["column_valves_open"] else "closed"
        return found

    def writes(self, values: Mapping[str, AxisValue], now: Callable[[], Mapping[str, AxisValue]]) -> Iterator[Write]:
        """The requests that bring these axes there; a vector of which one part is named keeps the other as it is."""
        by_endpoint: dict[str, list[str]] = {}
        for name in values:
            endpoint = (self._numbers.get(name) or CHOICES[name]).endpoint
            by_endpoint.setdefault(endpoint, []).append(name)
        for endpoint, names in by_endpoint.items():
            yield Write(endpoint, self._body(endpoint, names, values, now), tuple(names))

    def _body(
        self,
        endpoint: str,
        names: list[str],
        values: Mapping[str, AxisValue],
        now: Callable[[], Mapping[str, AxisValue]],
    ) -> object:
        if endpoint in _VECTORS:
            both = [name for name, axis in self._numbers.items() if axis.endpoint == endpoint]
            whole = values if len(names) == len(both) else {**now(), **values}
            house = np.array([float(whole[name]) for name in both]) / self._numbers[both[0]].factor
            matrix = self._to_house.get(endpoint)
            wire = house if matrix is None else np.linalg.solve(matrix, house)
            return [float(value) for value in wire]
        if endpoint == STAGE:
            axes = self._numbers
            return {str(axes[name].place): float(values[name]) / axes[name].factor for name in names}
        (name,) = names
        if name in CHOICES:
            return CHOICES[name].words[str(values[name])]
        axis, value = self._numbers[name], float(values[name])
        return round(value) if axis.is_whole else value / axis.factor

    def _house(self, axis: ServerAxis, raw: Any) -> float:
        if axis.place is None:
            return float(raw) * axis.factor
        matrix = self._to_house.get(axis.endpoint)
        if matrix is not None and isinstance(axis.place, int):
            return float((matrix @ np.array(raw, dtype=float))[axis.place]) * axis.factor
        return float(raw[axis.place]) * axis.factor
