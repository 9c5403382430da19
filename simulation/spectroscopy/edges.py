"""Ionisation edges of elements: where they begin and how strong they are; `core_loss` turns them into spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import kinds_checked
from simulation.errors import InvalidParameter
from simulation.spectroscopy import hydrogenic
from simulation.spectroscopy.kinematics import RYDBERG_EV

SHELLS = ("K", "L23", "L")
"""K; 2p alone; 2p and, from the L1 edge on, 2s."""

# Binding energies in eV, X-Ray Data Booklet (LBNL, 2009), table 1-1.
_K_FROM_LITHIUM_EV = (
    54.7, 111.5, 188.0, 284.2, 409.9, 543.1, 696.7, 870.2, 1070.8, 1303.0, 1559.6, 1839.0, 2145.5, 2472.0, 2822.4,
    3205.9, 3608.4, 4038.5, 4492.0, 4966.0, 5465.0, 5989.0, 6539.0, 7112.0, 7709.0, 8333.0, 8979.0, 9659.0, 10367.0,
    11103.0, 11867.0, 12658.0, 13474.0, 14326.0, 15200.0, 16105.0, 17038.0, 17998.0, 18986.0, 20000.0,
)  # fmt: skip
_L3_FROM_ALUMINIUM_EV = (
    72.5, 99.4, 135.0, 162.5, 200.0, 248.4, 294.6, 346.2, 398.7, 453.8, 512.1, 574.1, 638.7, 706.8, 778.1, 852.7,
    932.7, 1021.8, 1116.4, 1217.0, 1323.6, 1433.9, 1550.0, 1678.4,
)  # fmt: skip
_L1_FROM_ALUMINIUM_EV = (
    117.8, 149.7, 189.0, 230.9, 270.0, 326.3, 378.6, 438.4, 498.0, 560.9, 626.7, 696.0, 769.1, 844.6, 925.1, 1008.6,
    1096.7, 1196.2, 1299.0, 1414.6, 1527.0, 1652.0, 1782.0, 1921.0,
)  # fmt: skip
# Egerton's empirical exponent u of the L shell, from aluminium: the strength is multiplied by
# ((E - E_L3 + 0.1) / (1.8 Z^2))^u, which fits hydrogenic edges to X-ray absorption (Egerton, 3rd ed., App. B, SIGMAL).
_L_EXPONENT = (
    0.52, 0.42, 0.30, 0.29, 0.22, 0.30, 0.22, 0.16, 0.12, 0.13, 0.13, 0.14, 0.16, 0.18, 0.19, 0.22, 0.14, 0.11, 0.12,
    0.12, 0.12, 0.10, 0.10, 0.10,
)  # fmt: skip
_FIRST_K, _FIRST_L = 3, 13


@dataclass(frozen=True, slots=True)
class Edge:
    """An ionisation edge; make one with `edge`."""

    element: str
    shell: str
    onset_ev: float
    second_onset_ev: float | None = None
    """L1 for the whole L shell."""

    @property
    def atomic_number(self) -> int:
        """Protons in the nucleus."""
        return atomic_numbers[self.element]

    @property
    def effective_charge(self) -> float:
        """Nuclear charge seen by the shell: Z - 0.5 for K, Z - 4.15 for L (Slater; Egerton, section 3.6.1)."""
        return self.atomic_number - (0.5 if self.shell == "K" else 4.15)

    def oscillator_strength_per_ev(self, loss_ev: ArrayLike, squared_momentum_bohr: ArrayLike) -> NDArray[np.float64]:
        """df/dE for the filled shell at momentum transfer (q a0)^2; 0 below the edge. Arrays broadcast.

        Hydrogenic with a screened charge. Beside tabulated photoabsorption (Chantler, J. Phys. Chem. Ref. Data 24
        (1995) 71 and 29 (2000) 597): K of C and O 10 to 15 % above the table just beyond the edge and 10 % below at
        3.5 times its energy, Si to Cu within 6 %; L within 20 % beyond the first tens of eV, which are off by up to
        40 %. White lines and near-edge structure are not in it.
        """
        loss, momentum = np.broadcast_arrays(np.asarray(loss_ev, np.float64), np.asarray(squared_momentum_bohr, float))
        scale = self.effective_charge**2
        w = np.maximum(loss, self.onset_ev) / (scale * RYDBERG_EV)
        q = momentum / scale
        if self.shell == "K":
            strength = hydrogenic.k_shell(w, q)
        else:
            strength = hydrogenic.p_shell(w, q)
            if self.second_onset_ev is not None:
                strength = np.where(loss >= self.second_onset_ev, hydrogenic.l_shell(w, q), strength)
            strength = strength * self._rise(loss)
        return np.where(loss >= self.onset_ev, strength / (scale * RYDBERG_EV), 0.0)

    def _rise(self, loss_ev: NDArray[np.float64]) -> NDArray[np.float64]:
        above = np.maximum(loss_ev - self.onset_ev, 0.0)
        factor = ((above + 0.1) / (1.8 * self.atomic_number**2)) ** _L_EXPONENT[self.atomic_number - _FIRST_L]
        has_white_lines = 18 <= self.atomic_number <= 28
        return np.where((above <= 20) & has_white_lines, 1.0, factor)


@kinds_checked
def edge(element: str, shell: str) -> Edge:
    """The edge of an element: K from Li to Mo, L23 and L from Al to Kr.

    >>> edge("C", "K").onset_ev
    284.2
    """
    if shell not in SHELLS:
        raise InvalidParameter(f"unknown shell {shell!r}; choose one of {', '.join(SHELLS)}")
    if element not in atomic_numbers:
        raise InvalidParameter(f"unknown element {element!r}; give a chemical symbol such as 'C'")
    first, energies = (_FIRST_K, _K_FROM_LITHIUM_EV) if shell == "K" else (_FIRST_L, _L3_FROM_ALUMINIUM_EV)
    place = atomic_numbers[element] - first
    if not 0 <= place < len(energies):
        reach = "Li to Mo" if shell == "K" else "Al to Kr"
        raise InvalidParameter(f"no {shell} edge of {element} is known here; {shell} edges reach from {reach}")
    second = _L1_FROM_ALUMINIUM_EV[place] if shell == "L" else None
    return Edge(element, shell, energies[place], second)
