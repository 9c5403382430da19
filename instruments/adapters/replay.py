"""A measured spectrum image as an instrument: it can be asked for what was recorded, and for nothing else.

Field: recorded point (r, c) lies at ((c - (columns-1)/2), (r - (rows-1)/2)) * pixel, so the field is centred on (0, 0)
and is reached by beam shift. Mode `survey` gives the recorded dark-field image (detector `haadf`, arbitrary unit,
always the same), mode `eds` the counts of each line (detectors named by line). Neighbours: `replay_config`,
`replay_record`; images of other files are replayed by `replay_images`.

Part of the counts (half by default, drawn binomially) is held out for the evaluation (`truth`), so a full dwell yields
half the recorded counts: the replay is an instrument of half the collection efficiency, and what it holds out is worth
`exposure_ratio` further full exposures. A point's exposure is a budget: each visit reads on where the last one ended,
and what is used up is refused. The beam current is declared, so doses are nominal. Everything is a pure function of
(configuration, commands).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np

from instruments.adapters.replay_config import ReplayConfig
from instruments.adapters.replay_images_config import ReplayImagesConfig
from instruments.adapters.replay_record import SplitRecord, split_record
from instruments.capabilities import Axis, Capabilities, Detector, Mode
from instruments.commands import AcquireFrame, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.errors import CommandRefused, InstrumentFault, Unsupported
from instruments.frames import Frame
from instruments.microscope import Microscope, Outcome
from instruments.optics import Optics
from instruments.readers.spectrum_maps import SpectrumMaps, read_spectrum_maps
from instruments.scans import ScanPattern, StagePosition
from instruments.state import MicroscopeState
from instruments.units import ANGSTROM2_PER_NM2, electrons

SURVEY, EDS = "survey", "eds"
_DWELL_TOLERANCE = 1e-9
_UNKNOWN = {
    "measured_current_pa": "a replay has no beam: the current is declared, not measured",
    "coherence": "the file does not say",
    "optics.semi_convergence_angle_mrad": "the file does not say; what is reported was commanded",
}
_NO_REFERENCES = "the file does not say"


@dataclass(frozen=True, slots=True)
class _Block:
    """Recorded points under a scan, and the beam shift of their centre."""

    rows: slice
    columns: slice
    x_nm: float
    y_nm: float


@dataclass(frozen=True, slots=True)
class _Exposure:
    """What is needed to give an exposed frame again."""

    command: AcquireFrame
    block: _Block
    used_before_us: np.ndarray
    started_s: float
    state: MicroscopeState


def open_replay(**config: Any) -> Microscope:
    """Open a record. Raises ConfigurationError.

    A spectrum image (.npz) has the keys of `ReplayConfig`; a maker's image file, or a data folder with an experiment,
    those of `ReplayImagesConfig`.
    """
    if "folder" in config or not str(config.get("file", ".npz")).lower().endswith(".npz"):
        from instruments.adapters.replay_images import open_images  # reads HDF5, which a spectrum image does without

        return open_images(ReplayImagesConfig.checked(config))
    return open_spectrum_image(**config)


def open_spectrum_image(**config: Any) -> ReplayMicroscope:
    """Open a recorded spectrum image; the keys are those of `ReplayConfig`. Raises ConfigurationError."""
    checked = ReplayConfig.checked(config)
    maps = read_spectrum_maps(checked.file, checked.lines).binned(checked.bin_px)
    return ReplayMicroscope(checked, maps, split_record(maps.counts, checked.measured_fraction, checked.seed))


class ReplayMicroscope:
    """Microscope, Forecasting, Rebuildable and HiddenTruth over a recorded spectrum image."""

    def __init__(self, config: ReplayConfig, maps: SpectrumMaps, record: SplitRecord) -> None:
        self._config = config
        self._maps = maps
        self._record = record
        self._full_dwell_us = config.full_dwell_time_us * config.bin_px**2
        self._used_us = np.zeros(maps.shape_px)
        self._clock_s = 0.0
        self._shift_nm = (0.0, 0.0)
        self._optics = Optics(
            beam_energy_ev=config.beam_energy_ev,
            semi_convergence_angle_mrad=0.0,
            probe_current_pa=config.nominal_current_pa,
        )
        self._mode: str | None = None
        self._is_blanked = True
        self._exposures: dict[str, _Exposure] = {}
        self._commanded: set[str] = set()
        self._stopped = Event()
        self._capabilities = _capabilities(config, maps)

    def capabilities(self) -> Capabilities:
        """Two modes, a beam shift that spans the recorded field, and what is odd about a replay."""
        return self._capabilities

    def read_state(self) -> MicroscopeState:
        """Read-back values now; the beam shift is that of the recorded points that were read."""
        return MicroscopeState(
            time_s=self._clock_s,
            stage=StagePosition(),
            beam_shift_x_nm=self._shift_nm[0],
            beam_shift_y_nm=self._shift_nm[1],
            optics=self._optics,
            mode=self._mode,
            beam_blanked=self._is_blanked or self._stopped.is_set(),
            undetermined=_UNKNOWN,
        )

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, unblank, set the beam shift: the clock follows, the record is not touched."""
        self._refuse_after_stop()
        match command:
            case AcquireFrame():
                raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
            case Park():
                self._check_shift(command.beam_shift_x_nm, command.beam_shift_y_nm)
                self._clock_s += command.duration_s
                self._move(command.beam_shift_x_nm, command.beam_shift_y_nm)
            case Blank():
                self._is_blanked = True
            case Unblank():
                self._is_blanked = False
            case SetAxes():
                return self._set_axes(command)
            case RunProcedure():
                raise Unsupported(f"a replay has no procedure {command.name!r}; it has none")
        self._commanded.add(command.action_id)
        return self.read_state()

    def _set_axes(self, command: SetAxes) -> MicroscopeState:
        self._capabilities.check_values(command.values)
        x_nm, y_nm = (
            float(command.values.get(name, now))
            for name, now in zip(("beam_shift_x_nm", "beam_shift_y_nm"), self._shift_nm, strict=True)
        )
        self._move(x_nm, y_nm)
        self._commanded.add(command.action_id)
        return self.read_state().with_readings(command.values, self._capabilities)

    def acquire(self, command: AcquireFrame) -> Frame:
        """Read recorded points once, or give again, unchanged, what this action id has read before.

        Raises CommandRefused (nothing is spent) for a scan off the recorded points, a current that is not the declared
        one, a dwell longer than what is left at a point; InstrumentFault after `stop`.
        """
        known = self._exposures.get(command.action_id)
        if known is None:
            self._refuse_after_stop()
            known = self._expose(command)
        elif known.command != command:
            raise CommandRefused(f"action {command.action_id} was another command; give a new command a new action id")
        return self._frame(known)

    def forecast(self, command: AcquireFrame) -> tuple[float, float]:
        """(electrons, seconds) now, settling included. Raises CommandRefused for what `acquire` would refuse."""
        block = self._check(command)
        return self._electrons(command), self._settling_s(block.x_nm, block.y_nm) + _duration_s(command)

    def outcome(self, action_id: str) -> Outcome:
        """`delivered` for every action that was carried out, else `not_started`: a replay always knows."""
        return "delivered" if action_id in self._exposures or action_id in self._commanded else "not_started"

    def stop(self) -> None:
        """Blank the beam; everything but reading back is refused until the instrument is opened again."""
        self._stopped.set()

    def release(self) -> None:
        """Go on after `stop`, the beam blanked."""
        self._is_blanked = True
        self._stopped.clear()

    def rebuild(self, commands: Sequence[Command]) -> None:
        """Go through `commands` without reading counts; a refused one is refused again and changes nothing."""
        for command in commands:
            if self.outcome(command.action_id) == "delivered":
                continue
            try:
                if isinstance(command, AcquireFrame):
                    self._expose(command)
                else:
                    self.execute(command)
            except CommandRefused:
                continue

    def truth(self) -> dict[str, Any]:
        """What was held out, for the evaluation alone.

        `heldout_counts`: line -> (rows, columns) int64 counts of the points; `exposure_ratio`: expected held-out counts
        per expected count of a full dwell; `full_dwell_time_us` of a point; `pixel_size_nm`; `x_nm` (columns,), `y_nm`
        (rows,) of the points; `exposed_us` (rows, columns): dwell used so far; `electrons` spent so far, nominal.
        """
        x_nm, y_nm = _axes_nm(self._maps)
        spent = sum(self._electrons(exposure.command) for exposure in self._exposures.values())
        return {
            "heldout_counts": {line: counts.copy() for line, counts in self._record.heldout.items()},
            "exposure_ratio": (1 - self._config.measured_fraction) / self._config.measured_fraction,
            "full_dwell_time_us": self._full_dwell_us,
            "pixel_size_nm": self._maps.pixel_size_nm,
            "x_nm": x_nm,
            "y_nm": y_nm,
            "exposed_us": self._used_us.copy(),
            "electrons": spent,
        }

    def _refuse_after_stop(self) -> None:
        if self._stopped.is_set():
            raise InstrumentFault("the replay was stopped and its beam blanked; open it again to go on")

    def _expose(self, command: AcquireFrame) -> _Exposure:
        block = self._check(command)
        started_s = self._clock_s
        used_before_us = self._used_us[block.rows, block.columns].copy()
        self._move(block.x_nm, block.y_nm)
        self._clock_s += _duration_s(command)
        self._optics, self._mode, self._is_blanked = command.optics, command.mode, True
        if command.mode == EDS:
            self._used_us[block.rows, block.columns] += _dwell_us(command)
        exposure = _Exposure(command, block, used_before_us, started_s, self.read_state())
        self._exposures[command.action_id] = exposure
        return exposure

    def _move(self, x_nm: float, y_nm: float) -> None:
        self._clock_s += self._settling_s(x_nm, y_nm)
        self._shift_nm = (x_nm, y_nm)

    def _settling_s(self, x_nm: float, y_nm: float) -> float:
        return 0.0 if (x_nm, y_nm) == self._shift_nm else self._config.settle_s

    def _electrons(self, command: AcquireFrame) -> float:
        return electrons(self._config.nominal_current_pa, _duration_s(command))

    def _check(self, command: AcquireFrame) -> _Block:
        mode = self._capabilities.mode(command.mode)
        if mode is None:
            raise CommandRefused(f"mode {command.mode!r} is not one of this instrument's: {SURVEY}, {EDS}")
        if command.scan.at_once:
            raise CommandRefused("a record was scanned, not exposed at once; leave scan.at_once out")
        if command.stage != StagePosition():
            raise CommandRefused("a replay has no stage: keep it at 0 nm and 0 deg, and move the beam shift instead")
        current_pa, nominal_pa = command.optics.probe_current_pa, self._config.nominal_current_pa
        if abs(current_pa - nominal_pa) > 1e-6 * nominal_pa:
            raise CommandRefused(
                f"probe current {current_pa:g} pA is not the record's declared current {nominal_pa:g} pA; ask for that"
            )
        _refuse_optics(command.optics)
        block = self._block(command.scan)
        if command.mode == EDS:
            self._check_exposure(command, block)
        elif command.subframe_count != 1:
            raise CommandRefused(
                f"subframe_count {command.subframe_count} of a survey: the image was recorded once; ask for 1 sub-frame"
            )
        return block

    def _check_exposure(self, command: AcquireFrame, block: _Block) -> None:
        wanted_us, full_us = _dwell_us(command), self._full_dwell_us
        left_us = full_us - self._used_us[block.rows, block.columns]
        short = left_us < wanted_us * (1 - _DWELL_TOLERANCE)
        if not short.any():
            return
        row, column = np.argwhere(short)[0]
        place = f"row {row + block.rows.start}, column {column + block.columns.start}"
        left = float(left_us[row, column])
        if left <= full_us * _DWELL_TOLERANCE:
            raise CommandRefused(f"no more recorded exposure at the point of {place}; choose another point")
        raise CommandRefused(
            f"dwell time {wanted_us:g} us is longer than the {left:g} us of recorded exposure left at {place};"
            " ask for a shorter dwell or another point"
        )

    def _block(self, scan: ScanPattern) -> _Block:
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
        return _Block(
            slice(first_row, first_row + rows),
            slice(first_column, first_column + columns),
            (first_column + (columns - all_columns) / 2) * pixel_nm,
            (first_row + (rows - all_rows) / 2) * pixel_nm,
        )

    def _check_shift(self, x_nm: float, y_nm: float) -> None:
        for name, value in (("beam_shift_x_nm", x_nm), ("beam_shift_y_nm", y_nm)):
            axis = self._capabilities.axis(name)
            if axis is not None and not axis.minimum <= value <= axis.maximum:
                limits = f"{axis.minimum:g} to {axis.maximum:g} nm"
                raise CommandRefused(f"{name} {value:g} nm is outside {limits}; move it inside")

    def _frame(self, exposure: _Exposure) -> Frame:
        command, block = exposure.command, exposure.block
        counts = self._survey(block) if command.mode == SURVEY else self._counts(exposure)
        mode = self._capabilities.mode(command.mode)
        assert mode is not None, "checked before it was exposed"
        spent = self._electrons(command)
        area_a2 = command.scan.shape_px[0] * command.scan.shape_px[1] * self._maps.pixel_size_nm**2 * ANGSTROM2_PER_NM2
        return Frame(
            action_id=command.action_id,
            requested=command,
            state=exposure.state,
            mode=mode,
            counts=counts,
            pixel_size_nm=self._maps.pixel_size_nm,
            dose_e_per_a2=spent / area_a2,
            electrons=spent,
            started_s=exposure.started_s,
            ended_s=exposure.state.time_s,
            instrument=self._capabilities.name,
            simulated=False,
            context=self._context(exposure),
        )

    def _survey(self, block: _Block) -> dict[str, np.ndarray]:
        return {"haadf": self._maps.survey[block.rows, block.columns][None].copy()}

    def _counts(self, exposure: _Exposure) -> dict[str, np.ndarray]:
        block, command = exposure.block, exposure.command
        columns = np.arange(block.columns.start, block.columns.stop)
        points = np.arange(block.rows.start, block.rows.stop)[:, None] * self._maps.shape_px[1] + columns
        steps = np.arange(command.subframe_count + 1)[:, None, None] * command.scan.dwell_time_us
        edges = (exposure.used_before_us + steps) / self._full_dwell_us
        edges = np.where(edges > 1 - _DWELL_TOLERANCE, 1.0, edges)
        return {
            line: stream.counts(points, edges[:-1], edges[1:]).astype(np.uint32)
            for line, stream in self._record.streams.items()
        }

    def _context(self, exposure: _Exposure) -> dict[str, Any]:
        config = self._config
        return {
            "replayed_file": self._maps.file_name,
            "replayed_sha256": self._maps.sha256,
            "is_simulation": False,
            "is_replay": True,
            "dose_is_nominal": True,
            "bin_px": config.bin_px,
            "measured_fraction": config.measured_fraction,
            "full_dwell_time_us": self._full_dwell_us,
            "exposed_before_us": float(exposure.used_before_us.max()),
        }


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


