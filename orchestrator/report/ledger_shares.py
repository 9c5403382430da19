"""Where the electrons went: the frames' own dose by purpose, flyback and the settling blanker apart."""

from __future__ import annotations

from collections.abc import Sequence

from instruments.units import ANGSTROM2_PER_NM2

from orchestrator.report.report_data import LedgerShare, ReportFrame

_ORDER = ("survey", "focus", "field", "revisit")


def ledger_shares(frames: Sequence[ReportFrame], flyback_time_us: float, *, total_electrons: float) -> tuple[LedgerShare, ...]:
    """Shares that add up to `total_electrons`.

    A frame's dose covers its raster, flyback included; flyback takes its part of the time of a line, and what the
    frame counts beyond its raster fell on the first pixel while the blanker settled. What the ledger holds beyond all
    frames (parking, exposures without a frame) is `no frame`; it may be slightly negative by rounding.
    """
    pixels: dict[str, float] = {}
    count: dict[str, int] = {}
    flyback = settling = 0.0
    for frame in frames:
        raster = frame.dose_e_per_a2 * frame.width_nm * frame.height_nm * ANGSTROM2_PER_NM2
        line_us = frame.width_nm / frame.pixel_size_nm * frame.dwell_time_us
        back = raster * flyback_time_us / (line_us + flyback_time_us)
        pixels[frame.purpose] = pixels.get(frame.purpose, 0.0) + raster - back
        count[frame.purpose] = count.get(frame.purpose, 0) + 1
        flyback += back
        settling += frame.electrons - raster
    known = [name for name in _ORDER if name in pixels] + sorted(set(pixels) - set(_ORDER))
    shares = [LedgerShare(purpose=name, electrons=pixels[name], frame_count=count[name]) for name in known]
    shares.append(LedgerShare(purpose="flyback", electrons=flyback))
    shares.append(LedgerShare(purpose="settling", electrons=settling))
    rest = total_electrons - sum(share.electrons for share in shares)
    if abs(rest) > 1e-6 * max(total_electrons, 1.0):
        shares.append(LedgerShare(purpose="no frame", electrons=rest))
    return tuple(shares)
