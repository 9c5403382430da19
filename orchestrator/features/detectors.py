"""What features need of a frame's detectors: raw counts, angles, electrons; and a clear refusal where they lack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from instruments.capabilities import Detector
from instruments.frames import Frame
from instruments.optics import Coherence, Optics
from instruments.units import ANGSTROM2_PER_NM2, electrons
from orchestrator.features.errors import FeatureError, NormalisedCounts


@dataclass(frozen=True, slots=True)
class RingCounts:
    """Counts of one annular detector in electrons, (sub-frames, rows, columns), and its angles."""

    name: str
    inner_mrad: float
    outer_mrad: float
    counts: np.ndarray


def ring_counts(frame: Frame) -> list[RingCounts]:
    """Every annular detector of the frame that was read out.

    Raises NormalisedCounts where a detector says its counts are not raw, or the numbers are not whole; FeatureError
    where there is no annular detector.
    """
    found = [
        _counts(frame, detector)
        for detector in frame.mode.detectors
        if detector.name in frame.counts and detector.outer_mrad is not None and not frame.has_patterns(detector.name)
    ]
    if not found:
        raise FeatureError(
            f"frame {frame.action_id}: mode {frame.mode.name!r} has no annular detector with known angles; "
            "give inner_mrad and outer_mrad in the instrument's capabilities"
        )
    return found


def _counts(frame: Frame, detector: Detector) -> RingCounts:
    values = frame.counts[detector.name]
    if not detector.raw_counts or values.dtype.kind not in "ui":
        why = "declares raw_counts false" if not detector.raw_counts else f"delivers {values.dtype}"
        raise NormalisedCounts(
            f"frame {frame.action_id}: detector {detector.name!r} {why}; Poisson statistics need raw counts: "
            "record counts, or use describe_normalised, which gives no probabilities"
        )
    gain = detector.gain_counts_per_electron
    if gain not in (None, 1.0) or detector.offset_counts:
        values = np.maximum((values.astype(np.float32) - detector.offset_counts) / (gain or 1.0), 0)
    assert detector.outer_mrad is not None
    return RingCounts(detector.name, detector.inner_mrad or 0.0, detector.outer_mrad, values)


def dark_field(rings: list[RingCounts], semi_convergence_angle_mrad: float) -> int | None:
    """Which detector sees only scattered electrons: the one of largest outer angle, None where there is none."""
    dark = [number for number, ring in enumerate(rings) if ring.inner_mrad >= semi_convergence_angle_mrad]
    return max(dark, key=lambda number: rings[number].outer_mrad) if dark else None


def electrons_per_px(frame: Frame) -> float:
    """Electrons on one pixel, all sub-frames: from the measured current and the dwell time, where there is one.

    The dose of the frame also holds what fell on the area while the beam flew back.
    """
    current_pa = frame.state.measured_current_pa
    if current_pa:
        return electrons(current_pa, frame.requested.scan.dwell_time_us * 1e-6 * frame.requested.subframe_count)
    return frame.dose_e_per_a2 * ANGSTROM2_PER_NM2 * frame.pixel_size_nm**2


def believed(frame: Frame, coherence: Callable[[Optics], Coherence] | None) -> tuple[Optics, Coherence]:
    """Optics and coherence as read back; a coherence that the microscope cannot tell comes from the rule given."""
    optics = frame.state.optics
    if frame.state.coherence is not None:
        return optics, frame.state.coherence
    return optics, coherence(optics) if coherence is not None else Coherence()


def centre_nm(frame: Frame) -> np.ndarray:
    """Nominal specimen coordinates (x, y) of the frame's centre: stage plus beam shift, as commanded."""
    command = frame.requested
    return np.array(
        [command.stage.x_nm + command.scan.beam_shift_x_nm, command.stage.y_nm + command.scan.beam_shift_y_nm]
    )
