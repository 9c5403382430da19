"""An instrument that can only look where it stands runs what it can of an experiment that searches a field."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from instruments import SafetyEnvelope
from orchestrator import loop
from orchestrator.memory_record import MemoryRecord
from orchestrator.settings import InstrumentSettings
from orchestrator.spec import ExperimentSpec
from workflows.assembly import join, make_policy, prepare

HERE = Path(__file__).resolve()
EXAMPLE = HERE.parents[2] / "examples" / "plugin_instrument"
ANYWHERE = HERE.parent / "instruments" / "anywhere.yaml"
ITS_BEAM = {
    "instrument.optics.semi_convergence_angle_mrad": 25.0,
    "instrument.fixed.dwell_time_us": 5.0,
}


def test_without_a_stage_the_same_place_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    open_dotted_film = import_module("dotted_film_adapter").open_dotted_film
    spec = ExperimentSpec.from_yaml(ANYWHERE, ITS_BEAM)
    settings = InstrumentSettings(adapter="simulated", safety=SafetyEnvelope())
    parts = prepare(spec, 3, settings, None, lambda adapter, config: open_dotted_film(reach_nm=0.0))
    assert parts.out_of_reach == ("bench has no stage: x_nm stays at 0 nm", "bench has no stage: y_nm stays at 0 nm")
    record = MemoryRecord("here")
    policy = make_policy(parts, spec.policy.name, spec.policy.options)
    experiment = join(parts, policy, record, lambda kind, payload: None)
    assert loop.run(experiment).reason == "budget spent: 4 of 4 frames"
    assert [decision.point for decision in record.decisions] == [{"x_nm": 0.0, "y_nm": 0.0}] * 4
    assert experiment.objective.summary()["brightness"]["counts_per_px"] > 0
    parts.microscope.stop()