def _dwell_us(command: AcquireFrame) -> float:
    return command.scan.dwell_time_us * command.subframe_count


def _duration_s(command: AcquireFrame) -> float:
    return command.scan.duration_s(command.subframe_count)


def _axes_nm(maps: SpectrumMaps) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = maps.shape_px
    x_nm = (np.arange(columns) - (columns - 1) / 2) * maps.pixel_size_nm
    return x_nm, (np.arange(rows) - (rows - 1) / 2) * maps.pixel_size_nm


def _capabilities(config: ReplayConfig, maps: SpectrumMaps) -> Capabilities:
    rows, columns = maps.shape_px
    shifts = [
        Axis(
            name=name,
            minimum=-side / 2 * maps.pixel_size_nm,
            maximum=side / 2 * maps.pixel_size_nm,
            resolution=maps.pixel_size_nm / 2,
            settle_s=config.settle_s,
            frame="beam_shift",
        )
        for name, side in (("beam_shift_x_nm", columns), ("beam_shift_y_nm", rows))
    ]
    current = Axis(name="probe_current_pa", minimum=config.nominal_current_pa, maximum=config.nominal_current_pa)
    return Capabilities(
        name="replay",
        simulated=False,
        axes=(*shifts, current),
        modes=(
            Mode(
                name=SURVEY,
                kind="stem",
                detectors=(Detector(name="haadf", raw_counts=False, without_references=_NO_REFERENCES),),
            ),
            Mode(
                name=EDS,
                kind="eds",
                detectors=tuple(Detector(name=line, without_references=_NO_REFERENCES) for line in maps.counts),
            ),
        ),
        stop_latency_s=0.0,
        quirks=(
            "the current is declared, so electrons and doses are nominal",
            f"{config.measured_fraction:.0%} of the recorded counts are measured, the rest is held out",
            "a point's recorded exposure is used up by reading it",
            "the survey image is as recorded, whatever dwell is asked for",
        ),
    )
