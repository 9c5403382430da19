"""Every field of every command that names an axis, against an axis that is elsewhere, fixed, read only or not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from instruments import AcquireFrame, Axis, Capabilities, CommandRefused, Park, SetAxes, Unsupported
from instruments.axes import axis_values
from tests.unit.instruments.envelope_bench import CARD, Bench, frame, guard

NUMBERS = {
    "beam_energy_ev": 80e3, "semi_convergence_angle_mrad": 12.0, "probe_current_pa": 70.0, "camera_length_mm": 90.0,
    "field_of_view_nm": 20.0, "dwell_time_us": 7.0, "subframe_count": 3,
}  # fmt: skip
"""What is asked for where 5 would be none; the bench stands at 200 keV, 20 mrad and 50 pA."""
OF_EACH_FRAME = {"semi_convergence_angle_mrad", "probe_current_pa"}
DERIVED = {"pixel_size_nm": ("field_of_view_nm", 20.0), "frame_px": ("subframe_count", 3)}
"""What follows from another field."""


def frame_with(name: str, value: float) -> AcquireFrame:
    """The bench's frame, one field of it changed; an azimuth with an aberration."""
    plain = frame()
    record = plain.model_dump()
    if name.startswith("phi"):
        record["optics"]["aberrations"][f"c{name[3:5]}_nm"] = 1.0
    for part in (record["stage"], record["optics"], record["optics"]["aberrations"], record["scan"], record):
        if name in part:
            part[name] = value
    return AcquireFrame.model_validate(record)


def fields_of_a_frame() -> list[str]:
    """Every name of `axis_values` of a frame that says everything, but those that follow from others."""
    everything = frame_with("camera_length_mm", 90.0)
    return sorted(axis_values(everything).keys() - DERIVED.keys())


def with_axis(axis: Axis | None, name: str) -> Capabilities:
    """The bench's card with this axis in place of what it has of that name, and all that a frame can set besides."""
    free = {one: Axis(name=one, minimum=-1e9, maximum=1e9) for one in fields_of_a_frame()}
    free |= {one.name: one for one in CARD.axes}
    free.pop(name, None)
    return CARD.model_copy(update={"axes": (*free.values(), *([] if axis is None else [axis]))})


def asked() -> dict[str, tuple[AcquireFrame, float]]:
    """Axis -> a frame that asks for something of it, and what."""
    frames = {name: frame_with(name, NUMBERS.get(name, 5.0)) for name in fields_of_a_frame()}
    frames |= {name: frame_with(field, value) for name, (field, value) in DERIVED.items()}
    values = {name: axis_values(command).get(name, 300.0) for name, command in frames.items()}  # 3 sub-frames of 100 px
    return {name: (frames[name], float(values[name])) for name in frames}


def refusal(command: Any, card: Capabilities) -> str | None:
    """What the guard says of it; None: it reached the adapter."""
    bench = Bench(card=card)
    guarded = guard(bench)
    try:
        guarded.acquire(command) if isinstance(command, AcquireFrame) else guarded.execute(command)
    except (CommandRefused, Unsupported) as error:
        assert bench.told == []
        return str(error)
    return None


def not_refused(make: Callable[[str, float], Axis | None], words: Callable[[str, float], list[str]]) -> list[str]:
    """Axes of which a frame asked for what the one made here cannot be at, and was not told so in these words."""
    found = {
        name: (refusal(command, with_axis(make(name, value), name)), value)
        for name, (command, value) in asked().items()
    }
    return [
        f"{name} = {value:g}: {said}"
        for name, (said, value) in found.items()
        if said is None or not all(word in said for word in (name, *words(name, value)))
    ]


def test_a_frame_asks_nothing_of_an_axis_that_is_fixed_elsewhere() -> None:
    def fixed(name: str, value: float) -> Axis:
        return Axis(name=name, minimum=value * 2, maximum=value * 2)

    assert not_refused(fixed, lambda _, value: [f"{value:.6g}", f"{value * 2:.6g}", "fixed"]) == []


