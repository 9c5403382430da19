"""Transmission functions of exact placement: independent of sub-pixel position, and converged."""

import ase
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instruments.optics import Optics
from simulation import AnnularDetector, PointScan, simulate
from simulation.atomic_cores import layers_without_overlap, stacks
from simulation.backend import backend
from simulation.electron import interaction_parameter
from simulation.scattering_factors import projected_scattering_factor
from simulation.slices import AtomSlice
from simulation.transmission_bands import ExactTransmission
from simulation.wave_grid import WaveGrid

GRID = WaveGrid((60, 64), (6.0, 6.4))
SIGMA = interaction_parameter(60e3)
NUMPY = backend("numpy")
EXACT = ExactTransmission(GRID, "lobato", 60e3, NUMPY, reach_per_angstrom=10)


def atoms(numbers, xy):
    return AtomSlice(np.asarray(numbers), np.asarray(xy, dtype=float))


def low_band(spectrum):
    """Within the wave grid's Nyquist, (59, 63) about zero."""
    spectrum = np.fft.fftshift(spectrum)
    row, column = spectrum.shape[0] // 2, spectrum.shape[1] // 2
    return spectrum[row - 29 : row + 30, column - 31 : column + 32]


def brute_force(slice_of_atoms, factor):
    """exp(i sigma V) on a grid so much finer that aliasing no longer matters."""
    fine = GRID.finer(factor)
    ky, kx = fine.frequencies_per_angstrom()
    k = np.hypot(ky, kx)
    area = fine.sampling_angstrom[0] * fine.sampling_angstrom[1]
    spectrum = sum(
        projected_scattering_factor(int(number), k) / area * np.exp(-2j * np.pi * (kx * x + ky * y))
        for number, (x, y) in zip(slice_of_atoms.numbers, slice_of_atoms.xy_angstrom, strict=True)
    )
    return low_band(np.fft.fft2(np.exp(1j * SIGMA * np.fft.ifft2(spectrum).real)) / factor**2)


@settings(max_examples=15)
@given(
    x=st.floats(0, 6.4),
    y=st.floats(0, 6.0),
    numbers=st.tuples(*[st.sampled_from([6, 16, 42, 74])] * 3),
    apart=st.floats(0.0, 2.5),
)
def test_moving_atoms_only_turns_phases(x, y, numbers, apart):
    """Three atoms, two of them from on top of each other to apart, moved by parts of a pixel."""
    group = np.array([[1.0, 2.0], [1.0 + apart, 2.0], [3.0, 4.9]])
    here = low_band(EXACT.of(atoms(numbers, group)))
    there = low_band(EXACT.of(atoms(numbers, group + np.array([x, y]))))
    rows, columns = np.arange(-29, 30) / 6.0, np.arange(-31, 32) / 6.4
    ramp = np.exp(-2j * np.pi * (columns[None, :] * x + rows[:, None] * y))
    assert np.abs(there - here * ramp).max() < 1e-3 * np.abs(here).max()
    scattered = np.abs(here).copy()
    scattered[29, 31] = 0
    assert np.abs(there - here * ramp).max() < 5e-3 * scattered.max()


@pytest.mark.parametrize("numbers", [(74, 74, 74), (8, 22), (79, 79, 79, 79)])
def test_atoms_of_a_column_in_one_slice_move_as_one(numbers):
    """A product of their cores would be off by 1e-3 for tungsten and 4e-3 for gold, and images by 2 and 10 %."""
    group, step = np.tile([1.0, 2.0], (len(numbers), 1)), np.array([0.03, 0.05])
    here, there = (low_band(EXACT.of(atoms(numbers, group + moved))) for moved in (0.0, step))
    rows, columns = np.arange(-29, 30) / 6.0, np.arange(-31, 32) / 6.4
    ramp = np.exp(-2j * np.pi * (columns[None, :] * step[0] + rows[:, None] * step[1]))
    scattered = np.abs(here).copy()
    scattered[29, 31] = 0
    assert np.abs(there - here * ramp).max() < 2.5e-4 * scattered.max()


