"""A search space on instruments that cannot go everywhere: what is left of it, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instruments import Axis, Capabilities, Detector, Mode
from orchestrator.errors import SpecError
from orchestrator.spec import ExperimentSpec
from workflows.reach import Reach, within_reach

SPEC = Path(__file__).parents[2] / "integration" / "instruments" / "anywhere.yaml"
ADF = Detector(name="adf", without_references="nobody measured them")
WIDE = {"low": -60, "high": 60}


def reach(card: tuple[Axis, ...], **space: dict[str, Any]) -> Reach:
    spec = ExperimentSpec.from_yaml(SPEC).model_copy(update={"search_space": space})
    mode = Mode(name="stem", detectors=(ADF,))
    return within_reach(spec, Capabilities(name="bench", simulated=False, axes=card, modes=(mode,)))


def both(name: str, limit_nm: float) -> tuple[Axis, ...]:
    return tuple(Axis(name=name.replace("x_nm", f"{way}_nm"), minimum=-limit_nm, maximum=limit_nm) for way in "xy")


def test_a_stage_or_far_shifts_leave_it_as_it_is() -> None:
    for card in (both("x_nm", 1e5), both("beam_shift_x_nm", 60)):
        found = reach(card, x_nm=WIDE, y_nm={"choices": [0, 5]})
        assert (found.spec.search_space, found.notes) == ({"x_nm": WIDE, "y_nm": {"choices": [0, 5]}}, ())


def test_without_a_stage_it_ends_where_the_beam_cannot_be_shifted() -> None:
    found = reach(both("beam_shift_x_nm", 20), x_nm={"low": -60, "high": 5, "resolution": 0.5}, y_nm=WIDE)
    left = {"x_nm": {"low": -20, "high": 5, "resolution": 0.5}, "y_nm": {"low": -20, "high": 20}}
    assert found.spec.search_space == left
    assert found.notes[0] == (
        "bench has no stage: x_nm is searched from -20 to 5 nm, as far as the beam can be shifted"
    )
    assert reach(both("beam_shift_x_nm", 20), x_nm={"choices": [-50, 10]}).spec.search_space == {
        "x_nm": {"choices": [10]}
    }


def test_where_nothing_moves_it_stays() -> None:
    one_sided = (Axis(name="x_nm", minimum=-5, maximum=5, read_only=True), *both("beam_shift_x_nm", 20)[:1])
    for card in ((), both("x_nm", 0), one_sided):
        found = reach(card, x_nm=WIDE, y_nm=WIDE, dwell_time_us={"low": 1, "high": 9})
        assert found.spec.search_space == {
            "x_nm": {"choices": [0]}, "y_nm": {"choices": [0]}, "dwell_time_us": {"low": 1, "high": 9}
        }  # fmt: skip
        assert found.notes == ("bench has no stage: x_nm stays at 0 nm", "bench has no stage: y_nm stays at 0 nm")


def test_what_cannot_be_is_refused_with_every_fault() -> None:
    with pytest.raises(SpecError) as refused:
        reach((), x_nm={"low": 10, "high": 60}, y_nm={"choices": [7, 9]}, defocus_nm={"low": -5, "high": 5})
    for words in (
        "search_space.x_nm: 10 to 60 nm has nothing within 0 nm of 0", "search_space.y_nm: none of [7, 9]",
        "search_space.defocus_nm: instrument 'bench' cannot change it", "instrument.fixed",
    ):  # fmt: skip
        assert words in str(refused.value)
