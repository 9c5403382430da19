"""Published values of f_e, and the potential that belongs to it."""

import numpy as np
import pytest
from scipy.integrate import quad

from simulation.electron import POTENTIAL_PER_SCATTERING_FACTOR, interaction_parameter, wavelength_angstrom
from simulation.errors import InvalidParameter, InvalidSpecimen
from simulation.scattering_factors import (
    PARAMETRIZATIONS,
    atomic_potential_v,
    electron_scattering_factor,
    elements,
    projected_scattering_factor,
    symbol_of,
)

# f_e in angstrom at k = 0, 0.5, 1, 2 cycles per angstrom, evaluated by another program from the published tables.
CHECKS = {
    "lobato": {
        "C": (2.5097, 1.1692, 0.4128, 0.1172),
        "O": (2.0291, 1.2318, 0.5427, 0.1586),
        "Si": (5.8360, 1.9677, 0.7429, 0.2705),
        "S": (5.2539, 2.3261, 0.8609, 0.2973),
        "Ti": (8.7797, 2.8556, 1.2223, 0.3939),
        "Sr": (13.1099, 3.8649, 1.7420, 0.6473),
        "Mo": (10.8542, 4.3458, 1.9296, 0.6972),
        "W": (12.6368, 5.7781, 2.8979, 1.1576),
        "Au": (10.5758, 6.0402, 3.0655, 1.2096),
    },
    "kirkland": {
        "C": (2.5114, 1.1700, 0.4127, 0.1168),
        "O": (1.9897, 1.2231, 0.5421, 0.1586),
        "Si": (5.8143, 1.9658, 0.7423, 0.2702),
        "S": (5.1721, 2.3271, 0.8606, 0.2976),
        "Ti": (8.7400, 2.8449, 1.2294, 0.3886),
        "Sr": (13.0552, 3.8989, 1.7284, 0.6502),
        "Mo": (10.2895, 4.3432, 1.9350, 0.6950),
        "W": (12.4822, 5.7684, 2.8993, 1.1590),
        "Au": (10.5534, 6.0346, 3.0708, 1.2082),
    },
}


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_factors_match_published_values(parametrization):
    for symbol, expected in CHECKS[parametrization].items():
        values = electron_scattering_factor(symbol, np.array([0, 0.5, 1, 2]), parametrization)
        np.testing.assert_allclose(values, expected, atol=5.1e-5, err_msg=symbol)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_every_element_falls_smoothly_to_mott_bethe_at_high_angle(parametrization):
    """At large k the nucleus scatters alone: f_e -> Z / (2 pi^2 a0 k^2)."""
    k = np.array([0.0, 1.0, 3.0, 12.0])
    for number, symbol in enumerate(elements(parametrization), start=1):
        values = electron_scattering_factor(number, k, parametrization)
        assert (np.diff(values) < 0).all(), symbol
        bare = number / (2 * np.pi**2 * 0.529177 * k[-1] ** 2)
        assert values[-1] == pytest.approx(bare, rel=0.25), symbol


def test_the_two_tables_agree_on_what_stem_sees():
    for number in range(1, 104):
        one, other = (electron_scattering_factor(number, 1.5, name) for name in PARAMETRIZATIONS)
        assert one == pytest.approx(other, rel=0.06)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("symbol", ["O", "W"])
def test_potential_is_the_transform_of_the_factor(symbol, parametrization):
    """f_e(k) = (2 / (K k)) * integral of V(r) r sin(2 pi k r) dr, the inverse of the closed form in use."""
    k = 0.7
    integral, _ = quad(
        lambda r: float(atomic_potential_v(symbol, r, parametrization)) * r * np.sin(2 * np.pi * k * r),
        1e-9,
        40,
        limit=2000,
        epsabs=1e-9,
    )
    expected = float(electron_scattering_factor(symbol, k, parametrization))
    assert 2 / k * integral / POTENTIAL_PER_SCATTERING_FACTOR == pytest.approx(expected, rel=1e-6)


def test_projected_factor_is_in_volt_square_angstrom():
    assert float(projected_scattering_factor("Au", 0.0)) == pytest.approx(506.34, abs=0.01)


def test_the_electron_at_200_and_60_kv():
    assert wavelength_angstrom(200e3) == pytest.approx(0.025079340317328468, abs=1e-9)
    assert wavelength_angstrom(60e3) == pytest.approx(0.04866060479040298, abs=1e-9)
    assert interaction_parameter(200e3) == pytest.approx(0.0007288401085927866, rel=1e-8)
    assert interaction_parameter(60e3) == pytest.approx(0.0011356905381324882, rel=1e-8)
    with pytest.raises(InvalidParameter, match="beam_energy_ev = -1 must"):
        wavelength_angstrom(-1)


def test_unknown_elements_and_tables_are_named():
    with pytest.raises(InvalidSpecimen, match="atomic number 115"):
        symbol_of(115)
    with pytest.raises(InvalidSpecimen, match="'Xx'"):
        symbol_of("Xx")
    with pytest.raises(InvalidParameter, match=r"'peng'.*lobato, kirkland"):
        electron_scattering_factor("C", 0.0, "peng")
