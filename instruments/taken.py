"""A frame as it was really taken: with which current, where, how wide; neighbour: `guards` books it so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, prod
from typing import Final

from instruments.beam_knowledge import LIT_AXIS
from instruments.book_entries import ExtraDebit, Region
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame
from instruments.errors import InstrumentFault
from instruments.events import EventKind
from instruments.exposure_checks import Charge
from instruments.frames import Frame
from instruments.illumination import Lit, exposed, height_above_nm, reach_on_tilted_nm
from instruments.regions import Box
from instruments.scans import ScanPattern, StagePosition
from instruments.units import ANGSTROM2_PER_NM2, electrons
from instruments.whereabouts import displaced, taken_at

_ROUNDING: Final = 1e-6
_TURNED_DEG: Final = 0.01
_PLACES: Final = frozenset(("x_nm", "y_nm", "beam_shift_x_nm", "beam_shift_y_nm"))
_LEANING: Final = frozenset(("z_nm", "alpha_deg", "beta_deg"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was read back of a frame, against what it was booked with.

    `electrons`: what to correct the books to, None: leave the worst case. `off`: axis -> (asked for, found). `lit`: how
    it was lit where that was thinner than booked. `scan`: the raster that came, where it is another than was asked for.
    `height_nm`: how far from the tilt axis the specimen was booked to lie at most.
    """

    command: AcquireFrame
    frame: Frame
    electrons: float | None
    off: Mapping[str, tuple[float, float]]
    lit: Lit | None
    scan: ScanPattern | None
    height_nm: float | None
    findings: tuple[tuple[EventKind, str], ...]

    @classmethod
    def of(
        cls, command: AcquireFrame, charge: Charge, frame: Frame, card: Capabilities, measured_pa: float | None
    ) -> Taken:
        """From what the frame's own state says; `measured_pa` is the current that was measured for it."""
        is_told = card.reports_dose and 0 <= frame.electrons < inf
        booked = _corrected(command, frame.electrons if is_told else None, charge, measured_pa)
        if charge.factor > 1 or _is_more(measured_pa, charge):
            frame = _counting(frame, charge.electrons if booked is None else booked)
        off, lit = displaced(command, frame.state, card), _thinner(command, charge, frame)
        scan = raster_taken(command, frame, card) if card.has_beam else None
        return cls(
            command=command,
            frame=frame,
            electrons=booked,
            off=off,
            lit=lit,
            scan=scan,
            height_nm=charge.height_nm,
            findings=tuple(_findings(command.scan, off, lit, scan, charge, measured_pa)),
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether other cells were lit than those booked, and it is known which."""
        is_known = all(isfinite(found) for _, found in self.off.values())
        return is_known and (bool(_PLACES & self.off.keys()) or self._leans_further())

    def _leans_further(self) -> bool:
        """Whether the specimen was tilted more, or further off the axis, than the books reach."""
        if not _LEANING & self.off.keys():
            return False
        found, asked = taken_at(self.command, self.off), self.command
        return self._reach_nm(found.stage, asked.scan)[0] > self._reach_nm(asked.stage, asked.scan)[0]

    def _reach_nm(self, stage: StagePosition, scan: ScanPattern) -> tuple[float, float]:
        """How far from its middle a frame may have lit, with the specimen as far off the tilt axis as it stood."""
        asked = self.command.stage
        height_nm = height_above_nm(asked) if self.height_nm is None else self.height_nm
        return reach_on_tilted_nm(stage, scan, height_nm + abs(stage.z_nm - asked.z_nm))

    def debit_elsewhere(self, charge: Charge) -> ExtraDebit | None:
        """What to book besides: where it was taken, as thin as it was lit; None where it was taken as commanded."""
        if charge.electrons <= 0 or not (self.is_elsewhere or self.lit is not None or self.scan is not None):
            return None
        really = taken_at(self.command, self.off) if self.is_elsewhere else self.command
        asked = really.scan  # a smaller raster may lie anywhere in the field that was asked for
        if self.scan is not None:
            really = really.model_copy(update={"scan": _as_wide_as(self.scan, asked)})
        lit, scan = self.lit or charge.lit, really.scan
        marks, factor = exposed(really.stage, scan, lit, self.height_nm)
        least_nm2 = marks.area_nm2 / factor
        amount = charge.electrons if self.electrons is None else self.electrons
        widest_nm = lit.widest_nm if lit is not None else scan.illuminated_nm
        reach_nm = self._reach_nm(really.stage, scan.model_copy(update={"illuminated_nm": widest_nm}))
        asked_nm = self._reach_nm(really.stage, asked.model_copy(update={"illuminated_nm": None}))
        if not self.is_elsewhere and self.lit is None and reach_nm[0] <= asked_nm[0] and reach_nm[1] <= asked_nm[1]:
            amount *= 1 - least_nm2 / _least_nm2(self.command, charge)  # what is denser than was booked there
        here = Box.at(really.stage.x_nm + scan.beam_shift_x_nm, really.stage.y_nm + scan.beam_shift_y_nm)
        if amount <= 0:
            return None
        return ExtraDebit(
            reason=f"frame {self.command.action_id}: {'; '.join(message for _, message in self.findings)}",
            region=Region.of(here.grown(max(asked_nm[0], reach_nm[0]), max(asked_nm[1], reach_nm[1])), least_nm2),
            electrons=amount,
            is_counted=False,
        )


def _least_nm2(command: AcquireFrame, charge: Charge) -> float:
    """The area that a frame was booked on, where its bound is highest."""
    marks, factor = charge.cells or exposed(command.stage, command.scan, charge.lit, charge.height_nm)
    return marks.area_nm2 / factor


def _as_wide_as(found: ScanPattern, asked: ScanPattern) -> ScanPattern:
    return asked.model_copy(update=found.model_dump(include={"field_of_view_nm", "shape_px", "rotation_deg"}))


def raster_taken(command: AcquireFrame, frame: Frame, card: Capabilities) -> ScanPattern | None:
    """The raster that the frame itself tells of; None where it is as it was asked for, or nothing was scanned."""
    scan, axis = command.scan, card.axis("field_of_view_nm")
    shapes = [counts.shape[1:3] for counts in frame.counts.values() if counts.ndim > 2]
    if scan.at_once or not shapes:
        return None
    rows, columns = max(shapes, key=prod)
    read_nm, turned = frame.state.axis_value("field_of_view_nm"), frame.state.axis_value("rotation_deg")
    widths = [columns * frame.pixel_size_nm] + [read_nm] * isinstance(read_nm, float | int)
    width_nm = min((nm for nm in widths if isfinite(nm) and nm > 0), default=scan.field_of_view_nm)
    turned_deg = turned if isinstance(turned, float | int) and isfinite(turned) else scan.rotation_deg
    is_turned = abs((turned_deg - scan.rotation_deg + 180) % 360 - 180) > _TURNED_DEG
    allowed_nm = max(scan.field_of_view_nm * _ROUNDING, axis.allowed_error if axis is not None else 0.0)
    is_same = (rows, columns) == scan.shape_px and abs(width_nm - scan.field_of_view_nm) <= allowed_nm
    if (is_same and not is_turned) or min(rows, columns) < 1:
        return None
    rotation_deg = turned_deg if is_turned else scan.rotation_deg
    return scan.model_copy(
        update={"field_of_view_nm": width_nm, "shape_px": (rows, columns), "rotation_deg": rotation_deg}
    )


def sides_off_fraction(asked: ScanPattern, found: ScanPattern) -> float:
    """By how much of what was asked for the sides of a raster differ, the worse of the two."""
    return max(
        abs(found.field_of_view_nm / asked.field_of_view_nm - 1), abs(found.height_nm / asked.height_nm - 1)
    )  # fmt: skip


def _counting(frame: Frame, booked: float) -> Frame:
    """The frame with the electrons it was booked with, so that whoever books it again books the same."""
    if booked == frame.electrons:
        return frame
    scan = frame.requested.scan
    dose = frame.dose_e_per_a2 * booked / frame.electrons if frame.electrons > 0 else 0.0
    return replace(frame, electrons=booked, dose_e_per_a2=dose or booked / (scan.area_nm2 * ANGSTROM2_PER_NM2))


def _findings(
    asked: ScanPattern,
    off: Mapping[str, tuple[float, float]],
    lit: Lit | None,
    scan: ScanPattern | None,
    charge: Charge,
    measured_pa: float | None,
) -> Iterator[tuple[EventKind, str]]:
    """What differs, in words."""
    if off:
        where = ", ".join(f"{name} {found:.6g} instead of {asked_for:.6g}" for name, (asked_for, found) in off.items())
        yield "taken_elsewhere", f"it was taken at {where}"
    if lit is not None:
        yield "taken_elsewhere", f"it was lit over {lit.least_nm2:.6g} nm2 alone"
    if scan is not None:
        yield "taken_elsewhere", f"{raster_words(scan)} came instead of {raster_words(asked)}"
    if _is_more(measured_pa, charge):
        yield "more_current", f"{measured_pa:.6g} pA were measured, {charge.current_pa:.6g} pA at most were booked"


def raster_words(scan: ScanPattern) -> str:
    """Its sides, its pixels and how it is turned."""
    rows, columns = scan.shape_px
    turned = f", turned by {scan.rotation_deg:g} deg" if scan.rotation_deg else ""
    return f"{scan.field_of_view_nm:.6g} nm x {scan.height_nm:.6g} nm in {rows} x {columns} px{turned}"


def _corrected(command: AcquireFrame, told: float | None, charge: Charge, measured_pa: float | None) -> float | None:
    """What to correct the books to: as told, but no less than the current that was booked or measured makes of it."""
    if measured_pa is not None and _is_more(measured_pa, charge):
        return max(charge.electrons * measured_pa / charge.current_pa, told or 0.0)
    if told is None or charge.factor <= 1:
        return told
    if measured_pa is None or measured_pa * charge.factor < charge.current_pa:  # it counted with what was commanded
        return told * charge.factor
    return max(told, min(electrons(measured_pa, command.scan.beam_on_s(command.subframe_count)), charge.electrons))


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


def refuse_another(command: AcquireFrame, frame: Frame) -> None:
    """Raise InstrumentFault for the frame of another command."""
    if frame.action_id != command.action_id or frame.requested != command:
        whose = "of another command" if frame.action_id == command.action_id else f"{frame.action_id!r}"
        raise InstrumentFault(
            f"asked for frame {command.action_id!r}, the instrument gave one {whose}: its answers are mixed up; "
            "look at it before anything else"
        )
