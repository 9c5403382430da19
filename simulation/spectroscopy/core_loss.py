"""Core-loss cross-sections in energy and angle; `background` and `plural` add what surrounds an edge."""

from __future__ import annotations

from itertools import pairwise
from math import log, pi, sin

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.argument_kinds import kinds_checked
from simulation.errors import InvalidParameter
from simulation.spectroscopy.edges import Edge
from simulation.spectroscopy.kinematics import (
    BARN_PER_NM2,
    BOHR_NM,
    RYDBERG_EV,
    half_mass_speed2_ev,
    lorentz_factor,
    squared_speed,
)

_MOMENTUM_NODES = 48
_ENERGY_NODES = 96


@kinds_checked
def cross_section_barn_per_ev(
    edge: Edge,
    loss_ev: ArrayLike,
    beam_energy_ev: float,
    collection_semi_angle_mrad: float,
    *,
    semi_convergence_angle_mrad: float = 0.0,
) -> NDArray[np.float64]:
    """d sigma / dE of one atom into a collection angle on the axis of the beam, same shape as the losses.

    4 pi a0^2 Ry^2 / (E T) * integral of df/dE over ln (q a0)^2, with T = m v^2 / 2 and
    (q a0)^2 from E^2 / (4 Ry T) + E^3 / (8 gamma^3 Ry T^2), plus 4 gamma^2 (T / Ry) sin^2(angle / 2)
    (Egerton, EELS in the Electron Microscope, 3rd ed., section 3.6.1 and App. B). First Born approximation:
    beam energies well above the edge. Of a convergent beam each angle of scattering counts by the share of the evenly
    filled disc that it leaves in the aperture, the overlap of two discs (after Scheinfein and Isaacson, SEM 1984/IV,
    1681); exact for sums over probe positions, near it for delocalised losses.
    """
    if not 0 < collection_semi_angle_mrad <= 1e3 * pi:
        raise InvalidParameter(
            f"collection_semi_angle_mrad = {collection_semi_angle_mrad} must lie between 0 and {1e3 * pi:.0f} mrad"
        )
    if not 0 <= semi_convergence_angle_mrad <= 1e3 * pi:
        raise InvalidParameter(f"semi_convergence_angle_mrad = {semi_convergence_angle_mrad} must be 0 mrad or more")
    loss = np.asarray(loss_ev, dtype=np.float64)
    _check_losses(loss, beam_energy_ev)
    at = np.maximum(loss, edge.onset_ev)
    energy_ev, gamma = half_mass_speed2_ev(beam_energy_ev), lorentz_factor(beam_energy_ev)
    lowest = at**2 / (4 * RYDBERG_EV * energy_ev) + at**3 / (8 * gamma**3 * RYDBERG_EV * energy_ev**2)
    per_squared_sine = 4 * gamma**2 * energy_ev / RYDBERG_EV
    widest_mrad = min(collection_semi_angle_mrad + semi_convergence_angle_mrad, 1e3 * pi)
    added = per_squared_sine * sin(widest_mrad * 5e-4) ** 2
    nodes, weights = np.polynomial.legendre.leggauss(_MOMENTUM_NODES)
    span = np.log((lowest + added) / lowest)
    momenta = lowest[..., None] * np.exp(span[..., None] * (nodes + 1) / 2)
    strengths = edge.oscillator_strength_per_ev(loss[..., None], momenta)
    if semi_convergence_angle_mrad > 0:
        squared_sine = np.clip((momenta - lowest[..., None]) / per_squared_sine, 0, 1)
        angles_mrad = 2e3 * np.arcsin(np.sqrt(squared_sine))
        strengths = strengths * _collected_share(angles_mrad, semi_convergence_angle_mrad, collection_semi_angle_mrad)
    integral = np.sum(strengths * weights, axis=-1) * span / 2
    return 4 * pi * BOHR_NM**2 * BARN_PER_NM2 * RYDBERG_EV**2 / (at * energy_ev) * integral


