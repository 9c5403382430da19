"""Where the specimen stands and how the beam is moved over it."""

from __future__ import annotations

from pydantic import Field

from instruments.models import Record


class StagePosition(Record):
    """Specimen position: the point of the specimen under the unshifted beam, and its tilts."""

    x_nm: float = 0.0
    y_nm: float = 0.0
    z_nm: float = 0.0
    alpha_deg: float = 0.0
    beta_deg: float = 0.0


class ScanPattern(Record):
    """A rectangular raster centred on stage position plus beam shift.

    `field_of_view_nm` is the width (fast axis, columns); the height follows from square pixels.
    Pixel (r, c) sits at centre + ((c - (columns-1)/2), (r - (rows-1)/2)) * pixel, rotated by `rotation_deg`
    from +x towards +y. With `at_once` nothing is scanned: a camera of these pixels sees the whole field, each
    pixel for `dwell_time_us`, and the beam is on for that long.
    """

    field_of_view_nm: float = Field(gt=0, le=1e6)
    shape_px: tuple[int, int] = Field(description="(rows, columns)")
    dwell_time_us: float = Field(gt=0, le=1e9)
    flyback_time_us: float = Field(default=0.0, ge=0)
    rotation_deg: float = 0.0
    beam_shift_x_nm: float = 0.0
    beam_shift_y_nm: float = 0.0
    at_once: bool = Field(default=False, description="a parallel beam and a camera: every pixel is exposed together")
    illuminated_nm: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="lit disc of an exposure at once, diameter; None: within the field",
    )

    @property
    def pixel_size_nm(self) -> float:
        """Distance between neighbouring pixels of a row (and of rows)."""
        return self.field_of_view_nm / self.shape_px[1]

    @property
    def height_nm(self) -> float:
        """Extent along the slow axis."""
        return self.pixel_size_nm * self.shape_px[0]

    @property
    def area_nm2(self) -> float:
        """Scanned area."""
        return self.field_of_view_nm * self.height_nm

    def beam_on_s(self, subframe_count: int = 1) -> float:
        """Time on the pixels, all sub-frames; flyback not included."""
        pixels = 1 if self.at_once else self.shape_px[0] * self.shape_px[1]
        return subframe_count * pixels * self.dwell_time_us * 1e-6

    def duration_s(self, subframe_count: int = 1) -> float:
        """Beam-on plus flyback time of all sub-frames."""
        lines = 0 if self.at_once else self.shape_px[0]
        return self.beam_on_s(subframe_count) + subframe_count * lines * self.flyback_time_us * 1e-6
