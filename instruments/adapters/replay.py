"""A measured spectrum image as an instrument: it can be asked for what was recorded, and for nothing else.

Field: recorded point (r, c) lies at ((c - (columns-1)/2), (r - (rows-1)/2)) * pixel, so the field is centred on (0, 0)
and is reached by beam shift. Mode `survey` gives the recorded dark-field image (detector `haadf`, arbitrary unit,
always the same) for the dwell it was recorded with, mode `eds` the counts of each line (detectors named by line).
Neighbours: `replay_config`, `replay_card`, `replay_points` (what is refused), `replay_record`; other files are replayed
by `replay_images`.

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

from instruments.adapters.clocks import CLOCKS
from instruments.adapters.replay_card import EDS, SURVEY, card_of
from instruments.adapters.replay_config import ReplayConfig
from instruments.adapters.replay_images_config import ReplayImagesConfig
from instruments.adapters.replay_points import DWELL_TOLERANCE, Block, RecordedPoints, dwell_us
from instruments.adapters.replay_record import SplitRecord, split_record
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Blank, Command, Park, RunProcedure, SetAxes, Unblank
from instruments.errors import CommandRefused, ConfigurationError, InstrumentFault, Unsupported
from instruments.frames import Frame
from instruments.microscope import Microscope, Outcome
from instruments.optics import Optics
from instruments.readers.spectrum_maps import SpectrumMaps, read_spectrum_maps
from instruments.scans import StagePosition
from instruments.state import MicroscopeState
from instruments.units import ANGSTROM2_PER_NM2, electrons

_SURVEY_DWELL_US = 1.0  # assumed where neither file nor configuration says it
_UNKNOWN = {
    "measured_current_pa": "a replay has no beam: the current is declared, not measured",
    "coherence": "the file does not say",
    "optics.semi_convergence_angle_mrad": "the file does not say; what is reported was commanded",
    CLOCKS: "a replay has no devices",
}


@dataclass(frozen=True, slots=True)
class _Exposure:
    """What is needed to give an exposed frame again."""

    command: AcquireFrame
    block: Block
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
        survey_dwell_us = _survey_dwell_us(config, maps)
        self._capabilities = card_of(config, maps, survey_dwell_us)
        full_dwell_us = config.full_dwell_time_us * config.bin_px**2
        self._points = RecordedPoints(
            maps, self._capabilities, config.nominal_current_pa, full_dwell_us, survey_dwell_us
        )

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
                self._points.check_shift(command.beam_shift_x_nm, command.beam_shift_y_nm)
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
        block = self._points.check(command)
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
            "full_dwell_time_us": self._points.full_dwell_us,
            "pixel_size_nm": self._maps.pixel_size_nm,
            "x_nm": x_nm,
            "y_nm": y_nm,
            "exposed_us": self._points.used_us.copy(),
            "electrons": spent,
        }

    def _refuse_after_stop(self) -> None:
        if self._stopped.is_set():
            raise InstrumentFault("the replay was stopped and its beam blanked; open it again to go on")

    def _expose(self, command: AcquireFrame) -> _Exposure:
        block = self._points.check(command)
        started_s = self._clock_s
        used_before_us = self._points.used_us[block.rows, block.columns].copy()
        self._move(block.x_nm, block.y_nm)
        self._clock_s += _duration_s(command)
        self._optics, self._mode, self._is_blanked = command.optics, command.mode, True
        if command.mode == EDS:
            self._points.used_us[block.rows, block.columns] += dwell_us(command)
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

    def _survey(self, block: Block) -> dict[str, np.ndarray]:
        return {"haadf": self._maps.survey[block.rows, block.columns][None].copy()}

    def _counts(self, exposure: _Exposure) -> dict[str, np.ndarray]:
        block, command = exposure.block, exposure.command
        columns = np.arange(block.columns.start, block.columns.stop)
        points = np.arange(block.rows.start, block.rows.stop)[:, None] * self._maps.shape_px[1] + columns
        steps = np.arange(command.subframe_count + 1)[:, None, None] * command.scan.dwell_time_us
        edges = (exposure.used_before_us + steps) / self._points.full_dwell_us
        edges = np.where(edges > 1 - DWELL_TOLERANCE, 1.0, edges)
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
            "full_dwell_time_us": self._points.full_dwell_us,
            "exposed_before_us": float(exposure.used_before_us.max()),
        }


def _survey_dwell_us(config: ReplayConfig, maps: SpectrumMaps) -> float:
    """Of a point as it is given, binned. Raises ConfigurationError where file and configuration disagree."""
    recorded_us, configured_us = maps.survey_dwell_time_us, config.survey_dwell_time_us
    given_us = (_SURVEY_DWELL_US if configured_us is None else configured_us) * config.bin_px**2
    if recorded_us is None:
        return given_us
    if configured_us is not None and abs(given_us / recorded_us - 1) > DWELL_TOLERANCE:
        raise ConfigurationError(
            f"survey_dwell_time_us is {configured_us:g} us, and {recorded_us / config.bin_px**2:g} us in "
            f"{maps.file_name}; leave it out"
        )
    return recorded_us


def _duration_s(command: AcquireFrame) -> float:
    return command.scan.duration_s(command.subframe_count)


def _axes_nm(maps: SpectrumMaps) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = maps.shape_px
    x_nm = (np.arange(columns) - (columns - 1) / 2) * maps.pixel_size_nm
    return x_nm, (np.arange(rows) - (rows - 1) / 2) * maps.pixel_size_nm
