"""Which recorded points a command asks for, and what is refused; `replay` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from instruments.adapters.replay_card import EDS, SURVEY
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame
from instruments.errors import CommandRefused
from instruments.optics import Optics
from instruments.readers.spectrum_maps import SpectrumMaps
from instruments.scans import ScanPattern, StagePosition

DWELL_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Block:
    """Recorded points under a scan, and the beam shift of their centre."""

    rows: slice
    columns: slice
    x_nm: float
    y_nm: float


class RecordedPoints:
    """The points of one record, and the exposure that each of them has left."""

    def __init__(
        self,
        maps: SpectrumMaps,
        capabilities: Capabilities,
        current_pa: float,
        full_dwell_us: float,
        survey_dwell_us: float,
    ) -> None:
        self._maps = maps
        self._capabilities = capabilities
        self._current_pa = current_pa
        self.full_dwell_us = full_dwell_us
        self.survey_dwell_us = survey_dwell_us
        self.used_us = np.zeros(maps.shape_px)

    def check(self, command: AcquireFrame) -> Block:
        """The points of this command. Raises CommandRefused for what was not recorded, or is used up."""
        mode = self._capabilities.mode(command.mode)
        if mode is None:
            raise CommandRefused(f"mode {command.mode!r} is not one of this instrument's: {SURVEY}, {EDS}")
        if command.scan.at_once:
            raise CommandRefused("a record was scanned, not exposed at once; leave scan.at_once out")
        if command.stage != StagePosition():
            raise CommandRefused("a replay has no stage: keep it at 0 nm and 0 deg, and move the beam shift instead")
        current_pa, nominal_pa = command.optics.probe_current_pa, self._current_pa
        if abs(current_pa - nominal_pa) > 1e-6 * nominal_pa:
            raise CommandRefused(
                f"probe current {current_pa:g} pA is not the record's declared current {nominal_pa:g} pA; ask for that"
            )
        _refuse_optics(command.optics)
        block = self._block(command.scan)
        if command.mode == EDS:
            self._check_exposure(command, block)
        else:
            self._check_survey(command)
        return block

    def _check_survey(self, command: AcquireFrame) -> None:
        if command.subframe_count != 1:
            raise CommandRefused(
                f"subframe_count {command.subframe_count} of a survey: the image was recorded once; ask for 1 sub-frame"
            )
        asked_us, recorded_us = command.scan.dwell_time_us, self.survey_dwell_us
        if abs(asked_us / recorded_us - 1) > DWELL_TOLERANCE:
            raise CommandRefused(
                f"dwell time {asked_us:g} us of a survey: the image was recorded with {recorded_us:g} us a point, and "
                f"has neither dose nor noise of another dwell; ask for {recorded_us:g} us (survey_dwell_time_us)"
            )

    def _check_exposure(self, command: AcquireFrame, block: Block) -> None:
        wanted_us, full_us = dwell_us(command), self.full_dwell_us
        left_us = full_us - self.used_us[block.rows, block.columns]
        short = left_us < wanted_us * (1 - DWELL_TOLERANCE)
        if not short.any():
            return
        row, column = np.argwhere(short)[0]
        place = f"row {row + block.rows.start}, column {column + block.columns.start}"
        left = float(left_us[row, column])
        if left <= full_us * DWELL_TOLERANCE:
            raise CommandRefused(f"no more recorded exposure at the point of {place}; choose another point")
        raise CommandRefused(
            f"dwell time {wanted_us:g} us is longer than the {left:g} us of recorded exposure left at {place};"
            " ask for a shorter dwell or another point"
        )

    def _block(self, scan: ScanPattern) -> Block:
        """The recorded points nearest to those of `scan`."""
        pixel_nm, (all_rows, all_columns) = self._maps.pixel_size_nm, self._maps.shape_px
        rows, columns = scan.shape_px
        if rows < 1 or columns < 1 or rows > all_rows or columns > all_columns:
            raise CommandRefused(f"scan of {rows} x {columns} px; the record has {all_rows} x {all_columns} px")
        if scan.rotation_deg % 360 != 0:
            raise CommandRefused(f"scan rotation {scan.rotation_deg:g} deg: a record cannot be rotated; ask for 0 deg")
        if abs(scan.pixel_size_nm - pixel_nm) * max(rows, columns) > pixel_nm / 2:
            raise CommandRefused(
                f"pixel size {scan.pixel_size_nm:.6g} nm is not the record's {pixel_nm:.6g} nm; "
                f"set field_of_view_nm to {columns * pixel_nm:.6g} nm for {columns} px"
            )
        first_row = _first(scan.beam_shift_y_nm / pixel_nm, rows, all_rows)
        first_column = _first(scan.beam_shift_x_nm / pixel_nm, columns, all_columns)
        if not (0 <= first_row <= all_rows - rows and 0 <= first_column <= all_columns - columns):
            raise CommandRefused(
                f"a scan of {rows} x {columns} px at beam shift "
                f"({scan.beam_shift_x_nm:g}, {scan.beam_shift_y_nm:g}) nm leaves the recorded field of "
                f"+/-{all_columns * pixel_nm / 2:.6g} x +/-{all_rows * pixel_nm / 2:.6g} nm; move it inside"
            )
        return Block(
            slice(first_row, first_row + rows),
            slice(first_column, first_column + columns),
            (first_column + (columns - all_columns) / 2) * pixel_nm,
            (first_row + (rows - all_rows) / 2) * pixel_nm,
        )

    def check_shift(self, x_nm: float, y_nm: float) -> None:
        """Raise CommandRefused for a beam shift off the record."""
        for name, value in (("beam_shift_x_nm", x_nm), ("beam_shift_y_nm", y_nm)):
            axis = self._capabilities.axis(name)
            if axis is not None and not axis.minimum <= value <= axis.maximum:
                limits = f"{axis.minimum:g} to {axis.maximum:g} nm"
                raise CommandRefused(f"{name} {value:g} nm is outside {limits}; move it inside")


def dwell_us(command: AcquireFrame) -> float:
    """Exposure of each point, all sub-frames."""
    return command.scan.dwell_time_us * command.subframe_count


def _refuse_optics(optics: Optics) -> None:
    """What was recorded stays in the focus, and under the tilt, in which it was recorded."""
    asked = {"defocus_nm": optics.defocus_nm, "tilt_x_mrad": optics.tilt_x_mrad, "tilt_y_mrad": optics.tilt_y_mrad}
    for name, value in asked.items() | {(name, value) for name, value in optics.aberrations if name.startswith("c")}:
        if value != 0:
            raise CommandRefused(f"{name} {value:g}: a record cannot be focused, tilted or corrected; leave it at 0")


def _first(centre_px: float, count: int, all_count: int) -> int:
    """Index of the first recorded point under `count` points around a centre in pixels from the field's centre."""
    first = centre_px + (all_count - count) / 2
    return int(np.floor(first + 0.5)) if np.isfinite(first) else -1
