"""Devices of tests run on this computer, so whatever clock a frame tells of is ours, within what it says."""

from __future__ import annotations

from instruments import Frame


def assert_ours(frame: Frame, device: str, within_s: float) -> None:
    """The offset of this device's clock contains 0, and is known to `within_s`."""
    column = frame.state.column
    assert column is not None
    clock = column.clocks[device]
    assert abs(clock.offset_s) <= clock.uncertainty_s + 0.01, clock
    assert clock.uncertainty_s < within_s, clock
