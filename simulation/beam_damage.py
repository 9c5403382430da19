"""What the beam does to a specimen besides imaging it: knock-on with excitations, radiolysis, contamination.

Displacement by elastic collisions alone is in `simulation.world.cross_sections` (`displacement_barn`,
`thermal_displacement_barn`); the functions here need the specimen's constants and say which.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, expm1, factorial, inf, log, log1p, pi

from simulation.argument_kinds import kinds_checked
from simulation.electron import REST_ENERGY_EV, check_beam_energy
from simulation.errors import InvalidParameter
from simulation.world.cross_sections import thermal_displacement_barn

_BOHR_NM = 0.0529177210544
_RYDBERG_EV = 13.605693122990
_BARN_PER_NM2 = 1e10
_ELECTRON_RADIUS_NM = 2.8179403205e-6
_LEAST_OVER_LOSS = 4.0


@kinds_checked
def excitation_barn(excitation_ev: float, oscillator_strength: float, beam_energy_ev: float) -> float:
    """Cross-section for exciting an electron by a dipole transition of that energy and strength.

    4 pi a0^2 Ry^2 / (T E) f {ln[2 m c^2 b^2 / (E (1 - b^2))] - b^2}, T = m v^2 / 2, b = v / c: Bethe's asymptotic
    formula (Inokuti, Rev. Mod. Phys. 43 (1971) 297) with the constant in its logarithm, which depends on the
    transition, set to Ry / E: 13 % too large for 2p of hydrogen. Its dependence on beam energy is better than that.
    """
    _positive(excitation_ev=excitation_ev, oscillator_strength=oscillator_strength, beam_energy_ev=beam_energy_ev)
    _well_above("excitation_ev", excitation_ev, beam_energy_ev)
    beta2 = _squared_speed(beam_energy_ev)
    size = 4 * pi * _BOHR_NM**2 * _BARN_PER_NM2 * _RYDBERG_EV**2 / (REST_ENERGY_EV * beta2 / 2 * excitation_ev)
    return size * oscillator_strength * (log(2 * REST_ENERGY_EV * beta2 / (excitation_ev * (1 - beta2))) - beta2)


@kinds_checked
def excitation_assisted_barn(
    symbol: str, beam_energy_ev: float, thresholds_ev: Sequence[float], mean_excitation_count: float
) -> float:
    """Cross-section for losing an atom whose bond may be excited by the same electron that hits it.

    sum over n of Poisson(n; mean) * thermal_displacement_barn(threshold n): `thresholds_ev` are for 0, 1, ...
    excitations, the last one for that many or more. A model of what is measured on MoS2 below the knock-on threshold
    (Kretschmer et al., Nano Lett. 20 (2020) 2865; Speckmann et al., Phys. Rev. B 107 (2023) 094112); the mean and
    the lowered thresholds are the specimen's constants, known for few. Scale the mean with `excitation_barn`.
    """
    if not thresholds_ev or not 0 <= mean_excitation_count < inf:
        raise InvalidParameter(
            f"thresholds_ev = {list(thresholds_ev)} must hold one or more, mean_excitation_count ="
            f" {mean_excitation_count} must not be negative"
        )
    shares = [
        exp(-mean_excitation_count) * mean_excitation_count**count / factorial(count)
        for count in range(len(thresholds_ev) - 1)
    ]
    shares.append(1 - sum(shares))
    barns = [thermal_displacement_barn(symbol, beam_energy_ev, threshold) for threshold in thresholds_ev]
    return sum(share * barn for share, barn in zip(shares, barns, strict=True))


@kinds_checked
def stopping_power_ev_per_nm(beam_energy_ev: float, electrons_per_nm3: float, mean_excitation_ev: float) -> float:
    """Mean energy that the beam leaves in each nm of depth (collisions; all electrons of the specimen count).

    2 pi r_e^2 m c^2 n / b^2 [2 ln(E / I) + ln(1 + t / 2) + (1 - b^2) (1 + t^2 / 8 - (2 t + 1) ln 2)], t = E / m c^2
    (Berger and Seltzer, ICRU Report 37 (1984); the density effect is left out: good to 1 % up to 300 keV).
    """
    _positive(beam_energy_ev=beam_energy_ev, electrons_per_nm3=electrons_per_nm3, mean_excitation_ev=mean_excitation_ev)
    _well_above("mean_excitation_ev", mean_excitation_ev, beam_energy_ev)
    t, beta2 = beam_energy_ev / REST_ENERGY_EV, _squared_speed(beam_energy_ev)
    bracket = 2 * log(beam_energy_ev / mean_excitation_ev) + log1p(t / 2)
    bracket += (1 - beta2) * (1 + t**2 / 8 - (2 * t + 1) * log(2))
    return 2 * pi * _ELECTRON_RADIUS_NM**2 * REST_ENERGY_EV * electrons_per_nm3 / beta2 * bracket


@kinds_checked
def critical_dose_e_per_a2(yield_per_100ev: float, stopping_power_ev_per_nm: float, sites_per_nm3: float) -> float:
    """Dose after which 1 / e of the sites are left, if each 100 eV left in the specimen break `yield_per_100ev`.

    1 / sigma with sigma = G / 100 eV * S / n, the radiation-chemical G value (Egerton, Li, Malac, Micron 35 (2004)
    399). G falls with temperature and in conductors is nearly 0.
    """
    _positive(
        yield_per_100ev=yield_per_100ev, stopping_power_ev_per_nm=stopping_power_ev_per_nm, sites_per_nm3=sites_per_nm3
    )
    per_e_nm2 = yield_per_100ev / 100 * stopping_power_ev_per_nm / sites_per_nm3
    return 1 / (per_e_nm2 * 100)


@kinds_checked
def dose_at_another_energy_e_per_a2(dose_e_per_a2: float, from_energy_ev: float, to_energy_ev: float) -> float:
    """A critical dose measured at one beam energy, at another: in proportion to (v / c)^2.

    Follows from the 1 / v^2 of energy loss, with the slow logarithm left out: a few percent from 60 to 300 keV.
    """
    _positive(dose_e_per_a2=dose_e_per_a2, from_energy_ev=from_energy_ev, to_energy_ev=to_energy_ev)
    return dose_e_per_a2 * _squared_speed(to_energy_ev) / _squared_speed(from_energy_ev)


@kinds_checked
def intact_fraction(dose_e_per_a2: float, critical_dose_e_per_a2: float) -> float:
    """Share of sites that radiolysis has left: exp(-dose / critical dose), each site broken by one event.

    >>> round(intact_fraction(10.0, 10.0), 3)
    0.368
    """
    _positive(critical_dose_e_per_a2=critical_dose_e_per_a2)
    _not_negative(dose_e_per_a2=dose_e_per_a2)
    return exp(-dose_e_per_a2 / critical_dose_e_per_a2)


@kinds_checked
def radiolysis_rate_per_s(dose_rate_e_per_a2_s: float, critical_dose_e_per_a2: float) -> float:
    """Share of the intact sites broken in a second, dose rate over critical dose; a rate that adds to others."""
    _positive(critical_dose_e_per_a2=critical_dose_e_per_a2)
    _not_negative(dose_rate_e_per_a2_s=dose_rate_e_per_a2_s)
    return dose_rate_e_per_a2_s / critical_dose_e_per_a2


@kinds_checked
def contamination_nm(
    exposure_s: float,
    *,
    flux_e_per_nm2_s: float,
    adsorbed_per_nm2: float,
    fixing_cross_section_nm2: float,
    supply_per_s: float,
    volume_nm3: float,
) -> float:
    """Thickness of carbon grown under the beam from hydrocarbons that adsorb and diffuse in.

    dN/dt = supply (N0 - N) - sigma J N, dh/dt = volume sigma J N from N = N0 (a fresh, loaded surface): the rate
    equation of Utke, Hoffmann, Melngailis, J. Vac. Sci. Technol. B 26 (2008) 1197, with adsorption and diffusion in one
    rate. Little flux: h = volume N0 sigma J t, in proportion to dose; much flux: volume N0 (1 + supply t), whatever the
    flux. Even illumination; a still probe grows ring or cone instead. One surface of the film.
    """
    rates = (exposure_s, flux_e_per_nm2_s, adsorbed_per_nm2, fixing_cross_section_nm2, supply_per_s, volume_nm3)
    if not all(0 <= rate < inf for rate in rates):
        raise InvalidParameter(f"times, fluxes, densities and rates {rates} must be finite and not negative")
    fixing_per_s = flux_e_per_nm2_s * fixing_cross_section_nm2
    total_per_s = fixing_per_s + supply_per_s
    if total_per_s == 0:
        return 0.0
    steady = supply_per_s / total_per_s
    seconds = steady * exposure_s - (1 - steady) * expm1(-total_per_s * exposure_s) / total_per_s
    return volume_nm3 * fixing_per_s * adsorbed_per_nm2 * seconds


def _squared_speed(beam_energy_ev: float) -> float:
    check_beam_energy(beam_energy_ev)
    return 1 - (1 + beam_energy_ev / REST_ENERGY_EV) ** -2


def _well_above(name: str, loss_ev: float, beam_energy_ev: float) -> None:
    """Bethe's formulae turn negative for slow electrons."""
    if beam_energy_ev < _LEAST_OVER_LOSS * loss_ev:
        raise InvalidParameter(
            f"beam_energy_ev = {beam_energy_ev:g} is below {_LEAST_OVER_LOSS:g} times {name} = {loss_ev:g} eV, where"
            " this formula fails"
        )


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < inf:
            raise InvalidParameter(f"{name} = {value} must be finite, 0 or more")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise InvalidParameter(f"{name} = {value} must be positive and finite")
