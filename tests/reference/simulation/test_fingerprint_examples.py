"""Model selection as it is used: phases and dopants of a layer by its images, thickness by averaged diffraction."""

import numpy as np
import pytest
from ase.build import mx2

from instruments import Optics
from simulation import AnnularDetector, GridScan
from simulation.builders import crystal
from simulation.fingerprints import (
    Candidate,
    FingerprintLibrary,
    ImageFingerprint,
    LibrarySettings,
    Measured,
    PatternFingerprint,
)
from simulation.specimens import orthogonal_cell

THIN = LibrarySettings(
    optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20),
    pattern=PatternFingerprint(step_mrad=1.6, shape_px=(48, 48)),
    sampling_nm=0.012,
)


def thickness_library(folder, thicknesses_nm):
    made = FingerprintLibrary.open(folder, THIN)
    made.build([Candidate("SrTiO3", crystal("SrTiO3"), tuple(float(t) for t in thicknesses_nm))])
    return made


def test_thickness_between_two_steps_is_given_to_a_neighbour(tmp_path):
    library = thickness_library(tmp_path / "steps", range(5, 21))
    steps_nm = np.array([entry.label.thickness_nm for entry in library.entries])
    rng = np.random.default_rng(2)
    for truth in thickness_library(tmp_path / "truth", (7.4, 11.6, 16.5, 19.4)).entries:
        for _ in range(5):
            counts = rng.poisson(1e4 * truth.arrays["pattern"] * rng.gamma(400, 1 / 400))
            found = library.rank(Measured(pattern=counts, pattern_electrons=1e4, dose_uncertainty_fraction=0.05))
            assert abs(steps_nm[found.best] - truth.label.thickness_nm) < 1.0
            assert not found.is_none_of_these
        many = rng.poisson(1e7 * truth.arrays["pattern"])
        assert library.rank(Measured(pattern=many, pattern_electrons=1e7)).is_none_of_these


@pytest.fixture(scope="module")
def layers():
    """MoS2 of 0.95 by 1.1 nm: both phases, with W in place of one Mo, and with one S missing."""
    hexagonal, trigonal = (
        orthogonal_cell(mx2("MoS2", kind=kind, a=3.18, thickness=3.13, vacuum=2.0)) * (3, 2, 1) for kind in ("2H", "1T")
    )
    doped, vacant = hexagonal.copy(), hexagonal.copy()
    doped.numbers[np.flatnonzero(doped.numbers == 42)[5]] = 74
    del vacant[np.flatnonzero(vacant.numbers == 16)[9]]
    return {"1H": hexagonal, "1T": trigonal, "W": doped}, vacant


def test_phase_and_dopant_of_a_layer_and_what_is_neither(tmp_path, layers):
    known, vacant = layers
    width_nm, height_nm, _ = known["1H"].cell.lengths() / 10
    settings = LibrarySettings(
        optics=Optics(beam_energy_ev=80e3, semi_convergence_angle_mrad=25),
        images=ImageFingerprint(
            scan=GridScan(0, 0, width_nm, height_nm, (20, 20)),
            detectors={"haadf": AnnularDetector(70, 140), "abf": AnnularDetector(12, 25)},
        ),
        sampling_nm=0.0135,
    )
    library = FingerprintLibrary.open(tmp_path / "known", settings)
    library.build([Candidate(name, atoms) for name, atoms in known.items()])
    stranger = FingerprintLibrary.open(tmp_path / "stranger", settings)
    stranger.build([Candidate("vacancy", vacant)])
    rng = np.random.default_rng(3)

    def ranked(entry, electrons):
        shift = tuple(rng.integers(20, size=2))
        counts = {
            name: rng.poisson(electrons * np.roll(entry.arrays[f"image.{name}"], shift, axis=(0, 1)))
            for name in ("haadf", "abf")
        }
        unknown = {"dose_uncertainty_fraction": 0.05, "max_shift_nm": None}
        return library.rank(Measured(images=counts, electrons_e_per_px=electrons, **unknown))

    for index, entry in enumerate(library.entries):
        found = ranked(entry, 3000.0)
        assert (found.best, found.is_none_of_these) == (index, False)
        assert found.posterior[index] > 0.99
        assert found.more_electrons == 0
    assert ranked(stranger.entries[0], 3e4).is_none_of_these