def test_places_hold_every_atom_once_also_across_the_border():
    xy = [[6.3998, 1.0], [0.0001, 1.0], [3.0, 2.0], *[[1.0, 1.0]] * 8, *[[2.0, 1.0]] * 7]
    found = stacks(atoms([6] * len(xy), xy), (6.0, 6.4))
    assert [each.tolist() for each in found] == [[0, 1], [3, 4, 5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16]]
    assert stacks(atoms([6, 6], [[1.0, 1.0], [1.0, 1.1]]), (6.0, 6.4)) == []


@pytest.mark.parametrize("numbers", [(74, 16), (42, 6)])
def test_against_brute_force(numbers):
    """The reference itself still moves by about 1e-3 between grids 16 and 24 times finer."""
    group = atoms(numbers, [[1.03, 2.11], [3.37, 4.42]])
    made, expected = low_band(EXACT.of(group)), brute_force(group, 16)
    expected[29, 31], made[29, 31] = 0, 0
    assert np.linalg.norm(made - expected) < 3e-3 * np.linalg.norm(expected)


def test_light_atoms_are_weak_phase_objects():
    """For hydrogen t - 1 is i sigma V to first order, so its spectrum is the scattering factor."""
    made = low_band(EXACT.of(atoms([1], [[0.0, 0.0]])))
    k = np.hypot(np.arange(-29, 30)[:, None] / 6.0, np.arange(-31, 32)[None, :] / 6.4)
    expected = SIGMA * projected_scattering_factor("H", k) / (0.1 * 0.1)
    expected[29, 31] = made[29, 31].imag
    np.testing.assert_allclose(made.imag, expected, rtol=0.02)


@given(
    xy=st.lists(st.tuples(st.floats(0, 6.4), st.floats(0, 6.0)), min_size=1, max_size=12),
    distance=st.floats(0.1, 4.0),
)
def test_layers_hold_every_atom_once_and_keep_their_distance(xy, distance):
    layers = layers_without_overlap(atoms([6] * len(xy), xy), distance, GRID.extent_angstrom)
    together = np.concatenate([layer.xy_angstrom for layer in layers])
    assert sorted(map(tuple, together)) == sorted(xy)
    box = np.array([6.4, 6.0])
    for layer in layers:
        for index, point in enumerate(layer.xy_angstrom[:-1]):
            step = layer.xy_angstrom[index + 1 :] - point
            assert np.hypot(*(step - box * np.round(step / box)).T).min() > distance * (1 - 1e-9)


def of_one_gold_atom(z_nm, x_nm=0.32, **settings):
    """HAADF of a probe on it, in focus."""
    atoms = ase.Atoms("Au", positions=[[10 * x_nm, 3.2, 10 * z_nm]], cell=(6.4, 6.4, 8.0), pbc=True)
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30, defocus_nm=z_nm)
    rings, options = {"haadf": AnnularDetector(80, 150)}, {"method": "multislice", "sampling_nm": 0.005} | settings
    image = simulate(atoms, optics, PointScan([[x_nm, 0.32]]), rings, **options)
    return float(image["haadf"][0])


def test_finite_projection_does_not_care_where_boundaries_and_pixels_lie():
    """Cut by a boundary, and integrated where it is cut, the same atom would scatter a third more."""
    settings = {"slice_thickness_nm": 0.1, "projection": "finite"}
    on_boundary, in_slice = of_one_gold_atom(0.4, **settings), of_one_gold_atom(0.45, **settings)
    assert of_one_gold_atom(0.437, 0.3217, **settings) == pytest.approx(on_boundary, rel=1e-3)
    assert in_slice == pytest.approx(on_boundary, rel=1e-3)
    assert on_boundary == pytest.approx(of_one_gold_atom(0.4), rel=3e-3)
    cut, whole = (of_one_gold_atom(z_nm, placement="bilinear", **settings) for z_nm in (0.4, 0.45))
    assert cut > 1.3 * whole


def test_bands_of_rows_are_parts_of_the_whole():
    """Patches cross the bands' edges and the cell's."""
    many = atoms([74, 16, 6, 42], [[0.02, 0.03], [3.1, 1.5], [6.39, 5.9], [2.0, 3.0]])
    whole = EXACT.of(many)
    in_bands = ExactTransmission(GRID, "lobato", 60e3, NUMPY, reach_per_angstrom=10, band_bytes=7 * 8 * 256).of(many)
    assert np.abs(in_bands - whole).max() <= 1e-6 * np.abs(whole[1:]).max()
