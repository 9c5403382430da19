"""The lattice: its primitive cell, its symmetries, and where it lies in noisy, sheared, contaminated, moving frames."""

from __future__ import annotations

import numpy as np
import pytest

from instruments import Coherence, Optics
from orchestrator.features.cell_fit import TermSolver
from orchestrator.features.lattice import Picture, bragg_sums, find_periodicity, subframe_shifts_nm, synthesise
from orchestrator.features.lattice_model import FourierTerms, PrimitiveCell, fourier_terms
from tests.unit.orchestrator.features.gaussian_lattice import A_NM, GaussianLattice, Specimen, expose

OPTICS = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5)


def test_primitive_cell_of_the_centred_rectangle() -> None:
    cell = PrimitiveCell.of(GaussianLattice())
    np.testing.assert_allclose(cell.vectors_nm, [[A_NM, A_NM / 2], [0, A_NM * np.sqrt(3) / 2]], atol=1e-12)
    assert cell.column_names == ("W", "Se2")
    np.testing.assert_allclose(cell.fractions % 1, [[0, 0], [1 / 3, 1 / 3]], atol=1e-9)
    # Six rotations of a hexagonal lattice, three of which keep metal and chalcogen where they are.
    assert [len(group) for group in cell.orientations] == [3, 3]


def test_fourier_terms_rebuild_the_cell() -> None:
    model = GaussianLattice()
    cell = PrimitiveCell.of(model)
    image = model.cell_image(40.0, 100.0, OPTICS, Coherence())
    terms = FourierTerms.of(cell, [image], model, floor=1e-6)
    values = fourier_terms(image, terms.q_per_nm, model)
    x = np.arange(image.shape[1]) * model.cell_width_nm / image.shape[1] - model.columns[0].x_nm
    y = np.arange(image.shape[0]) * model.cell_height_nm / image.shape[0] - model.columns[0].y_nm
    np.testing.assert_allclose(synthesise(values, x, y, terms.q_per_nm), image, atol=2e-4 * image.mean())


def test_terms_of_a_masked_frame_do_not_leak() -> None:
    model = GaussianLattice()
    cell = PrimitiveCell.of(model)
    image = model.cell_image(40.0, 100.0, OPTICS, Coherence())
    terms = FourierTerms.of(cell, [image], model, floor=1e-4)
    values = fourier_terms(image, terms.q_per_nm, model)
    blank = Picture(np.zeros((180, 150), dtype=np.float32), 0.04)
    g = terms.indices @ np.linalg.inv(cell.vectors_nm)
    drawn = synthesise(values, blank.x_nm, blank.y_nm, g)
    keep = np.random.default_rng(0).random(drawn.shape) > 0.3
    keep[40:120, :60] = False
    solver = TermSolver(blank, keep, terms.indices, cell.vectors_nm)
    found = solver.terms(np.where(keep, drawn, 1e3).astype(np.float32)).values
    np.testing.assert_allclose(found, values, atol=1e-4 * abs(values[0]))
    plain = bragg_sums(np.where(keep, drawn, 0), blank.x_nm, blank.y_nm, g) / keep.sum()
    assert np.abs(plain - values).max() > 1e-2 * abs(values[0])


@pytest.mark.parametrize(("shear", "dose"), [(0.0, 100.0), (0.03, 300.0), (-0.08, 1000.0)])
def test_periodicity_is_found_to_a_picometre_a_cell(shear: float, dose: float) -> None:
    model = GaussianLattice()
    cell = PrimitiveCell.of(model)
    rng = np.random.default_rng(3)
    for rotation_deg in (3.0, 31.0, 58.0):
        exposure = expose(Specimen(model, rotation_deg=rotation_deg, shear=shear), rng, dose_e_per_a2=dose)
        pictures = [Picture(exposure.frame.counts["maadf"].sum(axis=0).astype(np.float32), 0.039)]
        terms = FourierTerms.of(cell, [model.cell_image(40.0, 100.0, OPTICS, Coherence())], model, floor=1e-3)
        found = find_periodicity(pictures, terms.q_per_nm[1:7], np.array([3, 3, 3, 1, 1, 1.0]), 60.0)
        assert found.is_significant
        basis = found.matrix @ cell.vectors_nm
        truths = [exposure.matrix @ cell.vectors_nm @ turn for group in cell.orientations for turn in group]
        off_nm = min(float(np.abs(basis - truth).max()) for truth in truths)
        print(f"shear {shear}, {dose} e/A2, {rotation_deg} deg: {off_nm * 1e3:.2f} pm a cell")
        assert off_nm < 5e-3


def test_noise_has_no_lattice() -> None:
    model = GaussianLattice()
    cell = PrimitiveCell.of(model)
    terms = FourierTerms.of(cell, [model.cell_image(40.0, 100.0, OPTICS, Coherence())], model, floor=1e-3)
    for seed in range(5):
        counts = np.random.default_rng(seed).poisson(2.0, (256, 256)).astype(np.float32)
        found = find_periodicity([Picture(counts, 0.039)], terms.q_per_nm[1:7], np.ones(6), 60.0)
        assert not found.is_significant, seed


def test_drift_between_subframes_is_followed() -> None:
    model = GaussianLattice()
    rng = np.random.default_rng(4)
    specimen = Specimen(model, rotation_deg=20.0, drift_per_subframe_nm=(0.05, -0.02))
    exposure = expose(specimen, rng, dose_e_per_a2=2000.0)
    cell = PrimitiveCell.of(model)
    g = np.array([[1.0, 0], [0, 1], [1, -1]]) @ np.linalg.inv(exposure.matrix @ cell.vectors_nm)
    subframes = [[exposure.frame.counts[name][number] for name in ("maadf", "bf")] for number in range(4)]
    shifts, errors = subframe_shifts_nm(subframes, 0.039, g)
    truth = (np.arange(4) - 1.5)[:, None] * np.array([0.05, -0.02])
    assert np.abs(shifts - truth).max() < 2e-3
    assert errors.max() < 2e-3
