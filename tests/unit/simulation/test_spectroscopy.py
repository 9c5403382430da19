"""Losses and X-rays against quantum mechanics done numerically, tables, sum rules and counting."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest
from ase import Atoms
from scipy.integrate import solve_ivp
from scipy.special import spherical_jn

from instruments.optics import Optics
from simulation import GridScan, InvalidParameter, PointScan
from simulation.probe import probe
from simulation.spectroscopy import (
    DrudePlasmon,
    atoms_seen_per_nm2,
    casnati_k_barn,
    characteristic_angle_mrad,
    counted_xrays,
    cross_section_barn,
    cross_section_barn_per_ev,
    delocalisation_nm,
    edge,
    fit_power_law,
    fluorescence_yield,
    ionisation_barn,
    plasmon_energy_ev,
    plural_spectrum,
    single_scattering,
    solid_angle_sr,
    thickness_over_mean_free_path,
    with_plural_losses,
    zero_loss_peak,
)
from simulation.spectroscopy.hydrogenic import k_shell, l_shell, p_shell

RYDBERG_EV, BOHR_NM, REST_EV = 13.605693, 0.0529177211, 510998.95


def coulomb_waves(k: float, highest: int, r: np.ndarray) -> np.ndarray:
    """Regular Coulomb functions u_l(r) around a proton, l = 0..highest, normalised per Rydberg; r in Bohr radii."""
    eta, order = -1 / k, np.arange(highest + 1)
    start = np.sqrt(2 * np.pi * eta / np.expm1(2 * np.pi * eta))
    steps = np.sqrt(order[1:] ** 2 + eta**2) / (order[1:] * (2 * order[1:] + 1))
    size = start * np.concatenate([[1.0], np.cumprod(steps)])
    rho, first = k * r[0], eta / (order + 1)
    second = (2 * eta * first - 1) / (2 * (2 * order + 3))
    value = size * rho ** (order + 1) * (1 + first * rho + second * rho**2)
    slope = size * k * rho**order * ((order + 1) + (order + 2) * first * rho + (order + 3) * second * rho**2)

    def derivative(at, state):
        half = len(state) // 2
        return np.concatenate([state[half:], (order * (order + 1) / at**2 - 2 / at - k**2) * state[:half]])

    solution = solve_ivp(
        derivative, (r[0], r[-1]), np.concatenate([value, slope]), t_eval=r, method="DOP853", rtol=1e-7, atol=1e-12
    )
    return solution.y[: highest + 1] / np.sqrt(np.pi * k)


def numerical_strength(bound: np.ndarray, l_bound: int, k: float, q2: float, r: np.ndarray, w: np.ndarray) -> float:
    """df/dw of one filled subshell of hydrogen at momentum transfer squared q2, by partial waves."""
    waves = coulomb_waves(k, 10, r)
    threshold = 1.0 if l_bound == 0 and bound[0] / r[0] > 1.5 else 0.25
    total = 0.0
    for free, wave in enumerate(waves):
        for carried in range(abs(free - l_bound), free + l_bound + 1):
            # squared 3j symbol (free carried l_bound; 0 0 0) for l_bound = 0 and 1
            if l_bound == 0:
                weight = 1 / (2 * free + 1)
            elif carried == free:
                continue
            else:
                larger = max(free, carried)
                weight = larger / ((2 * larger - 1) * (2 * larger + 1))
            overlap = np.sum(w * wave * spherical_jn(carried, np.sqrt(q2) * r) * bound)
            total += (2 * free + 1) * (2 * carried + 1) * weight * overlap**2
    return 2 * (2 * l_bound + 1) * (k**2 + threshold) / q2 * total


@pytest.mark.parametrize(("q2", "k"), [(0.02, 0.6), (0.15, 0.9)])
def test_hydrogenic_strengths_equal_numerical_integration(q2, k):
    nodes, weights = np.polynomial.legendre.leggauss(220)
    r, w = (nodes + 1) * 20, weights * 20
    one_s = 2 * r * np.exp(-r)
    two_s = r / np.sqrt(2) * (1 - r / 2) * np.exp(-r / 2)
    two_p = r**2 * np.exp(-r / 2) / np.sqrt(24)
    assert k_shell(k**2 + 1, q2) == pytest.approx(numerical_strength(one_s, 0, k, q2, r, w), rel=1e-4)
    p = numerical_strength(two_p, 1, k, q2, r, w)
    assert p_shell(k**2 + 0.25, q2) == pytest.approx(p, rel=1e-4)
    assert l_shell(k**2 + 0.25, q2) == pytest.approx(p + numerical_strength(two_s, 0, k, q2, r, w), rel=1e-4)


@pytest.mark.parametrize("strength", [k_shell, p_shell, l_shell])
def test_strengths_go_on_smoothly_below_the_hydrogenic_threshold(strength):
    threshold = 1.0 if strength is k_shell else 0.25
    below, above = strength(threshold - 1e-5, 0.3), strength(threshold + 1e-5, 0.3)
    assert below == pytest.approx(above, rel=1e-3)


def test_bethe_sum_of_the_k_shell():
    """All transitions of two electrons: 2; to the continuum at large momentum transfer all of it, at none 0.87."""
    w = 1 + np.geomspace(1e-6, 1e5, 20_000)
    assert np.trapezoid(k_shell(w, 25.0), w) == pytest.approx(2, rel=2e-3)
    assert np.trapezoid(k_shell(w, 1e-6), w) == pytest.approx(2 * 0.4350, rel=2e-3)


# Photoabsorption as f2 in electrons an atom (Chantler, J. Phys. Chem. Ref. Data 29 (2000) 597): energies and values
# below the edge, energies and values above. The other shells' share is taken off by a power law through the two
# points below.
TABLES = {
    ("C", "K"): ((262.97, 283.52), (0.1959, 0.1771), (321.25, 367.11, 585.65, 998.8), (3.4725, 2.9562, 1.4724, 0.593)),
    ("O", "K"): ((512.49, 531.47), (0.2319, 0.2194), (547.85, 626.06, 715.44, 998.8), (3.9911, 3.3971, 2.8186, 1.683)),
    ("Si", "K"): ((1703.27, 1837.06), (0.3884, 0.3422), (1848.09, 2224.30, 2904.72), (4.0819, 3.1614, 2.0459)),
    ("Ti", "K"): ((4633.92, 4961.43), (0.4793, 0.4234), (4991.23, 5660.86), (3.9516, 3.1852)),
    ("Cu", "K"): ((8447.89, 8969.92), (0.5361, 0.4834), (9030.79, 10320.0), (3.8582, 3.0504)),
    ("Si", "L"): ((79.12, 99.10), (0.3681, 0.3648), (134.94, 188.37, 300.51, 512.49), (9.468, 9.3252, 5.715, 2.7385)),
    ("Ti", "L"): ((419.52, 455.04), (1.6498, 1.5234), (512.49, 626.06, 764.81, 998.8), (13.816, 12.153, 9.360, 6.422)),
    ("Cu", "L"): ((873.99, 930.17), (2.2948, 2.1247), (1067.68, 1141.35, 1490.49), (13.862, 14.041, 9.7449)),
}  # fmt: skip


@pytest.mark.parametrize(("element", "shell"), TABLES)
def test_small_angle_strengths_agree_with_photoabsorption(element, shell):
    """df/dE = 2 f2 / (pi E)."""
    below_ev, below, losses, values = (np.array(each) for each in TABLES[element, shell])
    exponent = np.log(below[1] / below[0]) / np.log(below_ev[1] / below_ev[0])
    table = 2 * (values - below[1] * (losses / below_ev[1]) ** exponent) / (np.pi * losses)
    ratio = edge(element, shell).oscillator_strength_per_ev(losses, 1e-6) / table
    assert np.abs(ratio - 1).max() < (0.2 if shell == "L" else 0.12)


# Dipole strengths of K, and of L2 and L3 together, 0 to 50 and 50 to 100 eV from the edge: subshell photoionisation of
# Kissel (Radiat. Phys. Chem. 59 (2000) 185; relativistic Hartree-Fock-Slater) as in xraylib 4.2, summed in 1 eV steps.
STRENGTHS = {
    ("Be", "K"): (0.8056, 0.4029), ("B", "K"): (0.5381, 0.341), ("C", "K"): (0.3755, 0.2755),
    ("N", "K"): (0.2722, 0.2196), ("O", "K"): (0.2103, 0.1824), ("F", "K"): (0.1655, 0.1506),
    ("Na", "K"): (0.1119, 0.1012), ("Al", "K"): (0.07438, 0.07047), ("Si", "K"): (0.06242, 0.05966),
    ("Cl", "K"): (0.0398, 0.03828), ("Ti", "K"): (0.02177, 0.02128), ("Fe", "K"): (0.01483, 0.01466),
    ("Cu", "K"): (0.01147, 0.01152), ("Mo", "K"): (0.004882, 0.004868), ("Al", "L23"): (2.109, 1.845),
    ("Si", "L23"): (1.901, 1.695), ("P", "L23"): (1.884, 1.46), ("S", "L23"): (1.68, 1.375),
    ("K", "L23"): (1.884, 0.9824), ("Ca", "L23"): (1.028, 0.8755), ("Sc", "L23"): (0.8873, 0.7864),
    ("Ti", "L23"): (0.7529, 0.7274), ("Cr", "L23"): (0.6575, 0.6229), ("Mn", "L23"): (0.483, 0.5699),
    ("Fe", "L23"): (0.4159, 0.5283), ("Ni", "L23"): (0.3157, 0.4547), ("Cu", "L23"): (0.3391, 0.4332),
    ("Zn", "L23"): (0.2694, 0.3897), ("Ge", "L23"): (0.2075, 0.3167), ("Kr", "L23"): (0.1597, 0.2207),
}  # fmt: skip


def tabulated_barn(inner, strengths, beam_ev, angle_mrad):
    """Over windows of 50 eV: 4 pi a0^2 Ry^2 / T * sum of f / E ln(1 + (angle / theta_E)^2), in the middle of each."""
    losses = inner.onset_ev + np.array([25.0, 75.0])[: len(strengths)]
    spread = [np.log1p((angle_mrad / characteristic_angle_mrad(loss, beam_ev)) ** 2) for loss in losses]
    half_mass_speed2_ev = REST_EV / 2 * (1 - (1 + beam_ev / REST_EV) ** -2)
    front = 4 * np.pi * BOHR_NM**2 * 1e10 * RYDBERG_EV**2 / half_mass_speed2_ev
    return front * np.sum(np.array(strengths) / losses * spread)


@pytest.mark.parametrize(("element", "shell"), STRENGTHS)
def test_partial_cross_sections_agree_with_tabulated_subshells(element, shell):
    """K over 50 and 100 eV within 10 %, L23 over 100 eV within 20 % (Sc 22 %), at angles where dipoles rule."""
    inner, strengths = edge(element, shell), STRENGTHS[element, shell]
    beams = [(60e3, 10), (100e3, 10), (300e3, 5)]
    for beam_ev, angle_mrad in (beam for beam in beams if beam[0] > 6 * inner.onset_ev):
        over_100 = cross_section_barn(inner, beam_ev, angle_mrad, 100)
        bound = 0.1 if shell == "K" else 0.225
        assert over_100 == pytest.approx(tabulated_barn(inner, strengths, beam_ev, angle_mrad), rel=bound)
        if shell == "K":
            over_50 = cross_section_barn(inner, beam_ev, angle_mrad, 50)
            assert over_50 == pytest.approx(tabulated_barn(inner, strengths[:1], beam_ev, angle_mrad), rel=0.1)


def test_l_edges_count_2s_from_their_own_edge_on():
    whole, inner = edge("Ti", "L"), edge("Ti", "L23")
    assert whole.oscillator_strength_per_ev(500.0, 0.01) == inner.oscillator_strength_per_ev(500.0, 0.01)
    assert whole.oscillator_strength_per_ev(600.0, 0.01) > inner.oscillator_strength_per_ev(600.0, 0.01)
    assert whole.oscillator_strength_per_ev(450.0, 0.01) == 0


def test_small_angles_follow_the_lorentzian_of_dipole_scattering():
    carbon, loss_ev, beam_ev = edge("C", "K"), 300.0, 200e3
    angle = characteristic_angle_mrad(loss_ev, beam_ev)
    by_hand = loss_ev * (beam_ev + REST_EV) / (beam_ev * (beam_ev + 2 * REST_EV))  # E / (p v)
    assert angle == pytest.approx(1e3 * by_hand, rel=1e-6)
    found = cross_section_barn_per_ev(carbon, np.array([loss_ev]), beam_ev, 2 * angle)[0]
    beta2 = 1 - (1 + beam_ev / REST_EV) ** -2
    front = 4 * np.pi * BOHR_NM**2 * 1e10 * RYDBERG_EV**2 / (loss_ev * REST_EV * beta2 / 2)
    strength = carbon.oscillator_strength_per_ev(loss_ev, 1e-6)
    assert found == pytest.approx(front * strength * np.log(5), rel=0.01)


def test_partial_cross_sections_sum_the_spectrum():
    oxygen = edge("O", "K")
    losses = np.linspace(oxygen.onset_ev, oxygen.onset_ev + 80, 4001)
    spectrum = cross_section_barn_per_ev(oxygen, losses, 80e3, 15)
    assert cross_section_barn(oxygen, 80e3, 15, 80) == pytest.approx(np.trapezoid(spectrum, losses), rel=1e-4)
    assert cross_section_barn(oxygen, 80e3, 40, 80) > cross_section_barn(oxygen, 80e3, 15, 80)


@pytest.mark.parametrize(("convergence_mrad", "collection_mrad"), [(30.0, 20.0), (10.0, 25.0)])
def test_a_convergent_beam_loses_what_leaves_the_aperture(convergence_mrad, collection_mrad):
    """Directions spread evenly over the disc, scattered by every angle, counted where they land."""
    carbon, loss_ev, beam_ev = edge("C", "K"), np.array([320.0]), 100e3
    angles = np.linspace(0, convergence_mrad + collection_mrad, 161)
    parallel = [0.0, *(cross_section_barn_per_ev(carbon, loss_ev, beam_ev, angle)[0] for angle in angles[1:])]
    number = np.arange(1500)
    start = convergence_mrad * np.sqrt((number + 0.5) / 1500) * np.exp(1j * np.pi * (3 - np.sqrt(5)) * number)
    moved = np.abs(start[None, :] + (angles[1:, None] + angles[:-1, None]) / 2)
    shares = np.mean(moved < collection_mrad, axis=1)
    expected = np.sum(shares * np.diff(parallel))
    found = cross_section_barn_per_ev(
        carbon, loss_ev, beam_ev, collection_mrad, semi_convergence_angle_mrad=convergence_mrad
    )
    assert found[0] == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("element", ["C", "Al", "Ti", "Cu"])
def test_total_ionisation_agrees_with_the_empirical_formula(element):
    """Fifteen to twenty times the edge energy, where both hold."""
    inner = edge(element, "K")
    beam_ev = 19 * inner.onset_ev
    assert ionisation_barn(inner, beam_ev) == pytest.approx(casnati_k_barn(element, inner.onset_ev, beam_ev), rel=0.15)


def test_what_is_not_known_is_refused():
    with pytest.raises(InvalidParameter, match="Li to Mo"):
        edge("W", "K")
    with pytest.raises(InvalidParameter, match="K, L23, L"):
        edge("W", "M45")
    with pytest.raises(InvalidParameter, match="1 to 20 times"):
        casnati_k_barn("C", 284.2, 200e3)
    with pytest.raises(InvalidParameter, match="below the beam"):
        cross_section_barn_per_ev(edge("Cu", "K"), [9000.0], 8000.0, 10)


def test_delocalisation_shrinks_with_loss():
    reach = [delocalisation_nm(loss_ev, 100e3, 20) for loss_ev in (20.0, 284.0, 2000.0)]
    assert reach[0] > reach[1] > reach[2]
    assert 0.1 < reach[1] < 0.5  # carbon K: a few tenths of a nm


def test_a_power_law_is_found_and_goes_on_under_the_edge():
    loss = np.arange(200.0, 400.0)
    counts = np.random.default_rng(2).poisson(1e5 * (loss / 250) ** -3.2)
    law = fit_power_law(loss, counts, (220, 280))
    assert law.exponent == pytest.approx(3.2, abs=0.05)
    np.testing.assert_allclose(law.at(350.0), 1e5 * 1.4**-3.2, rtol=0.01)
    with pytest.raises(InvalidParameter, match="two or more"):
        fit_power_law(loss, counts, (500, 600))


def test_aluminium_plasmon_obeys_the_sum_rule_and_the_measured_path():
    plasmon = DrudePlasmon(plasmon_energy_ev(3 * 60.2), 0.6)
    assert plasmon.plasmon_ev == pytest.approx(15.8, abs=0.1)
    loss = np.concatenate([np.linspace(0, 40, 40_001), np.geomspace(40.01, 1e5, 5000)])
    weighted = np.trapezoid(loss * plasmon.loss_function(loss), loss)
    assert weighted == pytest.approx(np.pi / 2 * plasmon.plasmon_ev**2, rel=1e-3)
    measured = DrudePlasmon(15.0, 0.5).mean_free_path_nm(100e3, 10)
    by_hand = 4 * BOHR_NM * 76789 / (15.0 * np.log1p((10 / characteristic_angle_mrad(15.0, 100e3)) ** 2))
    assert measured == pytest.approx(by_hand, rel=0.02)  # of a sharp plasmon: 113 nm


LOSS = np.arange(-20.0, 300.0, 0.1)


def plasmon_losses(thickness: float) -> np.ndarray:
    single = DrudePlasmon(15.0, 2.0).scattering_per_nm_per_ev(LOSS, 100e3, 10)
    return thickness * single / (single[LOSS > 0].sum() * 0.1)


def test_plural_losses_are_poisson_and_the_log_ratio_gives_the_thickness():
    mean = 0.8
    spectrum = plural_spectrum(LOSS, plasmon_losses(mean), zero_loss_peak(LOSS, 0.6, electrons=1e6))
    assert spectrum.sum() == pytest.approx(1e6, rel=1e-3)
    # peaks at 0, 15, 30 eV; their tails overlap, so to a few percent
    for count, (low, high) in enumerate([(-5, 2), (7.5, 22.5)]):
        share = spectrum[(low <= LOSS) & (high > LOSS)].sum() / 1e6
        assert share == pytest.approx(np.exp(-mean) * mean**count / factorial(count), rel=0.12)
    assert thickness_over_mean_free_path(LOSS, spectrum, 2.0) == pytest.approx(mean, rel=0.03)


def test_fourier_log_undoes_plural_losses():
    mean = 1.3
    peak = zero_loss_peak(LOSS, 0.6)
    spectrum = plural_spectrum(LOSS, plasmon_losses(mean), peak)
    found = single_scattering(LOSS, spectrum, peak * np.exp(-mean), resolution_ev=1.0)
    inside = (LOSS > 5) & (LOSS < 60)
    blur = zero_loss_peak(np.arange(-5.0, 5.05, 0.1), 1.0)
    expected = np.convolve(np.where(LOSS > 0, plasmon_losses(mean), 0), blur, mode="same")
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.01 * expected.max())


def test_an_edge_keeps_its_electrons_but_moves_them_up():
    low = plural_spectrum(LOSS, plasmon_losses(0.5), zero_loss_peak(LOSS, 0.6))
    sharp = np.zeros(2000)
    sharp[100] = 1.0
    smeared = with_plural_losses(LOSS, sharp, low)
    assert smeared.sum() == pytest.approx(1.0, abs=1e-3)
    assert smeared[90:111].sum() == pytest.approx(np.exp(-0.5), rel=0.02)
    assert np.argmax(smeared[200:]) + 200 == pytest.approx(250, abs=2)  # 15 eV up, at 0.1 eV a channel


@pytest.mark.parametrize("part", [0.2, 0.5, 0.7])
def test_zero_loss_between_channels_moves_nothing(part):
    """Electrons, mean losses and thickness are those of an axis with a channel at zero loss."""
    loss = np.arange(-20.0, 200.0) + part
    mean, plasmon = 0.8, DrudePlasmon(15.0, 1.0).loss_function(loss)
    single = mean * plasmon / plasmon.sum()
    mean_loss = float(loss @ single)
    peak = zero_loss_peak(loss, 0.6, electrons=1e6)
    assert peak.sum() == pytest.approx(1e6)
    assert loss @ peak == pytest.approx(0, abs=1e-3)
    spectrum = plural_spectrum(loss, single, peak)
    assert spectrum.sum() == pytest.approx(1e6, rel=1e-4)
    assert loss @ spectrum / spectrum.sum() == pytest.approx(mean_loss, abs=0.01)
    assert thickness_over_mean_free_path(loss, spectrum, 4.0) == pytest.approx(mean, rel=0.01)
    back = single_scattering(loss, spectrum, peak * np.exp(-mean), 2.0)
    assert loss @ back / back.sum() == pytest.approx(mean_loss / mean, abs=0.01)
    smeared = with_plural_losses(loss, np.eye(1, 500, 200)[0], spectrum)
    assert np.arange(500) @ smeared / smeared.sum() - 200 == pytest.approx(mean_loss, abs=0.01)


def test_fluorescence_yields_and_counts():
    # Krause, J. Phys. Chem. Ref. Data 8 (1979) 307: K of Si 0.050, Fe 0.340, Cu 0.440, Mo 0.765
    for element, value in (("Si", 0.050), ("Fe", 0.340), ("Cu", 0.440), ("Mo", 0.765)):
        assert fluorescence_yield(element, "K") == pytest.approx(value, rel=0.05)
    assert fluorescence_yield("Cu", "L") == pytest.approx(0.011, rel=0.15)  # L3, the same table
    assert solid_angle_sr(180) == pytest.approx(4 * np.pi)
    options = {"electrons": 1e9, "atoms_per_nm2": 20.0, "detector_efficiency": 0.5}
    part = counted_xrays(edge("Si", "K"), 80e3, solid_angle_sr=0.7, **options)
    every = counted_xrays(edge("Si", "K"), 80e3, solid_angle_sr=4 * np.pi, **options)
    assert part / every == pytest.approx(0.7 / (4 * np.pi))
    events = 1e9 * 20.0 * ionisation_barn(edge("Si", "K"), 80e3) * 1e-10
    assert every == pytest.approx(events * fluorescence_yield("Si", "K") * 0.5)


OPTICS = Optics(beam_energy_ev=100e3, semi_convergence_angle_mrad=20)


def test_a_single_atom_sees_the_probe_blurred():
    atoms = Atoms("C", [[5, 5, 1]], cell=[10, 10, 2], pbc=True)
    points = np.array([[0.5, 0.5], [0.55, 0.5], [0.62, 0.48]])
    seen = atoms_seen_per_nm2(
        atoms, OPTICS, PointScan(points), "C", interaction_rms_nm=0.02, grid_shape_px=(100, 100), device="numpy"
    )
    intensity = np.abs(probe(OPTICS, shape_px=(100, 100), sampling_nm=0.01, x_nm=0.5, y_nm=0.5)) ** 2
    intensity /= intensity.sum() * 0.01**2
    k = np.fft.fftfreq(100, 0.01)
    blurred = np.fft.ifft2(np.fft.fft2(intensity) * np.exp(-2 * (np.pi * 0.02) ** 2 * (k[:, None] ** 2 + k**2))).real
    expected = [blurred[50 - round((y - 0.5) / 0.01), 50 - round((x - 0.5) / 0.01)] for x, y in points]
    np.testing.assert_allclose(seen.values, expected, rtol=1e-4)


def test_a_column_draws_the_probe_in_and_loses_it_with_depth():
    """On a gold column atoms see more of the probe than without channelling at first; elsewhere nothing is gained."""
    depth = 6
    positions = [[2.04, 2.04, 1 + 4.08 * index] for index in range(depth)]
    atoms = Atoms(f"Au{depth}", positions, cell=[8.16, 8.16, 4.08 * depth], pbc=True)
    one = Atoms("Au", [[2.04, 2.04, 1]], cell=[8.16, 8.16, 4.08], pbc=True)
    options = {"interaction_rms_nm": 0.008, "grid_shape_px": (128, 128), "slice_thickness_nm": 0.204, "device": "numpy"}
    scan = PointScan([[0.204, 0.204], [0.612, 0.612]])
    on, off = atoms_seen_per_nm2(atoms, OPTICS, scan, "Au", **options).values / depth
    alone, _ = atoms_seen_per_nm2(one, OPTICS, scan, "Au", **options).values
    assert on > 1.2 * alone
    assert off < 0.1 * on


def test_a_scan_over_the_whole_cell_averages_to_atoms_per_area():
    """Before any scattering the probes of a complete scan add up to even illumination."""
    atoms = Atoms("SiC", [[2.4, 3.2, 0.5], [5, 5, 0.5]], cell=[8, 8, 1], pbc=True)
    scan = GridScan(0, 0, 0.8, 0.8, (10, 10))
    seen = atoms_seen_per_nm2(atoms, OPTICS, scan, "Si", grid_shape_px=(64, 64), device="numpy")
    assert seen.dims == ("y", "x")
    assert float(seen.mean()) == pytest.approx(1 / 0.64, rel=1e-4)
    assert float(seen.sel(x=0.24, y=0.32, method="nearest")) == float(seen.max())
