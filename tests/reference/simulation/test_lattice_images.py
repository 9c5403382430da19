"""Images from Gram matrices against the same physics computed another way, and the laws they obey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instruments.optics import Aberrations, Coherence, Optics
from simulation.errors import InvalidParameter
from simulation.lattice_images import Defect, LatticeImages
from simulation.specimens import read_structure
from tests.unit.simulation.lattice_cases import (
    ABERRATED,
    BF,
    FOCUSED,
    HAADF,
    MAADF,
    SHARP,
    STRUCTURE,
    column_atoms,
    lattice_images,
    one_slice_image,
    supercell,
)

REPEATS = (3, 2)


@pytest.fixture(scope="module")
def flat(image_cache: Path) -> LatticeImages:
    """One slice, atoms at rest."""
    return lattice_images(slices=1, cache_folder=image_cache)


@pytest.fixture(scope="module")
def planes(image_cache: Path) -> LatticeImages:
    """One slice per plane, atoms at rest."""
    return lattice_images(cache_folder=image_cache)


@pytest.fixture(scope="module")
def warm(image_cache: Path) -> LatticeImages:
    """One slice per plane, vibrating."""
    return lattice_images(phonon_count=8, cache_folder=image_cache)


def everywhere_nm(images: LatticeImages, x_nm: float, y_nm: float) -> np.ndarray:
    """(n, 2): a point and its copies by all translations of the lattice within the supercell of the tests."""
    width_nm, height_nm = images.cell_width_nm, images.cell_height_nm
    return np.array(
        [
            (x_nm + (i + half) * width_nm, y_nm + (j + half) * height_nm)
            for i in range(REPEATS[0])
            for j in range(REPEATS[1])
            for half in (0.0, 0.5)
        ]
    )


def site_nm(images: LatticeImages, column: str) -> tuple[float, float]:
    """Where the supercell of the tests keeps the site of a column."""
    first = next(found for found in images.columns if found.name == column)
    return (
        first.x_nm + (REPEATS[0] // 2) * images.cell_width_nm,
        first.y_nm + (REPEATS[1] // 2) * images.cell_height_nm,
    )


@pytest.mark.parametrize("optics", [FOCUSED, ABERRATED], ids=["focused", "aberrated"])
def test_cell_image_equals_a_probe_scanned_over_the_grid(flat: LatticeImages, optics: Optics) -> None:
    detectors = (MAADF, HAADF, BF)
    images = [flat.cell_image(*detector, optics, SHARP) for detector in detectors]
    rows, columns = images[0].shape
    r, c = 7, 11
    points = everywhere_nm(flat, c * flat.cell_width_nm / columns, r * flat.cell_height_nm / rows)
    for image, direct in zip(images, one_slice_image(supercell(REPEATS), optics, points, *detectors), strict=True):
        assert image[r, c] == pytest.approx(direct.mean(), rel=2e-5)
        assert direct == pytest.approx(direct.mean(), rel=0.02)  # atoms between pixels of the potential's grid


@pytest.mark.parametrize("optics", [FOCUSED, ABERRATED], ids=["focused", "aberrated"])
def test_difference_equals_two_direct_calculations(flat: LatticeImages, optics: Optics) -> None:
    difference = flat.difference_image("V_Se", *MAADF, optics, SHARP)
    x_nm, y_nm = site_nm(flat, "Se2")
    perfect = supercell(REPEATS)
    vacancy = perfect.copy()
    del vacancy[column_atoms(vacancy, x_nm, y_nm)[1]]  # the one met last
    middle = difference.values.shape[0] // 2
    steps = np.array([(0, 0), (12, -7), (-20, 15)])  # (row, column), where nothing is tapered yet
    points = np.array([(x_nm + c * difference.step_nm, y_nm + r * difference.step_nm) for r, c in steps])
    direct = (one_slice_image(vacancy, optics, points, MAADF) - one_slice_image(perfect, optics, points, MAADF))[0]
    found = [difference.values[middle + r, middle + c] for r, c in steps]
    assert found == pytest.approx(direct, abs=2e-5 * np.abs(difference.values).max())


def test_focal_spread_is_the_average_over_defocus(planes: LatticeImages) -> None:
    spread_nm = 3.3
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    images = [
        planes.cell_image(*MAADF, ABERRATED.model_copy(update={"defocus_nm": 6.0 + spread_nm * node}), SHARP)
        for node in nodes
    ]
    average = np.tensordot(weights / weights.sum(), images, axes=1)
    spread = planes.cell_image(*MAADF, ABERRATED, Coherence(focal_spread_nm=spread_nm))
    assert np.abs(spread - average).max() < 1e-6 * average.max()
    assert np.abs(spread - images[7]).max() > 1e-3 * average.max()


def test_source_size_is_a_gaussian_of_that_width(planes: LatticeImages) -> None:
    """Blurring the sharp cell image by hand: periodic, so by its own Fourier terms."""
    sharp = planes.cell_image(*MAADF, FOCUSED, SHARP)
    rows, columns = sharp.shape
    qy = np.fft.fftfreq(rows, planes.cell_height_nm / rows)[:, None]
    qx = np.fft.fftfreq(columns, planes.cell_width_nm / columns)[None, :]
    sigma_nm = 0.08 / (2 * np.sqrt(2 * np.log(2)))
    blurred = np.fft.ifft2(np.fft.fft2(sharp) * np.exp(-2 * np.pi**2 * sigma_nm**2 * (qx**2 + qy**2))).real
    found = planes.cell_image(*MAADF, FOCUSED, Coherence(source_size_nm=0.08))
    assert found == pytest.approx(blurred, abs=1e-9)


def test_difference_does_not_depend_on_where_the_site_lies() -> None:
    """To 1 %: what remains of the grid on which exp(i sigma V) is taken."""
    moved = read_structure(STRUCTURE)
    moved.positions += (0.371, 0.213, 0.0)
    moved.wrap()
    here, there = (
        lattice_images(structure=structure, potential_sampling_nm=0.0016, slices=1)
        .difference_image("Mo_W", *MAADF, FOCUSED, SHARP)
        .values
        for structure in (read_structure(STRUCTURE), moved)
    )
    assert np.abs(here - there).max() < 0.01 * np.abs(here).max()


def test_the_cell_repeats_under_the_centring_translation(warm: LatticeImages) -> None:
    """The primitive cell is half of the rectangular one; odd rows and columns, so by Fourier terms."""
    terms = np.fft.fft2(warm.cell_image(*HAADF, ABERRATED, SHARP))
    h = np.rint(np.fft.fftfreq(terms.shape[1], 1 / terms.shape[1]))[None, :]
    k = np.rint(np.fft.fftfreq(terms.shape[0], 1 / terms.shape[0]))[:, None]
    assert np.abs(terms[(h + k) % 2 == 1]).max() < 1e-12 * np.abs(terms).max()
    assert np.abs(terms[(h + k) % 2 == 0]).max() == np.abs(terms).max()


def test_which_sub_lattice_is_brighter_depends_on_the_detector(warm: LatticeImages) -> None:
    """The Se2 column outshines W in MAADF and not in HAADF."""
    gun = Coherence(source_size_nm=0.08)

    def middle(column: str, detector: tuple[float, float]) -> float:
        image = warm.site_image(column, None, *detector, FOCUSED, gun)
        return float(image[image.shape[0] // 2, image.shape[1] // 2])

    assert middle("Se2", MAADF) > 1.1 * middle("W", MAADF)
    assert middle("W", HAADF) > 1.1 * middle("Se2", HAADF)


def test_vibration_takes_the_interference_of_stacked_atoms_away(planes: LatticeImages, warm: LatticeImages) -> None:
    """Se2 over V_Se in HAADF: 1.5 for atoms at rest, whose waves cancel between the planes, near 2 for warm ones."""
    gun = Coherence(source_size_nm=0.08)

    def ratio(images: LatticeImages) -> float:
        host = images.site_image("Se2", None, *HAADF, FOCUSED, gun)
        vacancy = images.site_image("Se2", ("Se",), *HAADF, FOCUSED, gun)
        middle = host.shape[0] // 2
        return float(host[middle, middle] / vacancy[middle, middle])

    assert ratio(planes) == pytest.approx(1.5, abs=0.15)
    assert ratio(warm) == pytest.approx(1.9, abs=0.15)


def test_contents_and_species_are_one(warm: LatticeImages) -> None:
    by_name = warm.difference_image("O_Se", *MAADF, FOCUSED, SHARP)
    by_content = warm.difference_for("Se2", ("O", "Se"), *MAADF, FOCUSED, SHARP)
    assert np.array_equal(by_name.values, by_content.values)
    nothing = warm.difference_for("Se2", ("Se", "Se"), *MAADF, FOCUSED, SHARP)
    assert np.abs(nothing.values).max() == 0


def test_patches_are_odd_squares_that_end_at_zero(warm: LatticeImages) -> None:
    difference = warm.difference_image("V_Se", *MAADF, FOCUSED, Coherence(source_size_nm=0.08, focal_spread_nm=3.3))
    rows, columns = difference.values.shape
    assert rows == columns
    assert rows % 2 == 1
    border = np.concatenate([difference.values[0], difference.values[-1], difference.values[:, 0]])
    assert np.abs(border).max() < 1e-12
    assert difference.values[rows // 2, columns // 2] == difference.values.min() < 0
    assert 0 < difference.outside_fraction < 1e-3


def test_images_cannot_be_changed_by_their_users(warm: LatticeImages) -> None:
    with pytest.raises(ValueError, match="read-only"):
        warm.cell_image(*MAADF, FOCUSED, SHARP)[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        warm.difference_image("V_Se", *MAADF, FOCUSED, SHARP).values[0, 0] = 1


def test_same_seed_same_bits_and_another_seed_other_noise() -> None:
    def image(seed: int) -> np.ndarray:
        return lattice_images(phonon_count=2, seed=seed, slices=1).cell_image(*MAADF, FOCUSED, SHARP)

    assert np.array_equal(image(3), image(3))
    assert not np.array_equal(image(3), image(4))


def test_workers_change_no_bit() -> None:
    def patch(worker_count: int) -> np.ndarray:
        images = lattice_images(phonon_count=2, slices=1)
        images.prepare([("Se2", ("O",))], worker_count=worker_count)
        return images.difference_for("Se2", ("O",), *MAADF, FOCUSED, SHARP).values

    assert np.array_equal(patch(1), patch(3))


def test_a_smaller_aperture_needs_no_new_matrices(flat: LatticeImages) -> None:
    narrow = FOCUSED.model_copy(update={"semi_convergence_angle_mrad": 25.0})
    image = flat.cell_image(*MAADF, narrow, SHARP)
    direct = one_slice_image(supercell(REPEATS), narrow, everywhere_nm(flat, 0.0, 0.0), MAADF)
    assert image[0, 0] == pytest.approx(direct.mean(), rel=2e-5)


@pytest.mark.parametrize(
    ("optics", "words"),
    [
        (FOCUSED.model_copy(update={"beam_energy_ev": 80e3}), "80000 eV.*60000 eV"),
        (FOCUSED.model_copy(update={"semi_convergence_angle_mrad": 35.0}), "35 mrad.*31.5 mrad"),
        (FOCUSED.model_copy(update={"tilt_x_mrad": 2.0}), "tilt"),
    ],
)
def test_optics_they_do_not_describe_are_refused(flat: LatticeImages, optics: Optics, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        flat.cell_image(*MAADF, optics, SHARP)


def test_a_detector_not_prepared_is_refused(flat: LatticeImages) -> None:
    with pytest.raises(InvalidParameter, match=r"50-100 mrad.*0-10, 40-80, 80-100, 100-160"):
        flat.cell_image(50.0, 100.0, FOCUSED, SHARP)


@pytest.mark.parametrize(
    ("defect", "words"),
    [
        (Defect("S2", ("S",)), "no column 'S2'; its columns are W, Se2"),
        (Defect("W", ("W", "W")), "1 atoms"),
        (Defect("Se2", ("Se", "Se")), "becomes what it is"),
        (Defect("W", ("Xx",)), "Xx"),
    ],
)
def test_impossible_defects_are_refused(defect: Defect, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lattice_images(defects={"odd": defect})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detector_ranges_mrad": []}, "empty"),
        ({"detector_ranges_mrad": [(40.0, 40.0)]}, "40.0-40.0 mrad"),
        ({"rms_displacement_nm": {"W": 0.007, "Se": 0.007}}, "Mo, O"),
        ({"rms_displacement_nm": 0.5}, "0.5 nm"),
        ({"phonon_count": -1}, "-1"),
        ({"slices": 2}, "slices = 2"),
        ({"semi_convergence_angle_mrad": 0.0}, "0.0 mrad"),
        ({"supercell_nm": 50.0}, "50.0"),
        ({"step_nm": 0.2}, "0.2"),
        ({"potential_sampling_nm": 0.02}, "potential_sampling_nm"),
        ({"beam_energy_ev": 0.0}, "beam_energy_ev = 0.0"),
    ],
)
def test_bad_settings_name_value_and_limit(changes: dict, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        lattice_images(**changes)


def test_unknown_species_is_refused(flat: LatticeImages) -> None:
    with pytest.raises(InvalidParameter, match=r"V_S.*V_Se, O_Se, V_Se2, Mo_W"):
        flat.difference_image("V_S", *MAADF, FOCUSED, SHARP)


def test_aberrations_that_cancel_give_the_same_image(planes: LatticeImages) -> None:
    """Rotating C12 by 90 degrees changes its sign: with defocus it is one line focus or the other."""
    one = Optics(
        beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, aberrations=Aberrations(c12_nm=3.0, phi12_deg=0.0)
    )
    turned = one.model_copy(update={"aberrations": Aberrations(c12_nm=-3.0, phi12_deg=90.0)})
    assert planes.cell_image(*MAADF, one, SHARP) == pytest.approx(planes.cell_image(*MAADF, turned, SHARP), rel=1e-9)
