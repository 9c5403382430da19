"""What a point is said to cost, against what the twin's clock and beam really do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import instruments
from instruments import Capabilities
from orchestrator.mapping import command_for
from orchestrator.spec import ExperimentSpec
from simulation.microscope import SimulatedMicroscope
from workflows.questions.costs import CostForecast

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "native_defects.yaml"
POINT = {
    "purpose": "field", "x_nm": 3.0, "y_nm": -2.0, "field_of_view_nm": 8.0, "pixel_size_nm": 0.04, "mode": "maadf",
    "dwell_time_us": 6.0, "probe_current_pa": 30.0, "defocus_nm": 0.0,
}  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {},
    {"x_nm": 6.0},
    {"x_nm": -9.0, "y_nm": 12.0},
    {"mode": "haadf"},
    {"probe_current_pa": 60.0},
    {"defocus_nm": 4.0},
    {"mode": "haadf", "probe_current_pa": 60.0, "x_nm": 0.0, "defocus_nm": -2.0},
    {"field_of_view_nm": 4.0, "dwell_time_us": 20.0},
]


@pytest.fixture(scope="module")
def spec() -> ExperimentSpec:
    return ExperimentSpec.from_yaml(EXAMPLE)


def twin(spec: ExperimentSpec) -> SimulatedMicroscope:
    """A small world of the spec's specimen."""
    microscope = instruments.open(
        "simulated", seed=1, structure=str(spec.specimen.structure), width_nm=30, height_nm=30, window_min_nm=8,
        window_max_nm=12, defects={name: change.model_dump() for name, change in spec.specimen.defects.items()},
        beam_energy_ev=spec.instrument.optics.beam_energy_ev,
        semi_convergence_angle_mrad=spec.instrument.optics.semi_convergence_angle_mrad,
    )  # fmt: skip
    assert isinstance(microscope, SimulatedMicroscope)
    return microscope


def test_a_stage_move_and_the_beam_shift_after_it(microscope: SimulatedMicroscope, spec: ExperimentSpec) -> None:
    far = {**POINT, "x_nm": 3000.0, "y_nm": 40.0}
    spent(microscope, spec, POINT, "before the move")
    _, seconds = spent(microscope, spec, far, "the move")
    forecast = CostForecast(spec, microscope.capabilities())(far, POINT)
    travel_s = abs(microscope.read_state().stage.x_nm) / microscope.config.stage_speed_nm_per_s
    assert travel_s > 1
    assert forecast.seconds == pytest.approx(seconds - travel_s, rel=1e-6)  # capabilities do not tell a stage's speed


@pytest.fixture(scope="module")
def microscope(spec: ExperimentSpec) -> SimulatedMicroscope:
    return twin(spec)


def spent(
    microscope: SimulatedMicroscope, spec: ExperimentSpec, point: Mapping[str, Any], action_id: str
) -> tuple[float, float]:
    """(electrons, seconds) that the world saw; no image is computed."""
    started_s = microscope.read_state().time_s
    microscope.rebuild([command_for(point, spec, microscope.capabilities(), action_id)])
    truth = microscope.truth()["actions"][action_id]
    return truth["electrons"], microscope.read_state().time_s - started_s


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: ",".join(change) or "nothing")
def test_forecast_is_what_the_twin_spends(
    microscope: SimulatedMicroscope, spec: ExperimentSpec, change: dict[str, Any]
) -> None:
    capabilities: Capabilities = microscope.capabilities()
    name = "-".join(f"{key}={value}" for key, value in change.items())
    spent(microscope, spec, POINT, f"before {name}")
    electrons, seconds = spent(microscope, spec, {**POINT, **change}, f"after {name}")
    forecast = CostForecast(spec, capabilities)({**POINT, **change}, POINT)
    assert forecast.seconds == pytest.approx(seconds, rel=1e-6)
    assert electrons <= forecast.electrons <= 1.1 * electrons


def test_changing_more_costs_more(microscope: SimulatedMicroscope, spec: ExperimentSpec) -> None:
    forecast = CostForecast(spec, microscope.capabilities())
    stay = forecast(POINT, POINT)
    assert forecast({**POINT, "x_nm": 6.0}, POINT).seconds > stay.seconds
    assert forecast({**POINT, "mode": "haadf"}, POINT).seconds >= stay.seconds + 10
    assert forecast({**POINT, "dwell_time_us": 12.0}, POINT).electrons > 1.9 * stay.electrons
    assert forecast({**POINT, "x_nm": 6.0}, POINT).electrons == stay.electrons
