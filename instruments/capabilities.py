"""What an instrument can do, said before anything is asked of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from instruments import cards, plotting
from instruments.models import Record


class Axis(Record):
    """One thing that can be set: bounds, resolution and settle time in the unit its name ends in."""

    name: str
    minimum: float
    maximum: float
    resolution: float = 0.0
    settle_s: float = 0.0
    frame: Literal["stage", "beam_shift", "scan", "detector", "optics"] = "optics"


class Detector(Record):
    """One detector. Angles are None for detectors that are not annular (spectra, images)."""

    name: str
    inner_mrad: float | None = None
    outer_mrad: float | None = None
    gain_counts_per_electron: float | None = Field(default=None, description="None: not known, counts are raw")
    offset_counts: float = 0.0
    raw_counts: bool = Field(default=True, description="False: normalised, Poisson statistics do not hold")


class Mode(Record):
    """A set of detectors read together (at a camera length, where it has one)."""

    name: str
    kind: Literal["stem", "4d_stem", "eels", "eds", "ronchigram", "tem_image", "tem_diffraction"] = "stem"
    camera_length_mm: float | None = None
    detectors: tuple[Detector, ...]


class Capabilities(Record):
    """What an instrument can do; `schema_version` counts breaking changes of this model."""

    schema_version: int = 1
    name: str
    simulated: bool
    axes: tuple[Axis, ...]
    modes: tuple[Mode, ...]
    can_interrupt: bool = True
    stop_latency_s: float = 0.1
    concurrent_clients: int = 1
    subframes: bool = True
    reports_dose: bool = True
    blanker_settle_s: float = Field(default=0.0, ge=0, description="beam on the first pixel before the scan starts")
    flyback_exposes: bool = Field(default=True, description="the beam is on while it flies back")
    current_uncertainty_fraction: float = Field(default=0.0, ge=0, description="commanded against true current")
    quirks: tuple[str, ...] = ()

    def axis(self, name: str) -> Axis | None:
        """The axis of that name, or None."""
        return next((axis for axis in self.axes if axis.name == name), None)

    def mode(self, name: str) -> Mode | None:
        """The mode of that name, or None."""
        return next((mode for mode in self.modes if mode.name == name), None)

    def plot(self, axes: plotting.Axes | None = None) -> plotting.Axes:
        """Draw the angles that the detectors of each mode collect; needs matplotlib."""
        return plotting.draw_capabilities(self, axes)

    def _repr_html_(self) -> str:
        modes = [
            (mode.name, mode.kind, mode.camera_length_mm, ", ".join(map(_detector_words, mode.detectors)))
            for mode in self.modes
        ]
        free = [axis for axis in self.axes if axis.minimum < axis.maximum]
        fixed = {axis.name: axis.minimum for axis in self.axes if axis.minimum == axis.maximum}
        axes = [(axis.name, axis.minimum, axis.maximum, axis.resolution or None, axis.settle_s) for axis in free]
        return cards.card(
            f"Instrument {self.name}",
            "simulated" if self.simulated else "",
            cards.table(("mode", "kind", "camera length (mm)", "detectors read together"), modes),
            cards.table(("what can be set", "from", "to", "step", "settles in (s)"), axes),
            cards.note(f"fixed: {cards.words(fixed)}"),
            *(cards.note(quirk) for quirk in self.quirks),
        )


def _detector_words(detector: Detector) -> str:
    if detector.outer_mrad is None:
        return detector.name
    return f"{detector.name} {detector.inner_mrad or 0:g}-{detector.outer_mrad:g} mrad"
