"""What the twin has besides specimen, stage and scan where `fittings` is configured, and what each does to a frame.

Detectors that are moved, amplified and offset, a viewing screen, a gun lens, a scan generator that waits for the mains,
a holder that heats, biases, strains and lets gas flow, and a gun that is flashed. Every size of an effect is an
assumption; at the start there is none but the hum of the mains. Neighbours: `clock` keeps how they stand, `column`
tells of the gun.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, inf, pi
from typing import Final

import numpy as np

from instruments.capabilities import Axis, Mode, Procedure
from instruments.commands import AxisValue
from instruments.scans import ScanPattern
from instruments.state import AxisReading

FLASH: Final = Procedure(name="flash", duration_s=60.0, exposes=False)
ROOM_K: Final = 293.0
_WARMING_K_PER_S = 50.0
_EXPANSION_NM_PER_K, _EXPANSION_S = 0.5, 60.0  # along x, and the time constant of its approach
_BIAS_NM_PER_V = 0.2  # along y
_FLOW_JITTER_NM = 0.01  # rms of a line per ml/min
_HUM_NM, MAINS_HZ = 0.02, 50.0  # along x
_LENS_STEP = 2**0.5  # of the current that it lets through, from one setting of the gun lens to the next stronger one
_OFFSET_COUNTS = 1000.0
_DESCAN_MRAD = 30.0
_START: Final[Mapping[str, AxisValue]] = {
    "screen": "up",
    "line_sync": "off",
    "gun_lens_index": 4.0,
    "illuminated_nm": 100.0,
    "objective_aperture": "out",
    "descan_x_mrad": 0.0,
    "descan_y_mrad": 0.0,
    "holder.temperature_k": ROOM_K,
    "holder.bias_v": 0.0,
    "holder.strain_fraction": 0.0,
    "holder.flow_ml_per_min": 0.0,
}
_APERTURES_MRAD: Final[Mapping[str, float | None]] = {"out": None, "20 mrad": 20.0, "10 mrad": 10.0}
_OF_A_DETECTOR: Final[Mapping[str, AxisValue]] = {"position": "in", "gain_fraction": 0.5, "offset_fraction": 0.0}


def fitted_axes(modes: Iterable[Mode]) -> tuple[Axis, ...]:
    """The axes of the fittings, those of every detector among them."""
    names = list(dict.fromkeys(detector.name for mode in modes for detector in mode.detectors))
    return (
        Axis(name="screen", choices=("up", "down"), settle_s=1.0, frame="detector"),
        Axis(name="line_sync", choices=("off", "on"), frame="scan"),
        Axis(name="gun_lens_index", minimum=1, maximum=8, resolution=1, settle_s=5.0),
        Axis(name="illuminated_nm", minimum=5, maximum=1000, settle_s=1.0),
        Axis(name="objective_aperture", choices=tuple(_APERTURES_MRAD), settle_s=3.0),
        *(Axis(name=f"descan_{way}_mrad", minimum=-_DESCAN_MRAD, maximum=_DESCAN_MRAD, settle_s=0.05) for way in "xy"),
        Axis(
            name="holder.temperature_k", minimum=ROOM_K, maximum=1273, rate_per_s=_WARMING_K_PER_S, tolerance=0.5,
            frame="holder",
        ),
        Axis(name="holder.bias_v", minimum=-10, maximum=10, resolution=0.01, frame="holder"),
        Axis(name="holder.strain_fraction", minimum=0, maximum=0.02, settle_s=2.0, frame="holder"),
        Axis(name="holder.flow_ml_per_min", minimum=0, maximum=1, settle_s=10.0, frame="holder"),
        *(Axis(name=f"{name}.position", choices=("out", "in"), settle_s=3.0, frame="detector") for name in names),
        *(Axis(name=f"{name}.gain_fraction", minimum=0.05, maximum=1, frame="detector") for name in names),
        *(Axis(name=f"{name}.offset_fraction", minimum=0, maximum=1, frame="detector") for name in names),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fittings:
    """How they stand; without any axis named, as without fittings."""

    values: Mapping[str, AxisValue] = field(default_factory=dict[str, AxisValue])
    flashed_s: float = 0.0
    warmed_s: float = 0.0  # last change of the temperature
    expanded_nm: float = 0.0  # by how much the holder had expanded then
    brightest_pa: float = inf  # that the gun lens lets through as it stands at the start

    @classmethod
    def start(cls, axes: Iterable[Axis], brightest_pa: float) -> Fittings:
        """As they stand when the instrument is opened."""
        return cls({axis.name: _start_of(axis.name) for axis in axes}, brightest_pa=brightest_pa)

    def with_values(
        self, values: Mapping[str, AxisValue], axes: Iterable[Axis], time_s: float
    ) -> tuple[Fittings, float]:
        """Set one after another from `time_s` on, and the time at which all have settled; what stands is left alone."""
        now = self
        for axis in axes:
            before = now.values[axis.name]
            value = values.get(axis.name, before)
            if value == before:
                continue
            time_s += axis.settle_s + _way(before, value) / (axis.rate_per_s or inf)
            if axis.name == "holder.temperature_k":
                now = replace(now, warmed_s=time_s, expanded_nm=float(now._expansion_nm(time_s)))
            now = replace(now, values={**now.values, axis.name: value})
        return now, time_s

    def flashed(self, time_s: float) -> Fittings:
        """After a flash that ended then."""
        return replace(self, flashed_s=time_s)

    def displacement_nm(self, time_s: np.ndarray | float, x_nm: float) -> tuple[np.ndarray | float, float]:
        """What heat, strain and bias do to the place under the beam, (x, y); the lattice itself is not deformed."""
        stretched_nm = self._number("holder.strain_fraction") * x_nm
        return self._expansion_nm(time_s) - stretched_nm, self._number("holder.bias_v") * _BIAS_NM_PER_V

    def available_pa(self) -> float:
        """The most current that the gun lens lets through; a stronger one gives less, of a smaller source."""
        return self.brightest_pa / _LENS_STEP ** self._lens_steps()

    def source_factor(self) -> float:
        """Source size over that at the start: as the root of the current that the gun lens lets through."""
        return _LENS_STEP ** (-self._lens_steps() / 2)

    def current_refusal(self, current_pa: float) -> str | None:
        """Why this current cannot be had as the gun lens stands."""
        most_pa = self.available_pa()
        if current_pa <= most_pa:
            return None
        index = self._number("gun_lens_index")
        return (
            f"probe current {current_pa:g} pA is more than the {most_pa:.3g} pA that gun_lens_index {index:g} lets "
            "through; ask for less, or set a lower index"
        )

    def _lens_steps(self) -> float:
        start = float(_START["gun_lens_index"])
        return self._number("gun_lens_index", start) - start

    def flow_jitter_nm(self) -> float:
        """What the flow adds to the jitter of a line, rms."""
        return self._number("holder.flow_ml_per_min") * _FLOW_JITTER_NM

    def hum_nm(self, times_s: np.ndarray) -> np.ndarray:
        """What the mains add to the place of lines that begin then, along x; nothing where they wait for it."""
        if "line_sync" not in self.values or self.waits:
            return np.zeros_like(times_s)
        return _HUM_NM * np.sin(2 * pi * MAINS_HZ * times_s)

    @property
    def waits(self) -> bool:
        """Whether each line begins with a period of the mains."""
        return self.values.get("line_sync") == "on"

    def waiting_s(self, scan: ScanPattern) -> float:
        """How long the blanked beam waits for the mains in one sub-frame."""
        if not self.waits or scan.at_once:
            return 0.0
        line_s = scan.duration_s() / scan.shape_px[0]
        return scan.shape_px[0] * (ceil(line_s * MAINS_HZ - 1e-9) / MAINS_HZ - line_s)

    def lit_nm(self) -> float:
        """Diameter of the disc that a parallel beam lights."""
        return self._number("illuminated_nm")

    def objective_mrad(self) -> float | None:
        """Half-angle that the objective aperture lets through; None: all."""
        return _APERTURES_MRAD[str(self.values.get("objective_aperture", "out"))]

    def descan_mrad(self) -> tuple[float, float]:
        """How far a diffraction pattern is moved on the detectors, (x, y)."""
        return self._number("descan_x_mrad"), self._number("descan_y_mrad")

    def counted(self, detector: str, electrons: np.ndarray) -> np.ndarray:
        """Counts of a detector for the electrons that would reach it: unsigned, of 32 bits where it amplifies them."""
        if self.values.get(f"{detector}.position", "in") == "out" or self.values.get("screen") == "down":
            electrons = np.zeros_like(electrons)
        gain, offset = self.gain(detector), self.offset_counts(detector)
        if gain == 1 and offset == 0:
            return electrons
        return np.rint(electrons * gain + offset).astype(np.uint32)

    def mode(self, mode: Mode) -> Mode:
        """The mode with the gain and the offset that its detectors have now."""
        detectors = tuple(
            detector.model_copy(
                update={
                    "gain_counts_per_electron": (detector.gain_counts_per_electron or 1) * self.gain(detector.name),
                    "offset_counts": self.offset_counts(detector.name),
                }
            )
            for detector in mode.detectors
        )
        return mode.model_copy(update={"detectors": detectors})

    def gain(self, detector: str) -> float:
        """Counts for each electron that is detected."""
        return self._number(f"{detector}.gain_fraction", 0.5) / 0.5

    def offset_counts(self, detector: str) -> float:
        """Counts without electrons."""
        return float(round(self._number(f"{detector}.offset_fraction") * _OFFSET_COUNTS))

    def readings(self) -> dict[str, AxisReading]:
        """Every fitted axis, read back."""
        return {name: AxisReading(read_back=value) for name, value in self.values.items()}

    def _number(self, name: str, otherwise: float = 0.0) -> float:
        return float(self.values.get(name, otherwise))

    def _expansion_nm(self, time_s: np.ndarray | float) -> np.ndarray | float:
        goal_nm = (self._number("holder.temperature_k", ROOM_K) - ROOM_K) * _EXPANSION_NM_PER_K
        if goal_nm == self.expanded_nm:
            return goal_nm
        return goal_nm + (self.expanded_nm - goal_nm) * np.exp(-(np.asarray(time_s) - self.warmed_s) / _EXPANSION_S)


UNFITTED: Final = Fittings()


def setting_refusal(values: Mapping[str, AxisValue]) -> str | None:
    """Why these cannot be set although they are within their limits."""
    index = values.get("gun_lens_index", 1.0)
    if not isinstance(index, str) and index != round(index):
        return f"gun_lens_index {index:g} is between two settings; choose a whole number"
    return None


def _start_of(axis: str) -> AxisValue:
    return _START[axis] if axis in _START else _OF_A_DETECTOR[axis.rpartition(".")[2]]


def _way(before: AxisValue, value: AxisValue) -> float:
    """How far it is from one number to another; 0 between words."""
    return 0.0 if isinstance(before, str) or isinstance(value, str) else abs(value - before)
