"""Whether the electrons and the dose that a frame tells of are those that its current and its time give.

Neighbour: `exposures`, whose check `metadata` asks.
"""

from __future__ import annotations

from math import cos, pi, radians
from typing import Final

from instruments.commands import AcquireFrame
from instruments.conformance.bench import Bench
from instruments.conformance.findings import Measured
from instruments.frames import Frame
from instruments.guards import worst_charge
from instruments.units import electrons

_TOLERANCE: Final = 0.05


def doses(bench: Bench, frame: Frame) -> list[Measured]:
    """Electrons against current and time; mean dose against electrons and area. None where nothing burns."""
    capabilities, command = bench.capabilities, frame.requested
    worst = worst_charge(command, capabilities)
    if worst.electrons == 0:
        return []
    uncertainty = capabilities.current_uncertainty_fraction
    current_pa = _least_pa(frame, uncertainty)
    least = electrons(current_pa, command.scan.beam_on_s(command.subframe_count))
    return [
        Measured(
            name="electrons over the most that were planned", value=frame.electrons / worst.electrons,
            low=(1 - _TOLERANCE) * least / worst.electrons, high=1 + _TOLERANCE,
        ),
        Measured(
            name="dose times area over electrons",
            value=frame.dose_e_per_a2 * command.scan.area_nm2 * 100.0 / max(frame.electrons, 1e-12),
            low=(1 - _TOLERANCE) * _least_on_the_field(command, capabilities.blanker_settle_s), high=1 + _TOLERANCE,
        ),
    ]  # fmt: skip


def _least_pa(frame: Frame, uncertainty_fraction: float) -> float:
    """The smallest current that the frame's own words leave room for: as commanded, or as measured if that is less."""
    commanded_pa = frame.requested.optics.probe_current_pa * (1 - uncertainty_fraction)
    measured_pa = frame.state.measured_current_pa
    return commanded_pa if measured_pa is None else min(commanded_pa, measured_pa)


def _least_on_the_field(command: AcquireFrame, settle_s: float) -> float:
    """The smallest part of the electrons that falls on the field: some fly back, settle, or light a larger disc.

    A specimen that is tilted has more area under the field.
    """
    scan, stage = command.scan, command.stage
    tilted = cos(radians(stage.alpha_deg)) * cos(radians(stage.beta_deg))
    if scan.at_once:
        lit_nm2 = max(scan.area_nm2, pi / 4 * (scan.illuminated_nm or 0.0) ** 2)
        return tilted * scan.area_nm2 / lit_nm2
    count = command.subframe_count
    return tilted * scan.beam_on_s(count) / (scan.duration_s(count) + settle_s)
