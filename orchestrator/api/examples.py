"""Examples in the published document that work as they are: a file, then a submission that names it."""

from __future__ import annotations

import hashlib
from typing import Any, Final

FILE_NAME: Final = "WSe2.extxyz"
FILE_TEXT: Final = (
    "3\n"
    'Lattice="3.282 0.0 0.0 -1.641 2.8422953752205276 0.0 0.0 0.0 13.341" Properties=species:S:1:pos:R:3'
    ' title="1H-WSe2 monolayer, a = 3.282 A, Se-Se 3.341 A, 5 A of vacuum on each side" pbc="T T T"\n'
    "W        0.00000000       0.00000000       6.67050000\n"
    "Se       1.64100000       0.94743179       8.34100000\n"
    "Se       1.64100000       0.94743179       5.00000000\n"
)
FILE_SHA256: Final = hashlib.sha256(FILE_TEXT.encode()).hexdigest()
SUBMISSION: Final[dict[str, Any]] = {
    "spec": {
        "name": "Forty quick frames of WSe2",
        "specimen": {
            "material": "WSe2 monolayer",
            "structure": f"sha256:{FILE_SHA256}/{FILE_NAME}",
            "thickness_nm": 0.7,
            "rms_displacement_nm": {"W": 0.007, "Se": 0.007, "Mo": 0.007, "O": 0.007},
            "defects": {
                "V_Se": {"column": "Se2", "becomes": ["Se"]},
                "O_Se": {"column": "Se2", "becomes": ["Se", "O"]},
                "V_Se2": {"column": "Se2", "becomes": []},
                "Mo_W": {"column": "W", "becomes": ["Mo"]},
            },
        },
        "instrument": {
            "name": "simulated",
            "config": {"width_nm": 60, "height_nm": 60, "window_min_nm": 8, "window_max_nm": 20, "phonon_count": 2},
            "optics": {"beam_energy_ev": 60000, "semi_convergence_angle_mrad": 31.5, "focal_spread_nm": 3.3},
        },
        "search_space": {
            "purpose": {"choices": ["field"]},
            "x_nm": {"low": -30, "high": 30, "resolution": 0.1},
            "y_nm": {"low": -30, "high": 30, "resolution": 0.1},
            "field_of_view_nm": {"low": 2, "high": 60},
            "pixel_size_nm": {"low": 0.02, "high": 0.2},
            "mode": {"choices": ["maadf", "haadf"]},
            "dwell_time_us": {"low": 0.5, "high": 80},
            "probe_current_pa": {"low": 10, "high": 100, "resolution": 1},
            "defocus_nm": {"low": -15, "high": 15, "resolution": 0.5},
        },
        "objective": {
            "name": "defect_census",
            "options": {
                "false_discovery_rate": 0.05,
                "determinable": ["V_Se", "V_Se2", "Mo_W"],
                "prior_density_per_nm2": {"V_Se": 0.005, "O_Se": 0.005, "V_Se2": 0.0005, "Mo_W": 0.003},
                "beam_made": "V_Se",
                "phonon_count": 2,
            },
        },
        "policy": {
            "name": "raster",
            "options": {
                "purpose": "field",
                "field_of_view_nm": 4,
                "pixel_size_nm": 0.08,
                "mode": "maadf",
                "dwell_time_us": 8,
                "probe_current_pa": 30,
                "defocus_nm": 0,
            },
        },
        "budget": {"electrons": 2e8, "frames": 40, "instrument_time_s": 600},
    },
    "seed": 7,
    "priority": 5,
    "baselines": False,
}