@kinds_checked
def cross_section_barn(
    edge: Edge,
    beam_energy_ev: float,
    collection_semi_angle_mrad: float,
    window_ev: float,
    *,
    semi_convergence_angle_mrad: float = 0.0,
) -> float:
    """Partial cross-section sigma(angle, window) of one atom, from the edge over an energy window.

    K over 50 eV or more within 10 % of tabulated subshells, L2,3 over 100 eV within 20 %; less good over less.
    """
    if not window_ev > 0:
        raise InvalidParameter(f"window_ev = {window_ev} must be positive, in eV")
    losses, weights = _losses(edge, edge.onset_ev + window_ev)
    per_ev = cross_section_barn_per_ev(
        edge,
        losses,
        beam_energy_ev,
        collection_semi_angle_mrad,
        semi_convergence_angle_mrad=semi_convergence_angle_mrad,
    )
    return float(np.sum(weights * per_ev))


@kinds_checked
def ionisation_barn(edge: Edge, beam_energy_ev: float) -> float:
    """Total ionisation cross-section of one atom: all angles, all losses up to half the beam energy.

    The longitudinal part is `cross_section_barn` over everything; the transverse one is that of dipole transitions,
    4 pi a0^2 Ry^2 / T * [-ln(1 - b^2) - b^2] * integral of df/dE / E (Fano, Phys. Rev. 102 (1956) 385). First Born
    approximation without exchange: not to be trusted below about four times the edge energy.
    """
    beta2, highest = squared_speed(beam_energy_ev), beam_energy_ev / 2
    if highest <= edge.onset_ev:
        raise InvalidParameter(
            f"a beam of {beam_energy_ev:g} eV is below twice the {edge.element} {edge.shell} edge, {edge.onset_ev:g} eV"
        )
    losses, weights = _losses(edge, highest)
    along = np.sum(weights * cross_section_barn_per_ev(edge, losses, beam_energy_ev, 1e3 * pi))
    energy_ev = half_mass_speed2_ev(beam_energy_ev)
    dipole = np.sum(weights * edge.oscillator_strength_per_ev(losses, 1e-6) / losses)
    across = 4 * pi * BOHR_NM**2 * BARN_PER_NM2 * RYDBERG_EV**2 / energy_ev * (-log(1 - beta2) - beta2) * dipole
    return float(along + across)


def _collected_share(
    angles_mrad: NDArray[np.float64], convergence_mrad: float, collection_mrad: float
) -> NDArray[np.float64]:
    """Share of a disc of directions that is inside another one after being moved by each angle."""
    small, large = sorted((convergence_mrad, collection_mrad))
    apart = np.clip(angles_mrad, large - small + 1e-9, large + small)
    from_small = np.clip((apart**2 + small**2 - large**2) / (2 * apart * small), -1, 1)
    from_large = np.clip((apart**2 + large**2 - small**2) / (2 * apart * large), -1, 1)
    kite = (small + large - apart) * (apart + small - large) * (apart - small + large) * (apart + small + large)
    area = small**2 * np.arccos(from_small) + large**2 * np.arccos(from_large) - np.sqrt(np.maximum(kite, 0)) / 2
    return np.where(angles_mrad <= large - small, pi * small**2, area) / (pi * convergence_mrad**2)


def _losses(edge: Edge, highest_ev: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights in eV from the edge up, even in the logarithm; a second onset begins a new piece."""
    limits = [edge.onset_ev, highest_ev]
    if edge.shell != "K":
        limits.append(edge.onset_ev + 20)  # the empirical rise of L edges has its corner here
    if edge.second_onset_ev is not None:
        limits.append(edge.second_onset_ev)
    limits = sorted(limit for limit in limits if limit <= highest_ev)
    nodes, weights = np.polynomial.legendre.leggauss(_ENERGY_NODES // 2)
    losses, shares = [], []
    for low, high in pairwise(limits):
        span = log(high / low)
        own = low * np.exp(span * (nodes + 1) / 2)
        losses.append(own)
        shares.append(own * weights * span / 2)
    return np.concatenate(losses), np.concatenate(shares)


def _check_losses(loss_ev: NDArray[np.float64], beam_energy_ev: float) -> None:
    if loss_ev.size and not float(loss_ev.max()) < beam_energy_ev:
        raise InvalidParameter(
            f"a loss of {float(loss_ev.max()):g} eV is not below the beam energy {beam_energy_ev:g} eV"
        )
