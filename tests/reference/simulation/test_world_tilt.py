"""Images of the twin's leaning specimen against multislice of the same atoms, turned in space and placed one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from instruments import AcquireFrame, Optics, ScanPattern, SetAxes, StagePosition
from simulation import AnnularDetector, PointScan, simulate
from simulation.microscope import SimulatedMicroscope, open_simulated
from simulation.specimens import Specimen

STRUCTURE = str(Path(__file__).resolve().parents[3] / "examples" / "structures" / "WSe2.extxyz")
PERFECT = {
    "contamination_nm": 1e-6, "densities_per_nm2": {}, "rms_displacement_nm": 0.0, "source_size_nm": 0.0,
    "focal_spread_nm": 0.0, "residual_c12_nm": 0.0, "residual_c21_nm": 0.0, "residual_c23_nm": 0.0,
    "residual_c30_nm": 0.0, "focus_offset_nm": 0.0, "focus_drift_nm_per_min": 0.0, "afterglow_us": 0.0,
    "line_jitter_nm": 0.0, "drift_nm_per_min": 0.0, "backlash_min_nm": 0.0, "backlash_max_nm": 0.0,
    "move_drift_nm_per_min": 0.0, "move_drift_floor_nm_per_min": 0.0, "width_nm": 60.0, "height_nm": 60.0,
}  # fmt: skip
SIDE_PX, FIELD_NM, SHIFT_NM, Z_NM = 4, 0.6, 6.0, 3.0


def upright(microscope: SimulatedMicroscope) -> Specimen:
    """One cell of it."""
    return Specimen.of(cast("Any", microscope.world.atoms))


def scene(microscope: SimulatedMicroscope, alpha_deg: float, beta_deg: float) -> tuple[Atoms, float]:
    """Atoms around the middle of the field, in a box whose middle that is, and the depth of the tilt axis in it."""
    crystal, specimen = microscope.world.crystal, upright(microscope)
    cells = [(i, j) for i in range(6, 32) for j in range(-6, 6)]
    corners = np.array([
        (crystal.origin_x_nm + i * crystal.cell_width_nm, crystal.origin_y_nm + j * crystal.cell_height_nm, 0.0)
        for i, j in cells
    ])  # fmt: skip
    flat = np.concatenate([specimen.positions_angstrom + corner * 10 for corner in corners])
    heights = (flat[:, 2].min() + flat[:, 2].max()) / 2 - flat[:, 2] + (microscope.world.above_axis_nm + Z_NM) * 10
    turned = Rotation.from_euler("XY", [alpha_deg, beta_deg], degrees=True).apply(
        np.column_stack([flat[:, :2], heights])
    )
    box, axis, depth = 24.0, 70.0, 80.0
    places = np.column_stack([turned[:, 0] - SHIFT_NM * 10 + box / 2, turned[:, 1] + box / 2, axis - turned[:, 2]])
    inside = np.all((places[:, :2] > 0) & (places[:, :2] < box), axis=1)
    numbers = np.tile(specimen.numbers, len(cells))
    return Atoms(numbers[inside], positions=places[inside], cell=[box, box, depth]), axis / 10


@pytest.mark.parametrize(("alpha_deg", "beta_deg", "error"), [(14.0, 0.0, 0.03), (10.0, -12.0, 0.15)])
def test_a_scan_of_a_leaning_specimen_is_that_of_its_atoms(
    alpha_deg: float, beta_deg: float, error: float, image_cache: Path
) -> None:
    """Off the axis, up and off the middle: places, signs, focus and how columns look all have to be right.

    Tilted both ways atoms look sheared by sin(alpha) sin(beta), 4 % here.
    """
    microscope = open_simulated(
        structure=STRUCTURE, seed=3, phonon_count=1, cache_folder=str(image_cache), fittings=True,
        eucentric_error_nm=2.0, **PERFECT,
    )  # fmt: skip
    microscope.execute(SetAxes(action_id="sync", values={"line_sync": "on"}))
    optics = Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0, defocus_nm=-3.0)
    command = AcquireFrame(
        action_id="lean",
        deadline_s=60,
        stage=StagePosition(alpha_deg=alpha_deg, beta_deg=beta_deg, z_nm=Z_NM),
        optics=optics,
        scan=ScanPattern(
            field_of_view_nm=FIELD_NM, shape_px=(SIDE_PX, SIDE_PX), dwell_time_us=4.0, beam_shift_x_nm=SHIFT_NM
        ),
        mode="maadf",
    )
    microscope.acquire(command)
    image = microscope.noiseless("lean", 0)["maadf"]
    atoms, axis_nm = scene(microscope, alpha_deg, beta_deg)
    # The twin's focus counts from the first atoms of an upright specimen at stage height 0, simulate's from the top.
    half_nm = np.ptp(upright(microscope).positions_angstrom[:, 2]) / 20
    from_top_nm = axis_nm - microscope.world.above_axis_nm - half_nm
    offsets = (np.arange(SIDE_PX) - (SIDE_PX - 1) / 2) * FIELD_NM / SIDE_PX
    points = [(1.2 + x, 1.2 + y) for y in offsets for x in offsets]
    lens = optics.model_copy(update={"defocus_nm": optics.defocus_nm + from_top_nm})
    found = simulate(
        atoms, lens, PointScan(points), {"maadf": AnnularDetector(40, 100)}, method="multislice", sampling_nm=0.01,
        slice_thickness_nm=0.1,
    )  # fmt: skip
    expected = np.asarray(found["maadf"]).reshape(SIDE_PX, SIDE_PX)
    assert image.mean() == pytest.approx(expected.mean(), rel=0.05)
    assert np.sqrt(np.mean((image - expected) ** 2)) < error * expected.std()