def test_a_frame_asks_nothing_beyond_the_range_of_an_axis() -> None:
    def low(name: str, value: float) -> Axis:
        return Axis(name=name, minimum=value / 4, maximum=value / 2)

    assert not_refused(low, lambda _, value: [f"{value:.6g}", f"{value / 4:g}", f"{value / 2:g}"]) == []


def test_a_frame_asks_nothing_of_an_axis_with_one_other_choice() -> None:
    def chosen(name: str, value: float) -> Axis:
        return Axis(name=name, choices=(f"{value * 2:g}",))

    assert not_refused(chosen, lambda _, value: [f"{value:.6g}", f"{value * 2:g}"]) == []


def test_a_frame_asks_nothing_of_an_axis_that_can_only_be_read() -> None:
    """A current that flows more than is commanded is told of apart; of less, the books are right."""

    def read(name: str, value: float) -> Axis:
        return Axis(name=name, minimum=-1e9, maximum=1e9, read_only=True)

    said = not_refused(read, lambda _, value: [f"{value:.6g}"])
    assert said == ["probe_current_pa = 70: None"]
    less = frame_with("probe_current_pa", 40.0)
    assert "40 is less than the 50 pA that flow" in (
        refusal(less, with_axis(read("probe_current_pa", 40.0), "probe_current_pa")) or ""
    )


def test_a_frame_asks_nothing_of_an_axis_that_is_not_there() -> None:
    """But for what every frame has to say: without an axis nobody limits it."""
    said = not_refused(lambda _, __: None, lambda _, value: [f"{value:.6g}"])
    of_each_frame = {"semi_convergence_angle_mrad", "probe_current_pa", "field_of_view_nm", "pixel_size_nm", "frame_px"}
    of_each_frame |= {"dwell_time_us", "subframe_count"}
    assert {line.partition(" ")[0] for line in said} == of_each_frame


def test_every_frame_asks_for_what_the_instrument_can() -> None:
    said = {
        name: refusal(command, with_axis(Axis(name=name, minimum=value, maximum=value), name))
        for name, (command, value) in asked().items()
    }
    assert {name: text for name, text in said.items() if text is not None} == {}


def test_what_means_nothing_here_is_no_fault() -> None:
    lone = frame_with("phi12_deg", 30.0)
    lone = lone.model_copy(
        update={
            "optics": frame().optics.model_copy(
                update={"aberrations": frame().optics.aberrations.model_copy(update={"phi12_deg": 30.0})}
            )
        }
    )
    assert refusal(lone, with_axis(None, "phi12_deg")) is None
    dark = with_axis(None, "beam_energy_ev").model_copy(update={"has_beam": False})
    assert refusal(frame_with("beam_energy_ev", 80e3), dark) is None
    at_once = frame("camera", flyback_time_us=9.0)
    assert refusal(at_once, with_axis(None, "flyback_time_us").model_copy(update={"has_beam": False})) is None


@pytest.mark.parametrize("name", ["beam_shift_x_nm", "beam_shift_y_nm", "park_s"])
def test_a_park_asks_for_what_the_axes_can(name: str) -> None:
    park = Park.model_validate({"action_id": "p", "duration_s" if name == "park_s" else name: 5.0})
    assert "outside -1 to 3" in (refusal(park, with_axis(Axis(name=name, minimum=-1, maximum=3), name)) or "")
    absent = refusal(park, with_axis(None, name))
    assert absent is None if name == "park_s" else f"no axis for {name} 5 nm" in (absent or "")


@pytest.mark.parametrize(
    "axis", [None, {"read_only": True}, {"minimum": 4.0, "maximum": 4.0}, {"choices": ("4",)}], ids=str
)
def test_axes_are_set_to_what_they_can(axis: dict[str, Any] | None) -> None:
    through = [
        name
        for name in [*fields_of_a_frame(), "screen", "holder.bias_v", "c10_nm"]
        if refusal(
            SetAxes(action_id="s", values={name: 5.0}),
            with_axis(None if axis is None else Axis(name=name, **axis), name),
        )
        is None
    ]
    assert through == []
