"""What the twin tells of itself: its state, its current, and frames made of counts. Nothing here changes anything.

Neighbours: `column` and `context` are parts of the answers, `rendering` makes the counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi

import numpy as np

from instruments.capabilities import Capabilities, Mode
from instruments.commands import AcquireFrame
from instruments.errors import CommandRefused
from instruments.frames import Frame
from instruments.state import ColumnState, MicroscopeState
from instruments.units import ANGSTROM2_PER_NM2, electrons
from simulation.world.clock import Situation
from simulation.world.column import column_state
from simulation.world.config import SimulatedConfig
from simulation.world.context import frame_context
from simulation.world.instrument_card import READING_STDS
from simulation.world.randomness import Purpose, generator
from simulation.world.rendering import Exposure
from simulation.world.specimen import World


@dataclass(frozen=True, slots=True)
class Readings:
    """Answers of one twin; what they depend on besides is handed in."""

    config: SimulatedConfig
    world: World
    card: Capabilities

    def current_pa(self, situation: Situation, time_s: float) -> float:
        """What flows then."""
        return situation.current_pa * self._emission_fraction(situation, time_s)

    def factor(self, ordinal: int) -> float:
        """What a reading of the current is off by, drawn once for each command."""
        rng = generator(self.config.seed, Purpose.CURRENT_READING, ordinal)
        error = np.clip(rng.standard_normal(), -READING_STDS, READING_STDS)
        return 1 + self.config.current_reading_fraction * float(error)

    def mode(self, name: str) -> Mode:
        """The mode of that name. Raises CommandRefused where there is none."""
        mode = self.card.mode(name)
        if mode is None:
            raise CommandRefused(f"mode {name!r} is not one of this instrument's")
        return mode

    def state(self, situation: Situation, reading_factor: float, *, is_blanked: bool) -> MicroscopeState:
        """Read-back values in this situation."""
        mode = self.mode(situation.mode)
        return MicroscopeState(
            time_s=situation.time_s,
            stage=situation.stage,
            beam_shift_x_nm=situation.beam_shift_nm[0],
            beam_shift_y_nm=situation.beam_shift_nm[1],
            optics=situation.optics.model_copy(update={"camera_length_mm": mode.camera_length_mm}),
            coherence=self.world.coherence(situation),
            measured_current_pa=self.current_pa(situation, situation.time_s) * reading_factor,
            mode=situation.mode,
            beam_blanked=is_blanked,
            axes=situation.fittings.readings(),
            column=self._column(situation) if self.config.fittings else None,
        )

    def frame(self, exposure: Exposure, counts: dict[str, np.ndarray]) -> Frame:
        """The frame of an exposure, with these counts."""
        command = exposure.command
        mode = self.mode(command.mode)
        measured_pa = sum(exposure.true_electrons) / electrons(1.0, command.scan.duration_s(command.subframe_count))
        measured_pa *= exposure.reading_factor
        raster_electrons = sum(exposure.true_electrons) * exposure.reading_factor
        after = replace(exposure.situation, time_s=exposure.ended_s)
        return Frame(
            action_id=command.action_id,
            requested=command,
            state=self.state(after, exposure.reading_factor, is_blanked=True).model_copy(
                update={"measured_current_pa": measured_pa}
            ),
            mode=self._mode_now(mode, exposure.situation),
            counts=counts,
            pixel_size_nm=command.scan.pixel_size_nm,
            dose_e_per_a2=raster_electrons / (_exposed_nm2(exposure) * ANGSTROM2_PER_NM2),
            electrons=raster_electrons + exposure.settling_electrons * exposure.reading_factor,
            started_s=exposure.started_s,
            ended_s=exposure.ended_s,
            instrument="simulated",
            simulated=True,
            context=frame_context(self.config, command, mode, measured_pa, exposure.situation.fittings),
        )

    def dark_frame(self, command: AcquireFrame, situation: Situation, state: MicroscopeState) -> Frame:
        """What the detectors give without a beam: their offset, for they have no dark counts."""
        mode, fittings = self.mode(command.mode), situation.fittings
        dark = np.zeros((command.subframe_count, *command.scan.shape_px), np.uint32 if mode.is_at_once else np.uint16)
        return Frame(
            action_id=command.action_id,
            requested=command,
            state=state,
            mode=self._mode_now(mode, situation),
            counts={detector.name: fittings.counted(detector.name, dark) for detector in mode.detectors},
            pixel_size_nm=command.scan.pixel_size_nm,
            dose_e_per_a2=0.0,
            electrons=0.0,
            started_s=state.time_s,
            ended_s=state.time_s,
            instrument="simulated",
            simulated=True,
            context=frame_context(self.config, command, mode, 0.0, fittings),
        )

    def _mode_now(self, mode: Mode, situation: Situation) -> Mode:
        return situation.fittings.mode(mode) if self.config.fittings else mode

    def _column(self, situation: Situation) -> ColumnState:
        emission_fraction = self._emission_fraction(situation, situation.time_s)
        return column_state(self.config, situation.fittings, situation.time_s, emission_fraction)

    def _emission_fraction(self, situation: Situation, time_s: float) -> float:
        return self.world.beam.emission_fraction(time_s - situation.fittings.flashed_s)


def _exposed_nm2(exposure: Exposure) -> float:
    """The scanned area, or the lit disc of an exposure at once."""
    if exposure.command.scan.at_once:
        return pi / 4 * exposure.situation.fittings.lit_nm() ** 2
    return exposure.command.scan.area_nm2
