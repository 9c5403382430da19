"""The brightest place: what a frame tells, what is kept of it."""

from __future__ import annotations

import numpy as np
import pytest

from instruments import AcquireFrame, Detector, Frame, MicroscopeState, Mode, Optics, ScanPattern, StagePosition
from orchestrator.features.brightness import Brightness
from orchestrator.objectives.brightness import BrightestPlace
from orchestrator.objectives.objective import FrameFacts

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=1)
MODE = Mode(name="camera", kind="camera", detectors=(Detector(name="ccd", offset_counts=10.0),))


def frame(x_nm: float, counts: np.ndarray) -> Frame:
    scan = ScanPattern(field_of_view_nm=8, shape_px=(8, 8), dwell_time_us=1e3, at_once=True)
    stage = StagePosition(x_nm=x_nm)
    return Frame(
        action_id=f"at {x_nm:g}",
        requested=AcquireFrame(
            action_id=f"at {x_nm:g}", deadline_s=1, stage=stage, optics=OPTICS, scan=scan, mode="camera"
        ),
        state=MicroscopeState(time_s=1, stage=stage, optics=OPTICS),
        mode=MODE,
        counts={"ccd": counts[None]},
        pixel_size_nm=1.0,
        dose_e_per_a2=0.1,
        electrons=5.0,
        started_s=0.0,
        ended_s=1.0,
        instrument="bench",
        simulated=True,
    )


def test_the_brightest_place_is_kept_with_its_error() -> None:
    rng = np.random.default_rng(0)
    objective, extractor = BrightestPlace(), Brightness()
    frames = [frame(x_nm, rng.poisson(mean, (8, 8)).astype(np.uint16)) for x_nm, mean in ((1, 40), (2, 90), (3, 60))]
    scores = [objective.update({}, FrameFacts.of(one), extractor.extract(one)) for one in frames]
    answer = objective.summary()["brightness"]
    assert (answer["action_id"], answer["x_nm"], answer["frames"], answer["electrons"]) == ("at 2", 2.0, 3, 15.0)
    assert answer["counts_per_px"] == pytest.approx(frames[1].counts["ccd"].mean() - 10.0)
    assert answer["std"] == pytest.approx(np.sqrt(90 / 64), rel=0.4)
    assert [score.value for score in scores] == [scores[0].value, answer["counts_per_px"], answer["counts_per_px"]]
    assert scores[2].outcomes["counts_per_px"][0] == pytest.approx(frames[2].counts["ccd"].mean() - 10.0)


def test_nothing_seen_is_no_place() -> None:
    assert BrightestPlace().summary()["brightness"]["x_nm"] is None
