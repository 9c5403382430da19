"""How readily the beam removes an atom: elastic displacement (textbook), excitation-assisted loss (assumed)."""

from __future__ import annotations

from math import exp, inf, log, pi, sqrt

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from simulation.argument_kinds import kinds_checked
from simulation.electron import REST_ENERGY_EV, check_beam_energy
from simulation.errors import InvalidParameter
from simulation.world.config import SimulatedConfig
from simulation.world.randomness import Purpose, generator

ANGSTROM2_PER_BARN = 1e-8
_BARN_PER_BOHR2 = 0.529177210903**2 / ANGSTROM2_PER_BARN
_RYDBERG_EV = 13.605693122994
_FINE_STRUCTURE = 1 / 137.035999084
_DALTON_EV = 931.49410242e6
_LIGHT_M_PER_S = 299_792_458.0
_BOLTZMANN_EV_PER_K = 8.617333262e-5
_DEBYE_K = {"S": 580.0, "Se": 220.0}
_ROOM_K = 300.0
_CUT_STD = 6.0  # the Gaussian of velocities ends here, so what is impossible is exactly zero


@kinds_checked
def max_transfer_ev(symbol: str, beam_energy_ev: float, velocity_m_per_s: float = 0.0) -> float:
    """Highest energy of a nucleus after a head-on collision, (2p + M v)^2 / 2M, v its velocity along the beam before.

    For v = 0: 2 E (E + 2 m c^2) / (M c^2).

    >>> [round(max_transfer_ev("Se", energy_ev), 2) for energy_ev in (60e3, 80e3, 100e3)]
    [1.77, 2.4, 3.05]
    """
    mass_ev = _mass_ev(symbol)
    check_beam_energy(beam_energy_ev)
    momentum_ev = sqrt(beam_energy_ev * (beam_energy_ev + 2 * REST_ENERGY_EV))
    return (2 * momentum_ev + mass_ev * velocity_m_per_s / _LIGHT_M_PER_S) ** 2 / (2 * mass_ev)


@kinds_checked
def displacement_barn(symbol: str, beam_energy_ev: float, threshold_ev: float, velocity_m_per_s: float = 0.0) -> float:
    """McKinley-Feshbach cross-section for giving an atom more than `threshold_ev`; 0 where that is impossible.

    sigma = 4 pi a0^2 (Z Ry / m c^2)^2 (T/Td) (1 - b^2) / b^4 {1 + 2 pi a b sqrt(Td/T) - (Td/T) [1 + 2 pi a b
    + (b^2 + pi a b) ln(T/Td)]}, a = Z / 137, b = v/c, T the highest transfer
    (McKinley and Feshbach, Phys. Rev. 74 (1948) 1759; Zobelli et al., Phys. Rev. B 75 (2007) 245402).
    """
    if not 0 < threshold_ev < inf:
        raise InvalidParameter(f"threshold_ev = {threshold_ev} of {symbol} must be positive and finite, in eV")
    transfer_ev = max_transfer_ev(symbol, beam_energy_ev, velocity_m_per_s)
    if transfer_ev <= threshold_ev:
        return 0.0
    number = atomic_numbers[symbol]
    gamma = 1 + beam_energy_ev / REST_ENERGY_EV
    beta2 = 1 - 1 / gamma**2
    coupling = pi * number * _FINE_STRUCTURE * sqrt(beta2)
    ratio = threshold_ev / transfer_ev
    rutherford = 4 * pi * _BARN_PER_BOHR2 * (number * _RYDBERG_EV / REST_ENERGY_EV) ** 2 * (1 - beta2) / beta2**2
    bracket = 1 + 2 * coupling * sqrt(ratio) - ratio * (1 + 2 * coupling + (beta2 + coupling) * log(1 / ratio))
    return rutherford / ratio * max(bracket, 0.0)


@kinds_checked
def rms_velocity_m_per_s(symbol: str, debye_temperature_k: float | None = None) -> float:
    """Thermal velocity along one axis in the Debye model at 300 K, zero-point motion included.

    <v^2> = U / (3 M), U = 9/8 k theta + 3 k T D(theta/T).
    Debye temperatures where none is given: S 580 K, Se 220 K, others 400 K (assumptions).
    """
    theta = _DEBYE_K.get(symbol, 400.0) if debye_temperature_k is None else debye_temperature_k
    if not 0 < theta < inf:
        raise InvalidParameter(f"debye_temperature_k = {theta} must be positive and finite")
    x = np.linspace(1e-6, theta / _ROOM_K, 2001)
    debye = 3 / x[-1] ** 3 * float(np.trapezoid(x**3 / np.expm1(x), x))
    energy_ev = _BOLTZMANN_EV_PER_K * (9 / 8 * theta + 3 * _ROOM_K * debye)
    mass_ev = _mass_ev(symbol)
    return sqrt(energy_ev / (3 * mass_ev)) * _LIGHT_M_PER_S


@kinds_checked
def thermal_displacement_barn(
    symbol: str, beam_energy_ev: float, threshold_ev: float, *, debye_temperature_k: float | None = None
) -> float:
    """Displacement cross-section averaged over thermal velocities (Meyer et al., Phys. Rev. Lett. 108, 196102).

    The Debye temperature is that of motion along the beam; `rms_velocity_m_per_s` says what is assumed without one.
    The Gaussian of velocities is cut at 6 standard deviations: Se at 60 kV is exactly zero.
    """
    units = np.linspace(-_CUT_STD, _CUT_STD, 1201)
    weights = np.exp(-(units**2) / 2)
    std = rms_velocity_m_per_s(symbol, debye_temperature_k)
    values = [displacement_barn(symbol, beam_energy_ev, threshold_ev, float(unit * std)) for unit in units]
    return float(np.average(values, weights=weights))


def _mass_ev(symbol: str) -> float:
    if symbol not in atomic_numbers:
        raise InvalidParameter(f"unknown element {symbol!r}; give a chemical symbol such as 'S'")
    return float(atomic_masses[atomic_numbers[symbol]]) * _DALTON_EV


def excitation_barn(config: SimulatedConfig, beam_energy_ev: float) -> float:
    """Assumed cross-section of excitation-assisted loss: log-linear in energy through the values at 60 and 80 kV."""
    low, high = config.excitation_60kv_barn, config.excitation_80kv_barn
    if low == 0 or high == 0:
        return low if beam_energy_ev < 70e3 else high
    return low * exp(log(high / low) * (beam_energy_ev - 60e3) / 20e3)


def hidden_factor(config: SimulatedConfig) -> float:
    """This world's factor on the excitation cross-section; `excitation_lognormal_factor` is one standard deviation."""
    draw = generator(config.hidden_seed, Purpose.CROSS_SECTION).standard_normal()
    return float(config.excitation_lognormal_factor**draw)


def loss_barn(config: SimulatedConfig, symbol: str) -> float:
    """Effective cross-section of this world for losing one atom of that element; 0 for elements without a threshold."""
    threshold_ev = config.displacement_thresholds_ev.get(symbol)
    if threshold_ev is None:
        return 0.0
    elastic = thermal_displacement_barn(symbol, config.beam_energy_ev, threshold_ev)
    return elastic + excitation_barn(config, config.beam_energy_ev) * hidden_factor(config)
