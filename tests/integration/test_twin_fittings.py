"""The twin with its fittings: what else a column has can be set, is read back, does something, and is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    ColumnState,
    CommandRefused,
    Frame,
    Optics,
    Park,
    RunProcedure,
    ScanPattern,
    SetAxes,
    Unblank,
    Unsupported,
)
from instruments.axes import known_axis
from simulation.microscope import SimulatedMicroscope
from tests.integration import twin_bench
from tests.integration.twin_bench import STILL


def twin(cache: Path, **changes: Any) -> SimulatedMicroscope:
    return twin_bench.twin(cache, **{"fittings": True, **STILL, **changes})


def frame(action_id: str, *, dwell_us: float = 4.0, rows: int = 24, **scan: Any) -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60,
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=30.0),
        scan=ScanPattern(field_of_view_nm=2.0, shape_px=(rows, 24), dwell_time_us=dwell_us, **scan),
        mode="maadf",
    )


def put(microscope: SimulatedMicroscope, **values: Any) -> None:
    """Set axes (a double underscore stands for the dot) and see that each is read back where it was sent."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    action_id = f"set-{microscope.read_state().time_s}-{sorted(named.items())}"
    state = microscope.execute(SetAxes(action_id=action_id, values=named))
    assert {name: state.axes[name].read_back for name in named} == named
    assert all(state.axes[name].is_reached for name in named)


def column(microscope: SimulatedMicroscope) -> ColumnState:
    told = microscope.read_state().column
    assert told is not None
    return told


def counts(shot: Frame, detector: str = "maadf") -> float:
    return float(shot.counts[detector].mean())


def test_detectors_go_in_and_out_and_are_amplified(image_cache: Path) -> None:
    """Frames say with which gain and offset their counts were made; electrons come out of them the same."""
    microscope = twin(image_cache)
    plain = microscope.acquire(frame("plain"))
    assert plain.counts["maadf"].dtype == np.uint16
    put(microscope, maadf__gain_fraction=1.0, maadf__offset_fraction=0.05)
    loud = microscope.acquire(frame("loud"))
    detector = next(one for one in loud.mode.detectors if one.name == "maadf")
    assert (detector.gain_counts_per_electron, detector.offset_counts) == (2.0, 50.0)
    assert loud.counts["maadf"].dtype == np.uint32
    assert counts(loud) - 50 == pytest.approx(2 * counts(plain), rel=0.1)
    dark = microscope.acquire_dark(frame("dark"))
    assert np.unique(dark.counts["maadf"]).tolist() == [50]
    put(microscope, bf__position="out")
    beside = microscope.acquire(frame("beside"))
    assert counts(beside, "bf") == 0
    assert counts(beside) > 50
    assert beside.electrons == pytest.approx(plain.electrons, rel=1e-3)


def test_a_lowered_screen_hides_the_beam_from_detectors_and_not_from_the_specimen(image_cache: Path) -> None:
    microscope = twin(image_cache)
    put(microscope, screen="down")
    shot = microscope.acquire(frame("hidden"))
    assert {name: int(one.max()) for name, one in shot.counts.items()} == {"maadf": 0, "bf": 0}
    assert shot.electrons > 0
    assert shot.state.axis_value("screen") == "down"


def test_a_gun_lens_trades_current_for_a_small_source(image_cache: Path) -> None:
    """What is commanded is what flows, or it is refused: doses follow from the command."""
    microscope = twin(image_cache)
    wide = microscope.acquire(frame("wide"))
    put(microscope, gun_lens_index=8.0)
    with pytest.raises(CommandRefused, match="30 pA is more than the 25 pA that gun_lens_index 8 lets through"):
        microscope.acquire(frame("bright"))
    assert microscope.outcome("bright") == "not_started"
    put(microscope, gun_lens_index=6.0)
    narrow = microscope.acquire(frame("narrow"))
    assert wide.state.coherence is not None
    assert narrow.state.coherence is not None
    assert narrow.state.coherence.source_size_nm == pytest.approx(wide.state.coherence.source_size_nm / 2**0.5)
    assert narrow.electrons == pytest.approx(wide.electrons, rel=0.01)
    contrasts = [float(microscope.noiseless(name, 0)["maadf"].std()) for name in ("wide", "narrow")]
    assert contrasts[1] > contrasts[0], "a smaller source blurs less"
    with pytest.raises(CommandRefused, match="between two settings"):
        microscope.execute(SetAxes(action_id="half", values={"gun_lens_index": 2.5}))


def test_lines_wait_for_the_mains_and_the_beam_does_not_burn_meanwhile(image_cache: Path) -> None:
    microscope = twin(image_cache, emission_decay_max_fraction=0.0, emission_decay_min_fraction=0.0)
    free = microscope.acquire(frame("free", flyback_time_us=20.0))
    put(microscope, line_sync="on")
    waited = microscope.acquire(frame("waited", flyback_time_us=20.0))
    took_s = waited.ended_s - waited.started_s
    assert took_s == pytest.approx(24 / 50, abs=1e-3), "one period of 50 Hz for each of 24 lines"
    assert microscope.forecast(frame("next", flyback_time_us=20.0))[1] == pytest.approx(took_s, abs=1e-3)
    assert waited.electrons == pytest.approx(free.electrons)


