"""What is commanded of the optics, and what the instrument is (coherence); scans are in `scans`."""

from __future__ import annotations

from math import atan2, cos, degrees, hypot, radians, sin

from pydantic import Field

from instruments.models import Record


class Aberrations(Record):
    """Polar aberration coefficients: magnitude in nm, azimuth in degrees from +x towards +y.

    chi = 2 pi / lambda * sum 1/(n+1) * alpha^(n+1) * C_nm * cos(m (phi - phi_nm)); defocus is not here,
    it is `Optics.defocus_nm = -C10`.
    """

    c12_nm: float = 0.0
    phi12_deg: float = 0.0
    c21_nm: float = 0.0
    phi21_deg: float = 0.0
    c23_nm: float = 0.0
    phi23_deg: float = 0.0
    c30_nm: float = 0.0
    c32_nm: float = 0.0
    phi32_deg: float = 0.0
    c34_nm: float = 0.0
    phi34_deg: float = 0.0
    c41_nm: float = 0.0
    phi41_deg: float = 0.0
    c43_nm: float = 0.0
    phi43_deg: float = 0.0
    c45_nm: float = 0.0
    phi45_deg: float = 0.0
    c50_nm: float = 0.0
    c52_nm: float = 0.0
    phi52_deg: float = 0.0
    c54_nm: float = 0.0
    phi54_deg: float = 0.0
    c56_nm: float = 0.0
    phi56_deg: float = 0.0

    def plus(self, other: Aberrations) -> Aberrations:
        """The sum of two sets, each term added as a vector of angle m * phi."""
        terms: dict[str, float] = {}
        for name in type(self).model_fields:
            if not name.startswith("c"):
                continue
            order, symmetry = int(name[1]), int(name[2])
            if symmetry == 0:
                terms[name] = getattr(self, name) + getattr(other, name)
                continue
            azimuth = f"phi{order}{symmetry}_deg"
            x = y = 0.0
            for part in (self, other):
                angle = symmetry * radians(getattr(part, azimuth))
                x += getattr(part, name) * cos(angle)
                y += getattr(part, name) * sin(angle)
            terms[name] = hypot(x, y)
            terms[azimuth] = degrees(atan2(y, x)) / symmetry if terms[name] else 0.0
        return Aberrations(**terms)


class Coherence(Record):
    """What the gun is: source size at the specimen (FWHM) and focal spread (standard deviation)."""

    source_size_nm: float = Field(default=0.0, ge=0)
    focal_spread_nm: float = Field(default=0.0, ge=0)


class Optics(Record):
    """Commanded optics. `defocus_nm > 0` is underfocus (C10 = -defocus)."""

    beam_energy_ev: float = Field(gt=0, le=5e6)
    semi_convergence_angle_mrad: float = Field(ge=0, le=200)
    probe_current_pa: float = Field(default=0.0, ge=0, le=1e6)
    defocus_nm: float = 0.0
    aberrations: Aberrations = Aberrations()
    tilt_x_mrad: float = 0.0
    tilt_y_mrad: float = 0.0
    camera_length_mm: float | None = Field(default=None, gt=0)
