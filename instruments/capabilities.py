"""What an instrument can do, said before anything is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from instruments import cards, plotting
from instruments.axes import FRAME_ONLY, AxisFrame, changes_current, unit_of
from instruments.commands import AxisValue
from instruments.errors import CommandRefused, Unsupported
from instruments.models import Record


class Axis(Record):
    """One thing that can be set: bounds, resolution and settle time in the unit its name ends in.

    An axis with `choices` takes one of these words and has no bounds. One without choices or bounds is fixed at 0.
    """

    name: str
    minimum: float = 0.0
    maximum: float = 0.0
    resolution: float = 0.0
    settle_s: float = 0.0
    frame: AxisFrame = "optics"
    choices: tuple[str, ...] = ()
    tolerance: float | None = Field(
        default=None, ge=0, description="how far the value read back may be off; None: half the resolution"
    )
    rate_per_s: float | None = Field(default=None, gt=0, description="how fast it moves; None: not known")
    backlash: float = Field(default=0.0, ge=0, description="what a reversal loses, unit of the name")
    read_only: bool = Field(default=False, description="it can be read back, not set")
    interlocked: bool = Field(default=False, description="set only where the facility permits it by name")
    changes_current: bool | None = Field(default=None, description="setting it changes the current; None: by its name")

    @property
    def alters_current(self) -> bool:
        """Whether setting it changes the current."""
        return changes_current(self.name) if self.changes_current is None else self.changes_current

    @property
    def allowed_error(self) -> float:
        """How far the value read back may be off: the declared tolerance, or half the resolution and rounding."""
        rounding = 1e-9 * max(abs(self.minimum), abs(self.maximum), 1e-6)
        return self.tolerance if self.tolerance is not None else self.resolution / 2 + rounding

    def refusal(self, value: AxisValue) -> str | None:
        """Why this value cannot be set, with value, limits and unit; None if it can."""
        if self.read_only:
            return f"{self.name} can be read, not set; leave it out"
        if self.choices or isinstance(value, str):
            if value in self.choices:
                return None
            known = ", ".join(self.choices) or "numbers only"
            return f"{self.name} {value!r} is not a choice of this instrument: {known}"
        if self.minimum <= value <= self.maximum:
            return None
        unit = f" {unit_of(self.name)}" if unit_of(self.name) else ""
        return f"{self.name} {value:.6g} is outside {self.minimum:g} to {self.maximum:g}{unit}; stay inside"


class Detector(Record):
    """One detector. Angles are None for detectors that are not annular (spectra, images)."""

    name: str
    inner_mrad: float | None = None
    outer_mrad: float | None = None
    gain_counts_per_electron: float | None = Field(default=None, description="None: not known, counts are raw")
    offset_counts: float = 0.0
    raw_counts: bool = Field(default=True, description="False: normalised, Poisson statistics do not hold")
    dark_reference: str = Field(default="", description="id of the dark image that belongs to its counts; empty: none")
    gain_reference: str = Field(default="", description="id of the image of its gain, pixel by pixel; empty: none")
    without_references: str = Field(default="", description="why gain, dark or gain reference are not given")
    shape_px: tuple[int, int] | None = Field(default=None, description="(rows, columns) of a camera; None: one signal")

    @property
    def is_declared(self) -> bool:
        """Whether gain, dark and gain reference are given, or their absence is."""
        is_whole = self.gain_counts_per_electron is not None and self.dark_reference and self.gain_reference
        return bool(is_whole or self.without_references)


class Mode(Record):
    """A set of detectors read together (at a camera length, where it has one).

    The kinds `tem_image`, `tem_diffraction` and `camera` (one without electrons) are exposed at once, see
    `ScanPattern.at_once`; a tilt series is one frame after another at stage tilts of its own. `ronchigram` is a camera
    under a beam that stands still.
    """

    name: str
    kind: Literal["stem", "4d_stem", "eels", "eds", "ronchigram", "tem_image", "tem_diffraction", "camera"] = "stem"
    camera_length_mm: float | None = None
    detectors: tuple[Detector, ...]

    @property
    def is_at_once(self) -> bool:
        """Whether a camera sees the whole field together, so that its commands say `scan.at_once`."""
        return self.kind in ("tem_image", "tem_diffraction", "camera")


class Procedure(Record):
    """Something the instrument does of its own: normalise, autofocus, flash. Denied unless the facility permits it."""

    name: str
    duration_s: float = Field(gt=0, description="at most")
    exposes: bool = Field(default=True, description="the beam may be on the specimen meanwhile")
    illuminated_nm: float | None = Field(
        default=None, gt=0, le=1e6, description="diameter of the disc it lights around that place; None: a spot"
    )
    changes_current: bool | None = Field(default=None, description="as a flash does; None: by its name")

    @property
    def alters_current(self) -> bool:
        """Whether the current is another after it."""
        return changes_current(self.name) if self.changes_current is None else self.changes_current


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
    height_error_nm: float | None = Field(
        default=None, ge=0, description="at stage height 0 a specimen is no further from the tilt axis; None: unknown"
    )
    quirks: tuple[str, ...] = ()
    procedures: tuple[Procedure, ...] = ()
    reports_limits: bool = Field(default=True, description="False: limits are the adapter's, the instrument has none")
    has_beam: bool = Field(default=True, description="False: nothing here can burn a specimen, as a light microscope")

    def axis(self, name: str) -> Axis | None:
        """The axis of that name, or None."""
        return next((axis for axis in self.axes if axis.name == name), None)

    def mode(self, name: str) -> Mode | None:
        """The mode of that name, or None."""
        return next((mode for mode in self.modes if mode.name == name), None)

    def procedure(self, name: str) -> Procedure | None:
        """The procedure of that name, or None."""
        return next((procedure for procedure in self.procedures if procedure.name == name), None)

    def check_values(self, values: Mapping[str, AxisValue]) -> None:
        """Raise Unsupported for an axis there is none of, CommandRefused for a value outside; for adapters."""
        unknown = [name for name in values if self.axis(name) is None]
        if unknown:
            known = ", ".join(axis.name for axis in self.axes)
            raise Unsupported(f"instrument {self.name!r} has no axis {', '.join(unknown)}; it has {known}")
        if mine := sorted(FRAME_ONLY & values.keys()):
            raise CommandRefused(f"{', '.join(mine)} comes with each frame; write it into the command that exposes")
        refusals = [axis.refusal(values[axis.name]) for axis in self.axes if axis.name in values]
        if said := [refusal for refusal in refusals if refusal is not None]:
            raise CommandRefused("; ".join(said))

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