def test_the_holder_heats_strains_and_biases_the_specimen(image_cache: Path) -> None:
    """Heat moves places as the holder expands, strain in proportion, bias at once; gas shows in the vacuum."""
    microscope = twin(image_cache)

    def moved_nm(action_id: str, **scan: Any) -> tuple[float, float]:
        microscope.acquire(frame(action_id, **scan))
        return microscope.truth()["actions"][action_id]["displacement_nm"]

    here = moved_nm("room")
    put(microscope, holder__bias_v=5.0)
    assert moved_nm("biased")[1] - here[1] == pytest.approx(1.0)
    put(microscope, holder__bias_v=0.0, holder__strain_fraction=0.01)
    assert moved_nm("strained-far", beam_shift_x_nm=20.0)[0] - moved_nm("strained")[0] == pytest.approx(-0.2)
    put(microscope, holder__strain_fraction=0.0)
    started_s = microscope.read_state().time_s
    put(microscope, holder__temperature_k=393.0)
    assert microscope.read_state().time_s - started_s == pytest.approx(2.0), "100 K at 50 K/s"
    at_once = moved_nm("warm")[0] - here[0]
    microscope.execute(Park(action_id="wait", duration_s=60.0))
    assert 0 < at_once < 0.1
    assert moved_nm("later")[0] - here[0] == pytest.approx(50 * (1 - np.exp(-1)), rel=0.01), "0.5 nm/K in 60 s"
    calm = column(microscope).vacuum_mbar["specimen"]
    put(microscope, holder__flow_ml_per_min=0.5)
    assert column(microscope).vacuum_mbar["specimen"] > 10 * calm


def test_a_flash_begins_the_emission_anew_once(image_cache: Path) -> None:
    microscope = twin(image_cache)
    put(microscope, screen="down")
    microscope.execute(SetAxes(action_id="far", values={"x_nm": 3e5}))  # ten minutes on the way
    tired, tired_s = column(microscope), microscope.read_state().time_s
    flash = RunProcedure(action_id="flash", name="flash")
    microscope.execute(flash)
    fresh, fresh_s = column(microscope), microscope.read_state().time_s
    assert tired.since_flash_s == pytest.approx(tired_s)
    assert fresh.since_flash_s == 0
    assert tired.emission_ua is not None
    assert fresh.emission_ua is not None
    assert fresh.emission_ua > 1.02 * tired.emission_ua
    microscope.execute(flash)
    assert microscope.read_state().time_s == fresh_s, "the same action is not carried out again"
    with pytest.raises(Unsupported, match="has flash"):
        microscope.execute(RunProcedure(action_id="tune", name="tune"))
    microscope.execute(Unblank(action_id="lit"))
    with pytest.raises(CommandRefused, match="blank it"):
        microscope.execute(RunProcedure(action_id="again", name="flash"))


def test_all_of_it_is_told_recorded_and_rebuilt(image_cache: Path) -> None:
    """Every name is a known one; the column goes with each frame; another process gives the same frame."""
    microscope = twin(image_cache)
    card = microscope.capabilities()
    fitted = [axis.name for axis in card.axes if axis.name in microscope.read_state().axes]
    assert all(known_axis(name) for name in fitted)
    assert {axis.rpartition(".")[2] for axis in fitted} == {
        "screen", "line_sync", "gun_lens_index", "temperature_k", "bias_v", "strain_fraction", "flow_ml_per_min",
        "position", "gain_fraction", "offset_fraction", "illuminated_nm", "objective_aperture", "descan_x_mrad",
        "descan_y_mrad",
    }  # fmt: skip
    warm = SetAxes(action_id="a", values={"holder.temperature_k": 600.0, "bf.gain_fraction": 0.8, "line_sync": "on"})
    flash, exposure = RunProcedure(action_id="b", name="flash"), frame("c")
    microscope.execute(warm)
    microscope.execute(flash)
    shot = microscope.acquire(exposure)
    assert shot.state.column is not None
    assert not [name for name, value in shot.state.column.model_dump().items() if value in (None, {})]
    assert 0 < shot.state.column.clocks["scan generator"].uncertainty_s < 0.01
    again = twin(image_cache)
    again.rebuild([warm, flash, exposure])
    copy = again.acquire(exposure)
    assert copy.state == shot.state
    for name, image in shot.counts.items():
        np.testing.assert_array_equal(copy.counts[name], image)


def test_without_fittings_there_is_none_of_it(image_cache: Path) -> None:
    microscope = twin(image_cache, fittings=False)
    assert microscope.read_state().column is None
    with pytest.raises(Unsupported, match="no axis screen"):
        microscope.execute(SetAxes(action_id="s", values={"screen": "down"}))
