"""A frame as it was really taken: with which current, where, how wide; neighbour: `guards` books it so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Final

from instruments.beam_knowledge import LIT_AXIS
from instruments.book_entries import ExtraDebit, Region
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame
from instruments.events import EventKind
from instruments.exposure_checks import Charge
from instruments.footprints import Lit, exposed
from instruments.frames import Frame
from instruments.regions import Box, half_extent_nm
from instruments.whereabouts import displaced, taken_at

_ROUNDING: Final = 1e-6
_PLACES: Final = frozenset(("x_nm", "y_nm", "beam_shift_x_nm", "beam_shift_y_nm"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was read back of a frame, against what it was booked with.

    `electrons`: what to correct the books to, None: leave the worst case. `off`: axis -> (asked for, found). `lit`: how
    it was lit where that was thinner than booked.
    """

    command: AcquireFrame
    frame: Frame
    electrons: float | None
    off: Mapping[str, tuple[float, float]]
    lit: Lit | None
    findings: tuple[tuple[EventKind, str], ...]

    @classmethod
    def of(cls, command: AcquireFrame, charge: Charge, frame: Frame, card: Capabilities) -> Taken:
        """From what the frame's own state says."""
        measured_pa = frame.state.measured_current_pa
        is_told = card.reports_dose and 0 <= frame.electrons < inf
        if is_told and charge.factor > 1 and measured_pa is None:  # it counted with what was commanded
            frame = replace(
                frame, electrons=frame.electrons * charge.factor, dose_e_per_a2=frame.dose_e_per_a2 * charge.factor
            )
        off, lit = displaced(command, frame.state, card), _thinner(command, charge, frame)
        return cls(
            command=command,
            frame=frame,
            electrons=_corrected(frame.electrons if is_told else None, charge, measured_pa),
            off=off,
            lit=lit,
            findings=tuple(_findings(off, lit, charge, measured_pa)),
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether other cells were lit than those booked, and it is known which."""
        return bool(_PLACES & self.off.keys()) and all(isfinite(found) for _, found in self.off.values())

    def debit_elsewhere(self, charge: Charge) -> ExtraDebit | None:
        """What to book besides: where it was taken, as thin as it was lit; None where it was taken as commanded."""
        if charge.electrons <= 0 or not (self.is_elsewhere or self.lit is not None):
            return None
        really = taken_at(self.command, self.off) if self.is_elsewhere else self.command
        lit = self.lit or charge.lit
        marks, factor = exposed(really.stage, really.scan, lit)
        widest_nm = (lit.widest_nm if lit is not None else really.scan.illuminated_nm) or 0.0
        scan = really.scan
        here = Box.at(really.stage.x_nm + scan.beam_shift_x_nm, really.stage.y_nm + scan.beam_shift_y_nm)
        box = here.grown(*half_extent_nm(scan, widest_nm))
        return ExtraDebit(
            reason=f"frame {self.command.action_id}: {'; '.join(message for _, message in self.findings)}",
            region=Region.of(box, float(marks.overlap_nm2.sum()) / factor),
            electrons=charge.electrons if self.electrons is None else self.electrons,
            is_counted=False,
        )


def _findings(
    off: Mapping[str, tuple[float, float]], lit: Lit | None, charge: Charge, measured_pa: float | None
) -> Iterator[tuple[EventKind, str]]:
    """What differs, in words."""
    if off:
        where = ", ".join(f"{name} {found:.6g} instead of {asked:.6g}" for name, (asked, found) in off.items())
        yield "taken_elsewhere", f"it was taken at {where}"
    if lit is not None:
        yield "taken_elsewhere", f"it was lit over {lit.least_nm2:.6g} nm2 alone"
    if _is_more(measured_pa, charge):
        yield "more_current", f"{measured_pa:.6g} pA were measured, {charge.current_pa:.6g} pA at most were booked"


def _corrected(told: float | None, charge: Charge, measured_pa: float | None) -> float | None:
    """What to correct the books to: as told, but no less than a higher current makes of the worst case."""
    if measured_pa is None or not _is_more(measured_pa, charge):
        return told
    return max(charge.electrons * measured_pa / charge.current_pa, told or 0.0)


def _is_more(measured_pa: float | None, charge: Charge) -> bool:
    return measured_pa is not None and 0 < charge.current_pa * (1 + _ROUNDING) < measured_pa < inf


def _thinner(command: AcquireFrame, charge: Charge, frame: Frame) -> Lit | None:
    """How it was lit, where the instrument read back a narrower beam than was booked."""
    read_nm = frame.state.axis_value(LIT_AXIS) if command.scan.at_once else None
    if not isinstance(read_nm, float | int) or not 0 < read_nm < inf:
        return None
    lit = Lit.between(command.scan, [read_nm])
    booked_nm2 = charge.lit.least_nm2 if charge.lit is not None else None
    if lit is None or (booked_nm2 is not None and lit.least_nm2 >= booked_nm2 * (1 - _ROUNDING)):
        return None
    return lit
