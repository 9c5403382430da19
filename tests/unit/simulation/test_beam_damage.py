"""Damage formulas against published values, limits and the differential equations they solve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from simulation import InvalidParameter
from simulation.beam_damage import (
    contamination_nm,
    critical_dose_e_per_a2,
    dose_at_another_energy_e_per_a2,
    excitation_assisted_barn,
    excitation_barn,
    intact_fraction,
    radiolysis_rate_per_s,
    stopping_power_ev_per_nm,
)
from simulation.world.cross_sections import displacement_barn, thermal_displacement_barn

WATER_ELECTRONS_PER_NM3 = 334.28  # 1 g/cm3


def test_sulphur_leaves_mos2_at_80_kv_only_through_its_thermal_motion():
    """About 1 barn (Komsa et al., Phys. Rev. Lett. 109 (2012) 035503: threshold 6.9 eV)."""
    assert displacement_barn("S", 80e3, 6.9) == 0
    assert thermal_displacement_barn("S", 80e3, 6.9) == pytest.approx(1.0, rel=0.5)


def test_selenium_stays_in_wse2_at_60_and_80_kv():
    assert thermal_displacement_barn("Se", 60e3, 6.3) == thermal_displacement_barn("Se", 80e3, 6.3) == 0
    assert thermal_displacement_barn("Se", 200e3, 6.3) > 10


def test_excitations_mix_thresholds():
    cold = thermal_displacement_barn("S", 60e3, 6.9)
    warm = thermal_displacement_barn("S", 60e3, 4.0)
    assert excitation_assisted_barn("S", 60e3, [6.9, 4.0], 0.0) == cold
    assert excitation_assisted_barn("S", 60e3, [6.9, 4.0], 0.03) == pytest.approx(
        np.exp(-0.03) * cold + (1 - np.exp(-0.03)) * warm
    )
    assert excitation_assisted_barn("S", 60e3, [6.9, 4.0], 50.0) == pytest.approx(warm)
    assert warm > 1000 * cold  # below the knock-on threshold excitation is what removes atoms
    with pytest.raises(InvalidParameter, match="one or more"):
        excitation_assisted_barn("S", 60e3, [], 0.1)


def test_excitation_falls_with_speed_and_sums_over_strength():
    low, high = excitation_barn(5.0, 0.5, 60e3), excitation_barn(5.0, 0.5, 200e3)
    speeds = [1 - (1 + energy / 510998.95) ** -2 for energy in (60e3, 200e3)]
    assert low / high == pytest.approx(speeds[1] / speeds[0], rel=0.1)
    assert excitation_barn(5.0, 1.0, 60e3) == pytest.approx(2 * low)


def test_excitation_of_hydrogen_is_near_the_born_approximation():
    """1s to 2p: 4 pi a0^2 (Ry / T) M^2 {ln[2 c m c^2 / Ry * b^2 / (1 - b^2)] - b^2}, M^2 = 0.5549, c = 0.4079."""
    beta2 = 1 - (1 + 100e3 / 510998.95) ** -2
    logarithm = np.log(2 * 0.4079 * 510998.95 / 13.6057 * beta2 / (1 - beta2)) - beta2
    born = 4 * np.pi * 0.0529177**2 * 1e10 * 13.6057 / (510998.95 * beta2 / 2) * 0.5549 * logarithm
    assert excitation_barn(0.75 * 13.6057, 0.4162, 100e3) == pytest.approx(born, rel=0.15)


@pytest.mark.parametrize(("beam_energy_ev", "table"), [(100e3, 4.115), (200e3, 2.793)])
def test_stopping_power_of_water(beam_energy_ev, table):
    """MeV cm2/g of ESTAR (Berger et al., NIST), I = 75 eV; 1 MeV/cm = 0.1 eV/nm."""
    found = stopping_power_ev_per_nm(beam_energy_ev, WATER_ELECTRONS_PER_NM3, 75.0)
    assert found == pytest.approx(0.1 * table, rel=2e-3)


def test_radiolysis_breaks_what_the_yield_says():
    """A dose of D per nm2 leaves S D per nm3; at small doses G / 100 eV of it are broken sites."""
    stopping = stopping_power_ev_per_nm(100e3, 300.0, 70.0)
    critical = critical_dose_e_per_a2(5.0, stopping, 40.0)
    dose = 1e-4 * critical
    broken_per_nm3 = 40.0 * (1 - intact_fraction(dose, critical))
    assert broken_per_nm3 == pytest.approx(dose * 100 * stopping * 5.0 / 100, rel=1e-3)
    assert radiolysis_rate_per_s(3.0, critical) == 3.0 / critical
    faster = critical_dose_e_per_a2(5.0, stopping_power_ev_per_nm(300e3, 300.0, 70.0), 40.0)
    assert dose_at_another_energy_e_per_a2(critical, 100e3, 300e3) == pytest.approx(faster, rel=0.15)


@pytest.mark.parametrize("flux", [0.0, 1e2, 1e6])
def test_contamination_solves_its_rate_equation(flux):
    constants = {
        "adsorbed_per_nm2": 2.0, "fixing_cross_section_nm2": 1e-3, "supply_per_s": 0.05, "volume_nm3": 0.05
    }  # fmt: skip
    fixing = flux * 1e-3

    def rates(_, state):
        return [0.05 * (2.0 - state[0]) - fixing * state[0], 0.05 * fixing * state[0]]

    solved = solve_ivp(rates, (0, 60), [2.0, 0.0], method="LSODA", rtol=1e-8, atol=1e-12).y[1, -1]
    assert contamination_nm(60.0, flux_e_per_nm2_s=flux, **constants) == pytest.approx(solved, rel=1e-4, abs=1e-12)


def test_contamination_follows_dose_at_first_and_supply_at_last():
    constants = {
        "adsorbed_per_nm2": 2.0, "fixing_cross_section_nm2": 1e-3, "supply_per_s": 0.05, "volume_nm3": 0.05
    }  # fmt: skip
    slow = contamination_nm(10.0, flux_e_per_nm2_s=1e-2, **constants)
    assert slow == pytest.approx(0.05 * 2.0 * 1e-3 * 1e-2 * 10, rel=1e-3)
    fast = contamination_nm(10.0, flux_e_per_nm2_s=1e9, **constants)
    assert fast == pytest.approx(0.05 * 2.0 * (1 + 0.05 * 10), rel=1e-3)
    with pytest.raises(InvalidParameter, match="negative"):
        contamination_nm(-1.0, flux_e_per_nm2_s=1.0, **constants)
