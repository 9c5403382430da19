"""The simulated clock: what a command costs in time and leaves behind; a pure step from state to state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, hypot, pi, sin

import numpy as np

from instruments.arrangement import Arrangement
from instruments.commands import AcquireFrame
from instruments.optics import Optics
from instruments.scans import StagePosition
from simulation.world.config import SimulatedConfig
from simulation.world.drift import Wander, creep_nm
from simulation.world.faults import NO_FAULTS
from simulation.world.fittings import UNFITTED, Fittings
from simulation.world.randomness import Purpose, generator
from simulation.world.tilt import Tilt


@dataclass(frozen=True, slots=True)
class Situation:
    """Where everything stands between two commands."""

    time_s: float
    ordinal: int  # commands carried out so far
    stage: StagePosition  # as it is read back
    standing: StagePosition  # as it is, but for the error of the last move
    stage_error_nm: tuple[float, float]  # of the last move, not read back
    crept_nm: tuple[float, float]  # by all moves before the last
    moved_s: float | None  # end of the last move
    creep_rad: float  # direction of the creep after the last move
    beam_shift_nm: tuple[float, float]
    optics: Optics
    mode: str
    focus_jump_nm: float
    is_blanked: bool
    fittings: Fittings = UNFITTED

    @property
    def current_pa(self) -> float:
        """The probe current of a fresh emitter: what is commanded, as far as the gun lens lets it through."""
        return min(self.optics.probe_current_pa, self.fittings.available_pa())

    @property
    def tilt(self) -> Tilt:
        """Of the specimen in the column."""
        return Tilt.of(self.standing)

    @classmethod
    def start(cls, config: SimulatedConfig, mode: str) -> Situation:
        """Just opened, the gun freshly flashed, the specimen where its coordinates say."""
        optics = Optics(
            beam_energy_ev=config.beam_energy_ev,
            semi_convergence_angle_mrad=config.semi_convergence_angle_mrad,
            probe_current_pa=config.initial_current_pa,
        )
        return cls(
            0.0,
            0,
            StagePosition(),
            StagePosition(),
            (0.0, 0.0),
            (0.0, 0.0),
            None,
            0.0,
            (0.0, 0.0),
            optics,
            mode,
            0.0,
            is_blanked=True,
        )


@dataclass(frozen=True)
class Drift:
    """Displacement of the specimen under the beam: point of the specimen minus nominal point, nm, (x, y)."""

    config: SimulatedConfig
    x: Wander
    y: Wander

    @classmethod
    def draw(cls, config: SimulatedConfig) -> Drift:
        """Direction and wander of this configuration's hidden seed."""
        rng = generator(config.hidden_seed, Purpose.DRIFT)
        angle = rng.uniform(0, 2 * pi)
        speed = config.drift_nm_per_min
        x = Wander.draw(speed * abs(cos(angle)), float(np.sign(cos(angle))), rng)
        return cls(config, x, Wander.draw(speed * abs(sin(angle)), float(np.sign(sin(angle))), rng))

    def displacement_nm(self, situation: Situation, time_s: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Slow drift, residual error of stage moves, the creep after them, what a holder does; after the last move."""
        path = self._creep(situation, time_s)
        error_x, error_y = situation.stage_error_nm
        crept_x, crept_y = situation.crept_nm
        held_x, held_y = situation.fittings.displacement_nm(
            time_s, situation.standing.x_nm + situation.beam_shift_nm[0]
        )
        return (
            self.x.at(time_s) + error_x + crept_x + path * cos(situation.creep_rad) + held_x,
            self.y.at(time_s) + error_y + crept_y + path * sin(situation.creep_rad) + held_y,
        )

    def _creep(self, situation: Situation, time_s: np.ndarray | float) -> np.ndarray:
        if situation.moved_s is None:
            return np.zeros(np.shape(time_s))
        config = self.config
        return creep_nm(
            np.asarray(time_s) - situation.moved_s,
            config.move_drift_nm_per_min,
            config.move_drift_floor_nm_per_min,
            config.move_drift_decay_s,
        )

    def frozen_creep_nm(self, situation: Situation, time_s: float) -> tuple[float, float]:
        """All creep up to now, to be kept when the stage moves again."""
        path = float(self._creep(situation, time_s))
        x, y = situation.crept_nm
        return x + path * cos(situation.creep_rad), y + path * sin(situation.creep_rad)


def prepared(before: Situation, command: AcquireFrame, config: SimulatedConfig, drift: Drift) -> Situation:
    """The situation when everything `command` asks for is set and settled; the beam is blanked meanwhile.

    One after another: stage (seconds), current (20 s, and the focus jumps a little), camera length (10 s), beam shift
    (50 ms). Aberration correctors and defocus settle within the beam shift's time and cost nothing of their own.
    """
    now = replace(before, ordinal=before.ordinal + 1, is_blanked=True)
    now = _arranged(now, command.stage, command.optics, config, drift)
    if command.mode != before.mode:
        now = replace(now, time_s=now.time_s + config.camera_length_change_s, mode=command.mode)
    now = _shifted(now, (command.scan.beam_shift_x_nm, command.scan.beam_shift_y_nm), config)
    return replace(now, optics=command.optics)


def rearranged(before: Situation, wanted: Arrangement, config: SimulatedConfig, drift: Drift) -> Situation:
    """The situation when the axes stand where they are wanted; the beam stays blanked."""
    now = _arranged(replace(before, ordinal=before.ordinal + 1), wanted.stage, wanted.optics, config, drift)
    return replace(_shifted(now, wanted.beam_shift_nm, config), optics=wanted.optics)


def _arranged(now: Situation, stage: StagePosition, optics: Optics, config: SimulatedConfig, drift: Drift) -> Situation:
    if stage != now.stage:
        now = _moved(now, stage, config, drift)
    if optics.probe_current_pa != now.optics.probe_current_pa:
        jump = generator(config.seed, Purpose.CURRENT_CHANGE, now.ordinal).normal(0, config.current_change_focus_nm)
        now = replace(now, time_s=now.time_s + config.current_change_s, focus_jump_nm=now.focus_jump_nm + float(jump))
    return now


def _shifted(now: Situation, shift_nm: tuple[float, float], config: SimulatedConfig) -> Situation:
    if shift_nm == now.beam_shift_nm:
        return now
    return replace(now, time_s=now.time_s + config.beam_shift_settle_s, beam_shift_nm=shift_nm)


def _moved(now: Situation, stage: StagePosition, config: SimulatedConfig, drift: Drift) -> Situation:
    rng = generator(config.seed, Purpose.STAGE_MOVE, now.ordinal)
    error, angle, direction = rng.uniform((config.backlash_min_nm, 0, 0), (config.backlash_max_nm, 2 * pi, 2 * pi))
    distance = hypot(stage.x_nm - now.stage.x_nm, stage.y_nm - now.stage.y_nm)
    crept = drift.frozen_creep_nm(now, now.time_s)
    turned_deg = max(abs(stage.alpha_deg - now.stage.alpha_deg), abs(stage.beta_deg - now.stage.beta_deg))
    moving_s = max(max(distance, abs(stage.z_nm - now.stage.z_nm)) / config.stage_speed_nm_per_s,
                   turned_deg / config.tilt_speed_deg_per_s)  # fmt: skip
    time_s = now.time_s + config.stage_move_s + moving_s
    standing, shown = (
        (stage, stage) if config.faults == NO_FAULTS else config.faults.arrived(now.standing, now.stage, stage)
    )
    return replace(
        now,
        time_s=time_s,
        stage=shown,
        standing=standing,
        stage_error_nm=(float(error * cos(angle)), float(error * sin(angle))),
        crept_nm=crept,
        moved_s=time_s,
        creep_rad=float(direction),
    )
