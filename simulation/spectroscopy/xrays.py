"""X-rays that follow an ionisation: how many leave, and how many are counted."""

from __future__ import annotations

from math import cos, exp, inf, log, pi, radians

import numpy as np
from ase.data import atomic_numbers

from simulation.argument_kinds import kinds_checked
from simulation.electron import REST_ENERGY_EV
from simulation.errors import InvalidParameter
from simulation.spectroscopy.core_loss import ionisation_barn
from simulation.spectroscopy.edges import SHELLS, Edge
from simulation.spectroscopy.kinematics import BARN_PER_NM2, BOHR_NM, RYDBERG_EV

_K_YIELD = (0.0370, 0.03112, 5.44e-5, -1.25e-6)
_L_YIELD = (0.17765, 0.00298937, 8.91297e-5, -2.67184e-7)


@kinds_checked
def fluorescence_yield(element: str, shell: str) -> float:
    """Share of vacancies that end in an X-ray: K (Z from 5, about 3 % at Z > 15) or the mean of L (about 10 %).

    (w / (1 - w))^(1/4) = sum c_n Z^n: K after Bambynek (1984), L after Cohen, Nucl. Instrum. Meth. B22 (1987) 55, both
    as in Hubbell et al., J. Phys. Chem. Ref. Data 23 (1994) 339. For light elements errors reach tens of percent.

    >>> round(fluorescence_yield("Cu", "K"), 2)
    0.45
    """
    if shell not in SHELLS:
        raise InvalidParameter(f"unknown shell {shell!r}; yields are known of {', '.join(SHELLS)}")
    if element not in atomic_numbers or atomic_numbers[element] < 5:
        raise InvalidParameter(f"no fluorescence yield is known for {element!r}; elements from B on")
    coefficients = _K_YIELD if shell == "K" else _L_YIELD
    odds = sum(c * atomic_numbers[element] ** power for power, c in enumerate(coefficients)) ** 4
    return odds / (1 + odds)


@kinds_checked
def casnati_k_barn(element: str, onset_ev: float, beam_energy_ev: float) -> float:
    """K-shell ionisation cross-section, an empirical formula for 1 < U <= 20, carbon to gold, good to about 10 %.

    2 psi phi F a0^2 (Ry / I)^2 ln(U) / U with U = E / I, psi = (I / Ry)^d, d = -0.0318 + 0.3160 / U - 0.1135 / U^2,
    phi = 10.57 exp(-1.736 / U + 0.317 / U^2) and Gryzinski's relativistic factor F (Casnati, Tartari, Baraldi,
    J. Phys. B 15 (1982) 155).
    """
    if element not in atomic_numbers or not onset_ev > 0:
        raise InvalidParameter(f"element {element!r} must be a chemical symbol, onset_ev = {onset_ev} positive")
    ratio = beam_energy_ev / onset_ev
    if not 1 < ratio <= 20 or not 6 <= atomic_numbers[element] <= 79:
        raise InvalidParameter(
            f"{beam_energy_ev:g} eV is {ratio:.3g} times the K edge of {element}; the formula holds for 1 to 20 times,"
            " carbon to gold; use ionisation_barn beyond"
        )
    i, t = onset_ev / REST_ENERGY_EV, beam_energy_ev / REST_ENERGY_EV
    inner = (i + t) * (2 + t) * (1 + i) ** 2 / (t * (2 + t) * (1 + i) ** 2 + i * (2 + i))
    relativistic = (2 + i) / (2 + t) * ((1 + t) / (1 + i)) ** 2 * inner**1.5
    psi = (onset_ev / RYDBERG_EV) ** (-0.0318 + 0.3160 / ratio - 0.1135 / ratio**2)
    phi = 10.57 * exp(-1.736 / ratio + 0.317 / ratio**2)
    area = 2 * BOHR_NM**2 * BARN_PER_NM2 * (RYDBERG_EV / onset_ev) ** 2
    return area * psi * phi * relativistic * log(ratio) / ratio


@kinds_checked
def solid_angle_sr(half_opening_deg: float) -> float:
    """Solid angle of a round detector whose edge is seen that far from its axis: 2 pi (1 - cos)."""
    if not 0 < half_opening_deg <= 180:
        raise InvalidParameter(f"half_opening_deg = {half_opening_deg} must lie between 0 and 180 degrees")
    return 2 * pi * (1 - cos(radians(half_opening_deg)))


@kinds_checked
def counted_xrays(
    edge: Edge,
    beam_energy_ev: float,
    *,
    electrons: float,
    atoms_per_nm2: float,
    solid_angle_sr: float,
    detector_efficiency: float = 1.0,
) -> float:
    """Mean number of counted X-rays of a whole series (K alpha and beta together, or all L lines).

    electrons * atoms per area * cross-section * yield * solid angle / 4 pi * efficiency. Absorption in the specimen
    and secondary fluorescence are left out: thin specimens, lines above 1 keV. Vacancies that move to the shell from
    above are left out too. `atoms_per_nm2` may come from `channelling.atoms_seen_per_nm2`.
    """
    if not (0 <= electrons < inf and 0 <= atoms_per_nm2 < inf):
        raise InvalidParameter(f"electrons = {electrons} and atoms_per_nm2 = {atoms_per_nm2} must be finite, 0 or more")
    if not (0 < solid_angle_sr <= 4 * pi and 0 <= detector_efficiency <= 1):
        raise InvalidParameter(
            f"solid_angle_sr = {solid_angle_sr} must lie in 0 to {4 * pi:.2f} sr, detector_efficiency ="
            f" {detector_efficiency} in 0 to 1"
        )
    events = electrons * atoms_per_nm2 * ionisation_barn(edge, beam_energy_ev) / BARN_PER_NM2
    share = solid_angle_sr / (4 * np.pi) * detector_efficiency
    return float(events * fluorescence_yield(edge.element, edge.shell) * share)
