"""Frames as a microscope would deliver them, for the tests of what is stored."""

from __future__ import annotations

import numpy as np

from instruments import (
    Aberrations,
    AcquireFrame,
    Coherence,
    Detector,
    Frame,
    MicroscopeState,
    Mode,
    Optics,
    ScanPattern,
    StagePosition,
)
from instruments.units import electrons
from policies import Cost, Suggestion


def command(action_id: str, *, shape_px: tuple[int, int] = (24, 32), subframe_count: int = 3) -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=30.0,
        stage=StagePosition(x_nm=120.5, y_nm=-33.25, z_nm=7.0, alpha_deg=0.25, beta_deg=-0.5),
        optics=Optics(
            beam_energy_ev=60e3,
            semi_convergence_angle_mrad=31.5,
            probe_current_pa=32.0,
            defocus_nm=2.0,
            aberrations=Aberrations(c12_nm=1.5, phi12_deg=30.0, c30_nm=-400.0),
            camera_length_mm=160.0,
        ),
        scan=ScanPattern(
            field_of_view_nm=6.4,
            shape_px=shape_px,
            dwell_time_us=1.7,
            flyback_time_us=20.0,
            rotation_deg=12.0,
            beam_shift_x_nm=4.0,
            beam_shift_y_nm=-1.0,
        ),
        mode="maadf",
        subframe_count=subframe_count,
        purpose="field",
    )


MODE = Mode(
    name="maadf",
    camera_length_mm=160.0,
    detectors=(
        Detector(name="maadf", inner_mrad=40.0, outer_mrad=100.0, gain_counts_per_electron=1.0),
        Detector(name="bf", inner_mrad=0.0, outer_mrad=10.0),
    ),
)


def frame(asked: AcquireFrame, seed: int = 0) -> Frame:
    rng = np.random.default_rng([seed, asked.scan.shape_px[0], asked.subframe_count])
    shape = (asked.subframe_count, *asked.scan.shape_px)
    total = electrons(asked.optics.probe_current_pa, asked.scan.duration_s(asked.subframe_count))
    started_s = 1.0 + 0.1 * seed
    ended_s = started_s + asked.scan.duration_s(asked.subframe_count)
    return Frame(
        action_id=asked.action_id,
        requested=asked,
        state=MicroscopeState(
            time_s=ended_s,
            stage=asked.stage.model_copy(update={"x_nm": asked.stage.x_nm + 0.0123456789012345}),
            beam_shift_x_nm=asked.scan.beam_shift_x_nm,
            beam_shift_y_nm=asked.scan.beam_shift_y_nm,
            optics=asked.optics.model_copy(update={"defocus_nm": 2.1}),
            coherence=Coherence(source_size_nm=0.08, focal_spread_nm=1.1),
            measured_current_pa=31.7,
            mode="maadf",
            undetermined={"tilt_x_mrad": "not read back"},
        ),
        mode=MODE,
        counts={
            "maadf": rng.poisson(2.5, shape).astype(np.uint16),
            "bf": rng.poisson(7.0, shape).astype(np.uint32),
        },
        pixel_size_nm=asked.scan.pixel_size_nm,
        dose_e_per_a2=total / (asked.scan.area_nm2 * 100.0),
        electrons=total,
        started_s=started_s,
        ended_s=ended_s,
        instrument="simulated",
        simulated=True,
        context={
            "instrument": {"name": "simulated", "serial": "s1", "vendor": "stempilot"},
            "software": {"engine": "1.0"},
            "calibrations": [{"quantity": "pixel_size_nm", "relative_error": 0.0}],
            "line_jitter_nm": 0.01,
            "tip_age_s": None,
            "levels_pa": [1.0, 2.5],
            "names": ["a", "b"],
        },
    )


def suggestion(ordinal: int) -> Suggestion:
    return Suggestion(
        id=f"raster-7-{ordinal:04d}",
        point={"purpose": "field", "x_nm": 124.5 + ordinal, "y_nm": -34.25, "mode": "maadf"},
        policy="raster",
        ordinal=ordinal,
        prediction={"score": (1.0, 0.5)},
        cost=Cost(electrons=1e6, seconds=2.0),
        reason={"why": "next in the raster", "gain": 0.1 + ordinal},
    )
