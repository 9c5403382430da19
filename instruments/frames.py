"""One exposure as it came back: raw counts and the complete context that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from instruments import cards, plotting
from instruments.capabilities import Mode
from instruments.commands import AcquireFrame
from instruments.errors import Unsupported
from instruments.state import MicroscopeState

if TYPE_CHECKING:
    import xarray

PATTERN_NDIM: Final = 5  # (sub-frames, rows, columns, detector rows, detector columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Raw counts by detector, (sub-frames, rows, columns) unsigned integers, and what made them.

    For spectrum points the arrays are (sub-frames, rows, columns) counts of one line each. A camera that is read at
    every scan point (4D-STEM, Ronchigram, EELS camera) has patterns, (sub-frames, rows, columns, detector rows,
    detector columns). `requested` is the command,
    `state` what was read back at the end of the exposure; `dose_e_per_a2` is the mean dose of the scanned area in this
    frame, `electrons` everything that left the gun on to the specimen for it (flyback and blanker settling included).
    """

    action_id: str
    requested: AcquireFrame
    state: MicroscopeState
    mode: Mode
    counts: dict[str, np.ndarray]
    pixel_size_nm: float
    dose_e_per_a2: float
    electrons: float
    started_s: float
    ended_s: float
    instrument: str
    simulated: bool
    context: dict[str, Any] = field(default_factory=dict)

    def total(self, detector: str) -> np.ndarray:
        """Counts of all sub-frames together, (rows, columns), int64; of patterns, summed over the whole detector."""
        counts = self.counts[detector]
        return counts.sum(axis=(0, *range(3, counts.ndim)), dtype=np.int64)

    def has_patterns(self, detector: str) -> bool:
        """Whether this detector is a camera that was read at every scan point."""
        return self.counts[detector].ndim == PATTERN_NDIM

    def is_one_pattern(self, detector: str) -> bool:
        """Whether this detector is a camera under a beam that stood still: its picture is what the camera saw."""
        return self.has_patterns(detector) and self.counts[detector].shape[1:3] == (1, 1)

    def pattern(self, detector: str) -> np.ndarray:
        """Patterns of all scan points and sub-frames together, (detector rows, detector columns), int64.

        Raises Unsupported for a detector without patterns.
        """
        if not self.has_patterns(detector):
            raise Unsupported(f"frame {self.action_id}: {detector!r} counts one number a pixel; it has no patterns")
        return self.counts[detector].sum(axis=(0, 1, 2), dtype=np.int64)

    def picture(self, detector: str) -> np.ndarray:
        """What is shown of a detector: its `pattern` where the beam stood still, else `total`."""
        return self.pattern(detector) if self.is_one_pattern(detector) else self.total(detector)

    @property
    def instrument_time_s(self) -> float:
        """Microscope time this frame took, moves and settling included."""
        return self.ended_s - self.started_s

    @property
    def centre_nm(self) -> tuple[float, float]:
        """Commanded x and y of the middle of the frame: stage plus beam shift."""
        stage, scan = self.requested.stage, self.requested.scan
        return stage.x_nm + scan.beam_shift_x_nm, stage.y_nm + scan.beam_shift_y_nm

    def detector_named(self, name: str | None = None) -> str:
        """The name of a detector of this frame, by default the mode's first. Raises Unsupported for any other."""
        if name is None:
            return next(iter(self.counts))
        if name not in self.counts:
            raise Unsupported(f"frame {self.action_id} has no detector {name!r}; it has {', '.join(self.counts)}")
        return name

    def plot(self, detector: str | None = None, axes: plotting.Axes | None = None) -> plotting.Axes:
        """Draw one detector's image, by default the mode's first, all sub-frames together; needs matplotlib."""
        return plotting.draw_frame(self, detector, axes)

    def to_xarray(self) -> xarray.Dataset:
        """Counts by detector over (subframe, y, x), coordinates in nm, conditions as attributes; needs xarray.

        Patterns are over (subframe, y, x, NAME_row, NAME_column), NAME being the detector's. Unrotated coordinates: x
        along the scan lines from the frame's centre, as commanded.
        """
        import xarray

        rows, columns = next(iter(self.counts.values())).shape[1:3]
        x_nm, y_nm = self.centre_nm
        coordinates = {
            "x_nm": ("x", x_nm + (np.arange(columns) - (columns - 1) / 2) * self.pixel_size_nm),
            "y_nm": ("y", y_nm + (np.arange(rows) - (rows - 1) / 2) * self.pixel_size_nm),
        }
        arrays = {
            name: (("subframe", "y", "x", f"{name}_row", f"{name}_column")[: counts.ndim], counts)
            for name, counts in self.counts.items()
        }
        conditions = {
            "action_id": self.action_id,
            "instrument": self.instrument,
            "mode": self.requested.mode,
            "purpose": self.requested.purpose,
            "dose_e_per_a2": self.dose_e_per_a2,
            "electrons": self.electrons,
            "probe_current_pa": self.requested.optics.probe_current_pa,
            "defocus_nm": self.requested.optics.defocus_nm,
            "dwell_time_us": self.requested.scan.dwell_time_us,
        }
        return xarray.Dataset(arrays, coords=coordinates, attrs=conditions)

    def _repr_html_(self) -> str:
        name = self.detector_named()
        command = self.requested
        rows, columns = command.scan.shape_px
        return cards.card(
            f"Frame {self.action_id}",
            f"{command.purpose} on {self.instrument}",
            cards.picture(plotting.thumbnail_png(self.picture(name)), f"{name} image", 160),
            cards.facts(
                {
                    "detectors": list(self.counts),
                    "centre": "{:.1f}, {:.1f} nm".format(*self.centre_nm),
                    "field": f"{command.scan.field_of_view_nm:.4g} nm, {rows} x {columns} px",
                    "sub-frames": f"{command.subframe_count} of {command.scan.dwell_time_us:.3g} us per pixel",
                    "probe": f"{command.optics.probe_current_pa:g} pA, defocus {command.optics.defocus_nm:+g} nm",
                    "dose": f"{self.dose_e_per_a2:,.4g} e/Å², {self.electrons:.3g} electrons",
                    "time": f"{self.instrument_time_s:.3g} s of the microscope",
                }
            ),
        )
