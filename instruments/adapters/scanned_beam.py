"""Whether a scan had the beam on for as long as it says: neither longer than its dose, nor too short to be a scan.

Neighbours: `pyjem`, `autoscript`.
"""

from __future__ import annotations

from instruments.adapters.makers_config import MakersConfig
from instruments.commands import AcquireFrame
from instruments.errors import AcquisitionFailed, InstrumentFault


def check_beam_on(command: AcquireFrame, beam_on_s: float, config: MakersConfig) -> None:
    """Raise InstrumentFault for a beam on for longer than was counted, AcquisitionFailed for an answer too quick."""
    scan_s = command.scan.duration_s(command.subframe_count)
    counted_s = scan_s + config.beam_overhead_s
    if beam_on_s > counted_s:
        raise InstrumentFault(
            f"in {command.action_id} the beam was on for {beam_on_s:.3g} s, {counted_s:.3g} s were counted "
            "as its dose; raise beam_overhead_s in the configuration"
        )
    if beam_on_s < config.least_duration_fraction * scan_s:
        raise AcquisitionFailed(
            f"an image came after {beam_on_s:.3g} s, a scan with these dwell times takes {scan_s:.3g} s: it is none "
            "of them; see whether the dwell time was taken, and least_duration_fraction"
        )
