"""The envelope narrows and never widens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from instruments import ConfigurationError, SafetyEnvelope
from instruments.limits import NUMBERS, AxisLimit

NAMES = sorted(NUMBERS)
MINIMA = [name for name in NAMES if name.startswith("min_")]


@st.composite
def envelopes(draw: st.DrawFn) -> SafetyEnvelope:
    limits: dict[str, Any] = {}
    for name in NAMES:
        if draw(st.booleans()):
            value = draw(st.floats(1, 100))
            limits[name] = -value if name in MINIMA else value
    return SafetyEnvelope(**limits)


@settings(max_examples=40)
@given(envelopes(), envelopes())
def test_the_narrowed_envelope_is_inside_both_or_there_is_an_error(
    facility: SafetyEnvelope, wanted: SafetyEnvelope
) -> None:
    wider = [
        name
        for name in NAMES
        if getattr(facility, name) is not None
        and getattr(wanted, name) is not None
        and abs(getattr(wanted, name)) > abs(getattr(facility, name))
    ]
    if wider:
        with pytest.raises(ConfigurationError, match=r"safety\.\w+: .* is wider than the facility's"):
            facility.narrowed_by(wanted)
        return
    narrowed = facility.narrowed_by(wanted)
    for name in NAMES:
        given_limits = [abs(v) for v in (getattr(facility, name), getattr(wanted, name)) if v is not None]
        result = getattr(narrowed, name)
        assert (result is None) == (not given_limits)
        if result is not None:
            assert abs(result) == min(given_limits)
    assert narrowed.narrowed_by(narrowed) == narrowed
    assert facility.narrowed_by(SafetyEnvelope()) == facility


@pytest.mark.parametrize("axis", ["stage_x_nm", "stage_y_nm", "defocus_nm"])
def test_bounds_the_wrong_way_round_are_refused(axis: str) -> None:
    with pytest.raises(ValidationError, match=f"min_{axis} 5.0 is not below max_{axis} 1.0"):
        SafetyEnvelope.model_validate({f"min_{axis}": 5.0, f"max_{axis}": 1.0})


def test_narrowing_to_nothing_is_an_error() -> None:
    facility = SafetyEnvelope(max_stage_x_nm=10)
    with pytest.raises(ConfigurationError, match=r"allow nothing.*stage_x_nm"):
        facility.narrowed_by(SafetyEnvelope(min_stage_x_nm=20))
    facility = SafetyEnvelope(axes={"x_nm": AxisLimit(maximum=10)})
    with pytest.raises(ConfigurationError, match=r"axes\.x_nm.*allow nothing"):
        facility.narrowed_by(SafetyEnvelope(axes={"x_nm": AxisLimit(minimum=20)}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_limits_must_be_positive_and_finite(value: float) -> None:
    with pytest.raises(ValidationError):
        SafetyEnvelope(max_current_pa=value)


def test_an_unknown_limit_is_refused_and_nothing_can_be_changed() -> None:
    with pytest.raises(ValidationError, match="max_voltage"):
        SafetyEnvelope.model_validate({"max_voltage": 1})
    envelope = SafetyEnvelope(max_current_pa=10)
    with pytest.raises(ValidationError, match="frozen"):
        envelope.max_current_pa = 20
