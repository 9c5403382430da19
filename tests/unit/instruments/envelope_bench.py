"""A microscope that does what it is told and says so, or otherwise where a test wants that; for tests of the guard."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from instruments import (
    Aberrations,
    AcquireFrame,
    Axis,
    Capabilities,
    Command,
    Detector,
    Frame,
    GuardedMicroscope,
    InstrumentError,
    LinkLost,
    MicroscopeState,
    Mode,
    Optics,
    Outcome,
    Park,
    Procedure,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    StagePosition,
)
from instruments.arrangement import Arrangement
from instruments.state import AxisReading
from instruments.units import electrons

CURRENT_PA = 50.0
CARD = Capabilities(
    name="bench",
    simulated=True,
    axes=(
        *(Axis(name=name, minimum=-1e6, maximum=1e6, frame="stage") for name in ("x_nm", "y_nm", "z_nm")),
        Axis(name="alpha_deg", minimum=-70, maximum=70, frame="stage"),
        Axis(name="beta_deg", minimum=-30, maximum=30, frame="stage"),
        *(Axis(name=f"beam_shift_{way}_nm", minimum=-1e6, maximum=1e6, frame="beam_shift") for way in "xy"),
        Axis(name="defocus_nm", minimum=-1e4, maximum=1e4),
        Axis(name="c10_nm", minimum=-1e4, maximum=1e4),
        Axis(name="beam_energy_ev", minimum=60e3, maximum=300e3),
        Axis(name="holder.temperature_k", minimum=80, maximum=1200, frame="holder"),
        Axis(name="column_valves", choices=("closed", "open"), frame="column"),
        Axis(name="burner", minimum=0, maximum=1, interlocked=True, frame="holder"),
    ),
    modes=(
        Mode(name="haadf", detectors=(Detector(name="haadf"),)),
        Mode(name="camera", kind="tem_image", detectors=(Detector(name="ccd", shape_px=(32, 32)),)),
    ),
    procedures=(Procedure(name="normalise", duration_s=2.0), Procedure(name="home", duration_s=9.0, exposes=False)),
)


START = Arrangement(
    StagePosition(), Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20, probe_current_pa=CURRENT_PA)
)


@dataclass
class Bench:
    """A microscope that remembers what it is told; `lie` is added to what it reads back, `error` raised once."""

    card: Capabilities = CARD
    at: Arrangement = START
    others: dict[str, Any] = field(default_factory=dict[str, Any])
    told: list[Command] = field(default_factory=list)
    error: InstrumentError | None = None
    lie: float = 0.0
    time_s: float = 0.0
    blanked: bool = True
    lost: bool = False
    undetermined: dict[str, str] = field(default_factory=dict)
    remembers: Outcome = "unknown"

    def capabilities(self) -> Capabilities:
        return self.card

    def read_state(self) -> MicroscopeState:
        axes = {name: AxisReading(read_back=value) for name, value in self.others.items()}
        return MicroscopeState(
            time_s=self.time_s, stage=self.at.stage, optics=self.at.optics, beam_blanked=self.blanked, axes=axes,
            undetermined=self.undetermined, beam_shift_x_nm=self.at.beam_shift_nm[0],
            beam_shift_y_nm=self.at.beam_shift_nm[1],
        )  # fmt: skip

    def execute(self, command: Command) -> MicroscopeState:
        self._note(command)
        if isinstance(command, Park):
            self.at = replace(self.at, beam_shift_nm=(command.beam_shift_x_nm, command.beam_shift_y_nm))
        state = self.read_state()
        if isinstance(command, SetAxes):
            known = {name: value for name, value in command.values.items() if name in axis_names()}
            self.at = self.at.with_values(known)
            self.others |= {name: value for name, value in command.values.items() if name not in known}
            state = self.read_state().with_readings(command.values, self.card)
            if self.lie:
                axes = {
                    name: reading.model_copy(update={"read_back": float(reading.read_back or 0) + self.lie})
                    for name, reading in state.axes.items()
                }
                state = state.model_copy(update={"axes": axes})
        return state

    def acquire(self, command: AcquireFrame) -> Frame:
        self._note(command)
        self.at = Arrangement(
            command.stage, command.optics, (command.scan.beam_shift_x_nm, command.scan.beam_shift_y_nm)
        )
        return Frame(
            action_id=command.action_id, requested=command, state=self.read_state(), mode=self.card.modes[0],
            counts={"haadf": np.zeros((1, *command.scan.shape_px), np.uint16)},
            pixel_size_nm=command.scan.pixel_size_nm, dose_e_per_a2=0.0,
            electrons=electrons(command.optics.probe_current_pa, command.scan.duration_s()),
            started_s=0.0, ended_s=self.time_s, instrument="bench", simulated=True,
        )  # fmt: skip

    def outcome(self, action_id: str) -> Outcome:
        return self.remembers

    def stop(self) -> None:
        self.blanked = True

    def is_link_lost(self) -> bool:
        return self.lost

    def reconnect(self) -> None:
        if self.lost:
            raise LinkLost("still nobody there")

    def _note(self, command: Command) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.told.append(command)


def axis_names() -> set[str]:
    return set(StagePosition.model_fields) | set(Optics.model_fields) | set(Aberrations.model_fields)


def setting(**values: Any) -> SetAxes:
    return SetAxes(action_id="s", values={name.replace("__", "."): value for name, value in values.items()})


def frame(mode: str = "haadf", stage: dict[str, float] | None = None, **scan: Any) -> AcquireFrame:
    return AcquireFrame(
        action_id="f",
        deadline_s=60,
        stage=StagePosition(**(stage or {})),
        optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20, probe_current_pa=CURRENT_PA),
        scan=ScanPattern.model_validate(
            {"field_of_view_nm": 10.0, "shape_px": (10, 10), "dwell_time_us": 1.0, "at_once": mode == "camera", **scan}
        ),
        mode=mode,
    )


def guard(bench: Bench | None = None, **limits: Any) -> GuardedMicroscope:
    return GuardedMicroscope(bench or Bench(), SafetyEnvelope(**limits))
