"""The digital twin: a microscope on a hidden specimen, a pure function of (seed, commands) on a simulated clock.

Its rooms are in `simulation.world`; images of the lattice come from `simulation.lattice_images`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from instruments.arrangement import Arrangement
from instruments.capabilities import Capabilities
from instruments.commands import AcquireFrame, Blank, Command, Park, RunProcedure, SetAxes
from instruments.errors import AcquisitionFailed, CommandRefused, ConfigurationError, InstrumentFault, Unsupported
from instruments.frames import Frame
from instruments.microscope import Outcome
from instruments.state import MicroscopeState
from instruments.units import electrons
from simulation.world.clock import Situation, prepared, rearranged
from simulation.world.config import SimulatedConfig, parse_config
from simulation.world.fittings import FLASH, Fittings, fitted_axes
from simulation.world.instrument_card import (
    CAMERA_LENGTH,
    card,
    mode_of_length,
    refuse_frame,
    refuse_park,
    refuse_procedure,
    refuse_setting,
)
from simulation.world.randomness import Purpose, generator
from simulation.world.readings import Readings
from simulation.world.rendering import Exposure, Renderer
from simulation.world.specimen import World
from simulation.world.truth import birth_truth, dose_truth, native_truth, world_truth


def open_simulated(**config: Any) -> SimulatedMicroscope:
    """The simulated microscope of a `SimulatedConfig`. Raises ConfigurationError naming key, value, range and unit."""
    checked = parse_config(config)
    names = [mode.name for mode in card(checked).modes]
    if checked.initial_mode not in names:
        raise ConfigurationError(
            f"initial_mode = {checked.initial_mode!r} is not one of {', '.join(names)}; choose one"
        )
    return SimulatedMicroscope(checked, World.build(checked))


@dataclass
class SimulatedMicroscope:
    """`Microscope`, `Forecasting`, `Rebuildable` and `HiddenTruth` on one hidden `World`.

    Random draws of a command are keyed by (seed, ordinal of the command, purpose), so a frame exposed once can be made
    again, bit for bit, at any later time and after `rebuild`. Commands that change nothing (refused ones, blanking a
    blanked beam) have no ordinal. With `time_scale` above 0 an exposure takes time on the wall's clock too.
    """

    config: SimulatedConfig
    world: World
    _exposures: dict[str, Exposure] = field(default_factory=dict[str, Exposure])
    _executed: dict[str, Command] = field(default_factory=dict[str, Command])

    def __post_init__(self) -> None:
        self._is_exposing = self._is_darkened = False
        self._changing = threading.Lock()
        self._card = card(self.config)
        self._situation = Situation.start(self.config, self.config.initial_mode)
        if self.config.fittings:
            self._situation = replace(self._situation, fittings=self._fitted())
        self._stopped = threading.Event()
        self._renderer = Renderer(self.world, self._card)
        self._readings = Readings(self.config, self.world, self._card)

    def capabilities(self) -> Capabilities:
        """Modes `maadf` (MAADF, BF) and `haadf` (HAADF, ABF), axes with their limits and settle times."""
        return self._card

    def read_state(self) -> MicroscopeState:
        """Read back now; does not advance the clock."""
        now = self._situation
        is_blanked = (now.is_blanked and not self._is_exposing) or self._stopped.is_set()
        return self._readings.state(now, self._readings.factor(now.ordinal), is_blanked=is_blanked)

    def forecast(self, command: AcquireFrame) -> tuple[float, float]:
        """(electrons, seconds) `command` would take now, moves and settling included; nothing moves."""
        self._refuse_frame(command)
        settled = prepared(self._situation, command, self.config, self.world.drift)
        duration_s = self._card.blanker_settle_s + command.scan.duration_s(command.subframe_count)
        current_pa = self._readings.current_pa(settled, settled.time_s + duration_s / 2)
        waiting_s = command.subframe_count * settled.fittings.waiting_s(command.scan)
        waiting_s += 0.0 if self._situation.is_blanked else self._card.blanker_settle_s
        return electrons(current_pa, duration_s), settled.time_s + duration_s + waiting_s - self._situation.time_s

    def execute(self, command: Command) -> MicroscopeState:
        """Park, blank, unblank, set axes, flash; a command carried out before is not carried out again."""
        if isinstance(command, AcquireFrame):
            raise CommandRefused("acquire_frame goes through acquire(), which returns its frame")
        if self._stopped.is_set() and not isinstance(command, Blank):
            raise InstrumentFault("stopped: the beam is blanked; open the instrument again after a person has looked")
        if command.action_id not in self._executed:
            self._refuse(command)
            self._stopped.wait(self.config.faults.latency_s)
            with self._changing:
                self._carry_out(command)
        self._refuse_other(command)
        state = self.read_state()
        return state.with_readings(command.values, self._card) if isinstance(command, SetAxes) else state

    def acquire(self, command: AcquireFrame) -> Frame:
        """Expose once and return the counts; an action id already exposed gives the same frame without exposing."""
        if command.action_id not in self._executed:
            if self._stopped.is_set():
                raise InstrumentFault(
                    "stopped: no further exposure; open the instrument again after a person has looked"
                )
            self._refuse_frame(command)
            self._stopped.wait(self.config.faults.latency_s)
            with self._changing:
                self._expose(command)
            self._keep_the_beam_on(self._exposures[command.action_id])
        self._refuse_other(command)
        exposure = self._exposures[command.action_id]
        if self.config.faults.loses(self.config.seed, exposure.situation.ordinal):
            raise AcquisitionFailed(f"frame {command.action_id} was exposed and got lost; its dose is spent, go on")
        counts = self._renderer.counts(exposure, self._readings.mode(command.mode))
        return self._readings.frame(exposure, counts)

    def acquire_dark(self, command: AcquireFrame) -> Frame:
        """What the detectors give without a beam: their offset, for they have no dark counts. No time passes."""
        self._refuse_frame(command)
        return self._readings.dark_frame(command, self._situation, self.read_state())

    def outcome(self, action_id: str) -> Outcome:
        """Delivered, if it was carried out; the twin always knows."""
        return "delivered" if action_id in self._executed else "not_started"

    def stop(self) -> None:
        """Blank until `release`; a frame in progress counts as exposed whole, nothing is exposed after it.

        A lit beam burns where it stands until it is dark; a `Blank` after it finds it dark.
        """
        self._stopped.set()
        with self._changing:
            self._situation = replace(self._darkened(), is_blanked=self._situation.is_blanked)
            self._is_darkened = True

    def release(self) -> None:
        """Go on after `stop`, the beam blanked. A stop is no command: it has no ordinal, later draws do not change."""
        with self._changing:
            self._situation, self._is_darkened = replace(self._situation, is_blanked=True), False
        self._stopped.clear()

    def rebuild(self, commands: Sequence[Command]) -> None:
        """Carry out `commands` without images. What would be refused, or was done already, is passed over."""
        for command in commands:
            if command.action_id in self._executed:
                continue
            try:
                with self._changing:
                    self._do(command)
            except (CommandRefused, Unsupported):
                continue

    def prepare(self, worker_count: int = 1) -> None:
        """Compute the lattice's images now (tens of CPU seconds, kept in `cache_folder`) instead of at first need."""
        self._renderer.prepare(worker_count)

    def truth(self) -> dict[str, Any]:
        """The hidden world: `native`, `beam_made` (dicts of arrays), landscape, optics, dose, `actions` by action id.

        Specimen frame: the nominal coordinates at time 0. specimen = nominal + `displacement_nm` of the action
        (middle of its exposure, stage errors included; of a specimen that leans at the middle of the
        field). `true_defocus_offset_nm` is true minus commanded defocus of an upright one at height 0,
        `true_defocus_nm` the total taken for the image (0.5 nm steps), `electrons` all of that action, exact.
        `native`: x_nm, y_nm, species, column, column_index, clean; `beam_made`: x_nm, y_nm, species it became, time_s,
        action_id, subframe (the first that shows it; the sub-frame count where only later frames do), clean.
        `clean_mask` and `dose_map_e_per_a2` are on 1 nm cells, lowest y first; `density_field` on 2 nm cells.
        """
        return {
            **world_truth(self.world),
            **dose_truth(self.world),
            "native": native_truth(self.world),
            "beam_made": birth_truth(self.world, self.world.columns.births),
            "actions": {action_id: self._action_truth(exposure) for action_id, exposure in self._exposures.items()},
        }

    def _do(self, command: Command) -> None:
        if isinstance(command, AcquireFrame):
            self._refuse_frame(command)
            self._expose(command)
        else:
            self._refuse(command)
            self._carry_out(command)

    def _expose(self, command: AcquireFrame) -> None:
        """Everything a frame does to the world, without its image."""
        world, settle_s = self.world, self._card.blanker_settle_s
        before = self._situation
        situation = prepared(self._darkened(), command, self.config, world.drift)
        rng = generator(self.config.seed, Purpose.DAMAGE, situation.ordinal)
        births_before = len(world.columns.births)
        settling = electrons(self._readings.current_pa(situation, situation.time_s), settle_s)
        if command.scan.at_once:
            world.expose_subframe(situation, command, settling, situation.time_s, situation.time_s, 0, rng)
        else:
            world.expose_first_pixel(situation, command, settling, situation.time_s, rng)
        lit_s = command.scan.duration_s()
        subframe_s = lit_s + situation.fittings.waiting_s(command.scan)
        true_electrons: list[float] = []
        for subframe in range(command.subframe_count):
            start_s = situation.time_s + settle_s + subframe * subframe_s
            middle_s, end_s = start_s + subframe_s / 2, start_s + subframe_s
            true_electrons.append(electrons(self._readings.current_pa(situation, middle_s), lit_s))
            world.expose_subframe(situation, command, true_electrons[-1], middle_s, end_s, subframe + 1, rng)
        ended_s = situation.time_s + settle_s + command.subframe_count * subframe_s
        self._exposures[command.action_id] = Exposure(
            command=command,
            started_s=before.time_s,
            situation=situation,
            ended_s=ended_s,
            births_before_count=births_before,
            births_after_count=len(world.columns.births),
            true_electrons=tuple(true_electrons),
            settling_electrons=settling,
            reading_factor=self._readings.factor(situation.ordinal),
        )
        self._executed[command.action_id] = command
        self._situation = replace(situation, time_s=ended_s)

    def _keep_the_beam_on(self, exposure: Exposure) -> None:
        """Let the wall's clock pass as `time_scale` says; a stop ends the waiting, the exposure stays whole."""
        beam_on_s = exposure.ended_s - exposure.situation.time_s
        if self.config.time_scale > 0:
            self._is_exposing = True
            try:
                self._stopped.wait(beam_on_s * self.config.time_scale)
            finally:
                self._is_exposing = False

    def _darkened(self) -> Situation:
        """The beam off; a lit one still burns where it is while the blanker settles."""
        now, settle_s = self._situation, self._card.blanker_settle_s
        if not now.is_blanked and not self._is_darkened:
            self._burn(now, settle_s, 2, "blanking")
            now = replace(now, time_s=now.time_s + settle_s)
        return replace(now, is_blanked=True)

    def _lit(self, now: Situation) -> Situation:
        """The beam on, which burns while the blanker settles; one that was on stays so."""
        if not now.is_blanked:
            return now
        settle_s, self._is_darkened = self._card.blanker_settle_s, False
        self._burn(now, settle_s, 3, "unblanking")
        return replace(now, time_s=now.time_s + settle_s, is_blanked=False)

    def _fitted(self) -> Fittings:
        return Fittings.start(fitted_axes(self._card.modes), self.config.max_current_pa)

    def _refuse_frame(self, command: AcquireFrame) -> None:
        refuse_frame(command, self._card, self.config, self._situation.fittings)
        if refusal := self._situation.fittings.current_refusal(command.optics.probe_current_pa):
            raise CommandRefused(refusal)

    def _refuse(self, command: Command) -> None:
        is_blanked = self._situation.is_blanked
        if isinstance(command, Park):
            refuse_park(command, self._card)
        if isinstance(command, SetAxes):
            refuse_setting(command, self._card, is_blanked=is_blanked)
        if isinstance(command, RunProcedure):
            refuse_procedure(command, self._card, is_blanked=is_blanked)

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Blank) and self._situation.is_blanked:
            self._executed[command.action_id] = command  # nothing changes, so that a paused run decides as any other
            return
        now = replace(self._situation, ordinal=self._situation.ordinal + 1)
        if isinstance(command, Park):
            shift = (command.beam_shift_x_nm, command.beam_shift_y_nm)
            settle_s = self.config.beam_shift_settle_s if shift != now.beam_shift_nm else 0.0
            now = replace(now, beam_shift_nm=shift)
            rest_s = settle_s + command.duration_s
            if not now.is_blanked:
                self._burn(now, rest_s, 1, command.action_id)
            now = replace(now, time_s=now.time_s + rest_s)
        elif isinstance(command, SetAxes):
            now = self._with_axes(command)
        elif isinstance(command, RunProcedure):
            ended_s = now.time_s + FLASH.duration_s
            now = replace(now, time_s=ended_s, fittings=now.fittings.flashed(ended_s))
        elif isinstance(command, Blank):
            now = replace(self._darkened(), ordinal=now.ordinal)
        else:
            now = self._lit(now)
        self._executed[command.action_id] = command
        self._situation = now

    def _with_axes(self, command: SetAxes) -> Situation:
        """Stage, lenses and beam first, then what is fitted."""
        before, fitted = self._situation, fitted_axes(self._card.modes)
        names = {axis.name for axis in fitted}
        others = {name: value for name, value in command.values.items() if name not in names | {CAMERA_LENGTH}}
        wanted = Arrangement(before.stage, before.optics, before.beam_shift_nm).with_values(others)
        now = rearranged(before, wanted, self.config, self.world.drift)
        mode = mode_of_length(self._card, before.mode, command.values.get(CAMERA_LENGTH))
        if mode != before.mode:
            now = replace(now, time_s=now.time_s + self.config.camera_length_change_s, mode=mode)
        if not names & command.values.keys():
            return now
        fittings, settled_s = now.fittings.with_values(command.values, fitted, now.time_s)
        return replace(now, fittings=fittings, time_s=settled_s)

    def _burn(self, situation: Situation, duration_s: float, key: int, action_id: str) -> None:
        time_s = situation.time_s
        middle_s = time_s + duration_s / 2
        amount = electrons(self._readings.current_pa(situation, middle_s), duration_s)
        rng = generator(self.config.seed, Purpose.DAMAGE, situation.ordinal, key)
        x_nm, y_nm = self.world.true_point_nm(situation, middle_s)
        self.world.expose_point(x_nm, y_nm, amount, time_s + duration_s, action_id, rng)

    def _refuse_other(self, command: Command) -> None:
        if self._executed[command.action_id] != command:
            raise CommandRefused(f"action id {command.action_id!r} was used for another command; give each its own")

    def noiseless(self, action_id: str, subframe: int) -> dict[str, np.ndarray]:
        """Expected images of an exposed sub-frame by detector, fraction of the beam: hidden, for checks."""
        exposure = self._exposures[action_id]
        return self._renderer.noiseless(exposure, subframe, self._readings.mode(exposure.command.mode))

    def exposure(self, action_id: str) -> Exposure:
        """What is kept of an exposed action; part of the hidden truth."""
        return self._exposures[action_id]

    def _action_truth(self, exposure: Exposure) -> dict[str, Any]:
        middle_s = (exposure.situation.time_s + exposure.ended_s) / 2
        situation = exposure.situation
        x_nm, y_nm = self.world.drift.displacement_nm(situation, middle_s)
        if situation.standing != situation.stage or not situation.tilt.is_upright:
            nominal = (
                (situation.stage.x_nm, situation.beam_shift_nm[0]),
                (situation.stage.y_nm, situation.beam_shift_nm[1]),
            )
            point_nm = self.world.true_point_nm(situation, middle_s)
            x_nm, y_nm = (true - sum(asked) for true, asked in zip(point_nm, nominal, strict=True))
        return {
            "displacement_nm": (float(x_nm), float(y_nm)),
            "true_defocus_offset_nm": self.world.focus_error_nm(exposure.situation, middle_s),
            "true_defocus_nm": self._renderer.true_optics(exposure).defocus_nm,
            "electrons": sum(exposure.true_electrons) + exposure.settling_electrons,
            "time_s": middle_s,
        }
