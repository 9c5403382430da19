"""Processor time of the features of one frame of the simulated microscope: `python -m benchmarks.features`.

512 x 512 pixels, 4 sub-frames, 2 detectors (some 8,400 columns), and a survey of 500 x 500 pixels. Prints medians in
ms of this process as JSON; run with OMP_NUM_THREADS=1 to compare.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import instruments
from instruments import AcquireFrame, Optics, ScanPattern
from orchestrator.features import LatticeHint, LatticeSites, Survey
from simulation.lattice_images import Defect, LatticeImages
from simulation.specimens import read_structure

REPEATS = 9
STRUCTURE = Path(__file__).parents[1] / "examples" / "structures" / "WSe2.extxyz"
DEFECTS = {
    "V_Se": Defect(column="Se2", becomes=("Se",)),
    "O_Se": Defect(column="Se2", becomes=("Se", "O")),
    "V_Se2": Defect(column="Se2", becomes=()),
    "Mo_W": Defect(column="W", becomes=("Mo",)),
}


def command(purpose: str, field_of_view_nm: float, pixel_size_nm: float, subframe_count: int) -> AcquireFrame:
    """A frame about the origin."""
    columns = round(field_of_view_nm / pixel_size_nm)
    return AcquireFrame(
        action_id=purpose,
        deadline_s=60,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30),
        scan=ScanPattern(
            field_of_view_nm=columns * pixel_size_nm, shape_px=(columns, columns), dwell_time_us=1.0, flyback_time_us=20
        ),
        mode="maadf",
        subframe_count=subframe_count,
        purpose=purpose,
    )


def cpu_ms(work: Callable[[], object]) -> float:
    """Median processor time of a call that has been made once before."""
    work()
    times: list[float] = []
    for _ in range(REPEATS):
        start_s = time.process_time()
        work()
        times.append(time.process_time() - start_s)
    return round(median(times) * 1e3, 1)


def main() -> None:
    """Measure and print."""
    images = LatticeImages.from_structure(
        read_structure(STRUCTURE),
        DEFECTS,
        beam_energy_ev=60e3,
        semi_convergence_angle_mrad=31.5,
        detector_ranges_mrad=[(0, 10), (40, 100)],
        rms_displacement_nm=0.007,
    )
    microscope = instruments.open("simulated", structure=str(STRUCTURE), clean_fraction=0.9)
    field = microscope.acquire(command("field", 20.0, 0.039, 4))
    small = microscope.acquire(command("revisit", 3.0, 0.039, 4))
    survey = microscope.acquire(command("survey", 100.0, 0.2, 1))
    sites = LatticeSites(images, tuple(DEFECTS))
    features = sites.extract(field)
    hint = LatticeHint.from_features(features)
    result = {
        "columns": len(features.arrays["site_x_nm"]),
        "field_ms": cpu_ms(lambda: sites.extract(field)),
        "small_frame_with_hint_ms": cpu_ms(lambda: sites.extract(small, hint)),
        "survey_ms": cpu_ms(lambda: Survey(images).extract(survey)),
        "store_ms": cpu_ms(features.to_bytes),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
