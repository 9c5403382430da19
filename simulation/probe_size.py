"""Whether the probe has room: in its cell, which is periodic, and in the window that PRISM cuts around it."""

from __future__ import annotations

import warnings

import numpy as np

from instruments.optics import Optics
from simulation.electron import wavelength_angstrom
from simulation.errors import InvalidParameter, ProbeOutgrowsCell
from simulation.ronchigram import shadow_nm

_AIRY = 1.22
_RING_COUNT, _AZIMUTH_COUNT = 12, 48


def probe_width_nm(optics: Optics, depth_nm: float) -> float:
    """Diameter of the probe in vacuum, at the entrance or at a depth, whichever is larger.

    Of the patch that the aperture's rays meet, or of the Airy disc (first zero) if that is larger.
    """
    if optics.semi_convergence_angle_mrad == 0:
        return 0.0
    azimuth = np.linspace(0, 2 * np.pi, _AZIMUTH_COUNT, endpoint=False)
    polar = np.linspace(0, optics.semi_convergence_angle_mrad, _RING_COUNT)[:, None]
    width = _AIRY * wavelength_angstrom(optics.beam_energy_ev) / (optics.semi_convergence_angle_mrad * 1e-3) / 10
    for depth in (0.0, depth_nm):
        there = optics.model_copy(update={"defocus_nm": optics.defocus_nm - depth})
        y, x = shadow_nm(there, polar * np.sin(azimuth), polar * np.cos(azimuth))
        width = max(width, 2 * float(np.hypot(y, x).max()))
    return width


def check_room(optics: Optics, cell_angstrom: tuple[float, float, float], interpolation: int) -> None:
    """Warn of a probe wider than its cell; refuse one wider than PRISM's window."""
    width_nm = probe_width_nm(optics, cell_angstrom[2] / 10)
    side_nm = min(cell_angstrom[:2]) / 10
    if interpolation > 1 and width_nm > side_nm / interpolation:
        raise InvalidParameter(
            f"the probe is {width_nm:.2f} nm wide, more than the window of {side_nm / interpolation:.2f} nm that PRISM"
            f" cuts with interpolation {interpolation}; use a smaller interpolation, a larger cell or less defocus"
        )
    if width_nm > side_nm:
        warnings.warn(
            f"the probe is {width_nm:.2f} nm wide, more than the cell of {side_nm:.2f} nm: it meets itself round the"
            f" edge; repeat the cell at least {int(np.ceil(width_nm / side_nm))} times, or use less defocus",
            ProbeOutgrowsCell,
            stacklevel=4,
        )
