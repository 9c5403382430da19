"""Optics whose numbers are torch tensors, so that what is computed from them has derivatives.

The neighbour `differentiable` makes images of them; `instruments.Optics` are the same words as plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi, radians

import torch

from instruments.optics import Aberrations, Coherence, Optics
from simulation.aberrations import TERMS, powers
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter

Number = torch.Tensor | float
"""A tensor of one element, or a plain number."""

_ANGSTROM_PER_NM = 10.0
_POLAR = frozenset(Aberrations.model_fields)
_CARTESIAN = frozenset(
    f"c{order}{symmetry}{part}_nm" for order, symmetry in TERMS if symmetry for part in ("a", "b")
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LensTensors:
    """What a probe depends on; tensors that require gradients get them.

    `aberrations`: polar names as in `Aberrations` (`c12_nm`, `phi12_deg`) or pairs `c12a_nm`, `c12b_nm` with
    C cos(m (phi - phi_nm)) = Ca cos(m phi) + Cb sin(m phi), which have no singular point at 0. Names left out are 0;
    both kinds of one term add up. Beam energy and aperture are plain numbers.
    """

    beam_energy_ev: float
    semi_convergence_angle_mrad: float
    defocus_nm: Number = 0.0
    aberrations: Mapping[str, Number] = field(default_factory=dict[str, Number])
    tilt_x_mrad: Number = 0.0
    tilt_y_mrad: Number = 0.0
    source_size_nm: Number = 0.0
    focal_spread_nm: Number = 0.0

    def __post_init__(self) -> None:
        """Refuse names that mean nothing."""
        unknown = sorted(set(self.aberrations) - _POLAR - _CARTESIAN)
        if unknown:
            raise InvalidParameter(
                f"unknown aberrations {', '.join(unknown)}; give polar names such as c12_nm and phi12_deg,"
                " or pairs such as c12a_nm and c12b_nm, up to c56"
            )

    @classmethod
    def of(cls, optics: Optics, coherence: Coherence | None = None) -> LensTensors:
        """The same as plain numbers; replace those to be varied (`dataclasses.replace`)."""
        seen = coherence or Coherence()
        return cls(
            beam_energy_ev=optics.beam_energy_ev,
            semi_convergence_angle_mrad=optics.semi_convergence_angle_mrad,
            defocus_nm=optics.defocus_nm,
            aberrations={name: value for name, value in optics.aberrations.model_dump().items() if value},
            tilt_x_mrad=optics.tilt_x_mrad,
            tilt_y_mrad=optics.tilt_y_mrad,
            source_size_nm=seen.source_size_nm,
            focal_spread_nm=seen.focal_spread_nm,
        )

    def optics(self) -> Optics:
        """The present numbers, without derivatives and without aberrations: for what depends on the aperture only."""
        return Optics(beam_energy_ev=self.beam_energy_ev, semi_convergence_angle_mrad=self.semi_convergence_angle_mrad)


def chi(lens: LensTensors, kx_per_angstrom: torch.Tensor, ky_per_angstrom: torch.Tensor) -> torch.Tensor:
    """Aberration phase in radians as `aberrations.chi`, with derivatives; float64 in and out."""
    wavelength = wavelength_angstrom(lens.beam_energy_ev)
    x, y = kx_per_angstrom * wavelength, ky_per_angstrom * wavelength
    alpha2 = x * x + y * y
    total = -0.5 * lens.defocus_nm * alpha2
    for order, symmetry in TERMS:
        along, across = _pair_nm(lens.aberrations, order, symmetry)
        if isinstance(along, float) and isinstance(across, float) and along == across == 0:
            continue
        real, imaginary = powers(x, y, symmetry)
        radial = alpha2 ** ((order + 1 - symmetry) // 2) / (order + 1)
        total = total + (along * real + across * imaginary) * radial
    return 2 * pi / wavelength * _ANGSTROM_PER_NM * total


def _pair_nm(aberrations: Mapping[str, Number], order: int, symmetry: int) -> tuple[Number, Number]:
    """Coefficients of cos(m phi) and sin(m phi)."""
    name = f"c{order}{symmetry}"
    magnitude = aberrations.get(f"{name}_nm", 0.0)
    if not symmetry:
        return magnitude, 0.0
    along, across = aberrations.get(f"{name}a_nm", 0.0), aberrations.get(f"{name}b_nm", 0.0)
    if isinstance(magnitude, float | int) and magnitude == 0:
        return along, across
    azimuth = aberrations.get(f"phi{order}{symmetry}_deg", 0.0)
    turn = torch.as_tensor(azimuth, dtype=torch.float64) * (symmetry * radians(1.0))
    return along + magnitude * torch.cos(turn), across + magnitude * torch.sin(turn)
