"""The envelope narrows and never widens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from instruments import ConfigurationError, SafetyEnvelope
from instruments.limits import NUMBERS

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
    with pytest.raises(ValidationError, match=f"min_{axis} 5 nm is above max_{axis} 1 nm.*swap them"):
        SafetyEnvelope.model_validate({f"min_{axis}": 5.0, f"max_{axis}": 1.0})


@pytest.mark.parametrize(
    ("facility", "experiment", "words"),
    [
        (
            {"min_stage_x_nm": 0, "max_stage_x_nm": 1e4}, {"min_stage_x_nm": 2e4, "max_stage_x_nm": 3e4},
            ("the experiment's min_stage_x_nm 20000 nm is above the facility's max_stage_x_nm 10000 nm, which leaves "
             "no x_nm; give the experiment min_stage_x_nm of at most 10000 nm"),
        ),
        (
            {"min_stage_x_nm": 2e4}, {"max_stage_x_nm": 1e4},
            ("the facility's min_stage_x_nm 20000 nm is above the experiment's max_stage_x_nm 10000 nm, which leaves "
             "no x_nm; give the experiment max_stage_x_nm of at least 20000 nm"),
        ),
        (
            {"axes": {"x_nm": {"maximum": 10}}}, {"axes": {"x_nm": {"minimum": 20}}},
            "give the experiment axes.x_nm.minimum of at most 10 nm",
        ),
        (
            {"max_current_pa": 50}, {"axes": {"probe_current_pa": {"minimum": 60}}},
            "the experiment's axes.probe_current_pa.minimum 60 pA is above the facility's max_current_pa 50 pA",
        ),
        (
            {"max_stage_tilt_deg": 30}, {"axes": {"alpha_deg": {"maximum": -40}}},
            "the facility's -max_stage_tilt_deg -30 deg is above the experiment's axes.alpha_deg.maximum -40 deg",
        ),
        (
            {"max_defocus_nm": 30}, {"axes": {"c10_nm": {"maximum": -40}}},
            "the facility's -max_defocus_nm -30 nm is above the experiment's axes.c10_nm.maximum -40 nm",
        ),
        (
            {"pole_piece": [{"max_alpha_deg": 20, "max_y_nm": 100}, {"max_alpha_deg": 60, "max_y_nm": 10}]},
            {"min_stage_y_nm": 200},
            "the experiment's min_stage_y_nm 200 nm is above the facility's pole_piece.0 y_nm 100 nm",
        ),
    ],
)  # fmt: skip
def test_limits_that_together_allow_nothing_are_named_with_their_values_and_the_cure(
    facility: dict[str, Any], experiment: dict[str, Any], words: str
) -> None:
    ours, theirs = SafetyEnvelope.model_validate(facility), SafetyEnvelope.model_validate(experiment)
    with pytest.raises(ConfigurationError) as raised:
        ours.narrowed_by(theirs)
    assert "allow nothing" in str(raised.value)
    assert words in str(raised.value)


def test_limits_that_leave_one_place_are_limits() -> None:
    narrowed = SafetyEnvelope(max_stage_x_nm=10).narrowed_by(SafetyEnvelope(min_stage_x_nm=10))
    assert (narrowed.min_stage_x_nm, narrowed.max_stage_x_nm) == (10, 10)
    two_rows = [{"max_alpha_deg": 20, "max_y_nm": 100}, {"max_alpha_deg": 60, "max_y_nm": 300}]
    facility = SafetyEnvelope.model_validate({"pole_piece": two_rows})
    assert facility.narrowed_by(SafetyEnvelope(min_stage_y_nm=200)).min_stage_y_nm == 200  # the second row holds it


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_current_pa": 50, "axes": {"probe_current_pa": {"minimum": 60}}}, "correct one of them"),
        ({"pole_piece": [{"max_alpha_deg": 20, "min_x_nm": 9, "max_x_nm": -9}]}, "min_x_nm 9 is above max_x_nm -9"),
    ],
)
def test_limits_of_one_file_that_contradict_one_another_are_refused(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SafetyEnvelope.model_validate(limits)


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
