"""10,000 random plans against the guard: what reaches the adapter is checked there by code of its own.

A plan is an envelope and a few commands of every kind, with values at, just inside and just outside limits, not a
number, infinite, enormous and denormal, some of them past the border that validates; adapters fail and links break,
beams are narrower than commanded, currents other than declared, frames are taken elsewhere, rasters smaller.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Axis,
    Blank,
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
    ResultUnknown,
    RunProcedure,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unblank,
)
from instruments.limits import AxisLimit, BeamSetting, StageBox
from instruments.state import AxisReading

PLANS = 10_000
STAGE = ("x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg")
TABLE = (
    {"alpha_deg": 20, "beta_deg": 10, "x_nm": 800, "y_nm": 800, "z_nm": 300},
    {"alpha_deg": 60, "beta_deg": 2, "x_nm": 100, "y_nm": 100, "z_nm": 20},
)
MAX_X_NM, MAX_SHIFT_NM, MAX_DEFOCUS_NM, MAX_TILT_DEG = 900.0, 300.0, 50.0, 65.0
MAX_PA, MAX_EXPOSURE_S, MAX_DOSE, MAX_ELECTRONS = 200.0, 3.0, 5e4, 4e10
STEP_NM, RATE_K_PER_S, MAX_K = 400.0, 5.0, 500.0
NARROWEST_NM, MAX_ERROR_NM, DECLARED_PA = 10.0, 50.0, 50.0
SPOT_PA = {1.0: 150.0, 2.0: 50.0, 3.0: 5000.0}
ENVELOPE = SafetyEnvelope(
    min_stage_x_nm=-MAX_X_NM, max_stage_x_nm=MAX_X_NM, min_stage_y_nm=-MAX_X_NM, max_stage_y_nm=MAX_X_NM,
    max_stage_tilt_deg=MAX_TILT_DEG, max_beam_shift_nm=MAX_SHIFT_NM, min_defocus_nm=-MAX_DEFOCUS_NM,
    max_defocus_nm=MAX_DEFOCUS_NM, max_current_pa=MAX_PA, max_exposure_s=MAX_EXPOSURE_S,
    max_dose_e_per_a2=MAX_DOSE, max_electrons=MAX_ELECTRONS, procedures=("home",),
    axes={
        "x_nm": AxisLimit(max_step=STEP_NM),
        "holder.temperature_k": AxisLimit(maximum=MAX_K, max_rate_per_s=RATE_K_PER_S),
        "burner": AxisLimit(maximum=0.5),
    },
    max_position_error_nm=MAX_ERROR_NM,
    beam=(
        BeamSetting(mode="camera", min_illuminated_nm=NARROWEST_NM),
        *(BeamSetting(axes={"spot_index": spot}, max_current_pa=SPOT_PA[spot]) for spot in (1.0, 2.0)),
    ),
    pole_piece=tuple(
        StageBox(
            max_alpha_deg=box["alpha_deg"], max_beta_deg=box["beta_deg"], min_x_nm=-box["x_nm"], max_x_nm=box["x_nm"],
            min_y_nm=-box["y_nm"], max_y_nm=box["y_nm"], min_z_nm=-box["z_nm"], max_z_nm=box["z_nm"],
        )
        for box in TABLE
    ),
)  # fmt: skip
CARD = Capabilities(
    name="recorder",
    simulated=True,
    axes=(
        *(Axis(name=name, minimum=-1e6, maximum=1e6, frame="stage") for name in STAGE),
        *(Axis(name=f"beam_shift_{axis}_nm", minimum=-1e4, maximum=1e4, frame="beam_shift") for axis in "xy"),
        Axis(name="defocus_nm", minimum=-1e5, maximum=1e5),
        Axis(name="c10_nm", minimum=-1e5, maximum=1e5),
        Axis(name="probe_current_pa", minimum=0, maximum=1e4),
        Axis(name="beam_energy_ev", minimum=60e3, maximum=300e3),
        Axis(name="holder.temperature_k", minimum=0, maximum=1000, frame="holder"),
        Axis(name="burner", minimum=0, maximum=1, frame="holder", interlocked=True),
        Axis(name="column_valves", choices=("closed", "open"), frame="column"),
        Axis(name="screen", choices=("up", "down"), frame="detector"),
        Axis(name="spot_index", minimum=1, maximum=3),
    ),
    modes=(
        Mode(name="haadf", detectors=(Detector(name="haadf"),)),
        Mode(name="camera", kind="tem_image", detectors=(Detector(name="ccd"),)),
    ),
    procedures=(Procedure(name="home", duration_s=1.0, exposes=False), Procedure(name="normalise", duration_s=1.0)),
)
DECLARED = CARD.model_copy(
    update={
        "axes": tuple(
            axis.model_copy(update={"minimum": DECLARED_PA, "maximum": DECLARED_PA})
            if axis.name == "probe_current_pa"
            else axis
            for axis in CARD.axes
        )
    }
)
"""The same, whose current follows its spot size and is not read back."""


@cache
def reading(value: float) -> AxisReading:
    """An axis that stands there."""
    return AxisReading.model_construct(read_back=value)


@cache
def optics_at(energy_ev: float, current_pa: float) -> Optics:
    """What a state says of the lenses."""
    return Optics(beam_energy_ev=energy_ev, semi_convergence_angle_mrad=20, probe_current_pa=current_pa)


@dataclass
class Recorder:
    """Checks everything that reaches it, by arithmetic of its own, and sometimes fails as instruments do."""

    rng: random.Random
    energy_ev: float = 200e3
    current_pa: float = 10.0
    numbers: dict[str, float] = field(
        default_factory=lambda: (
            dict.fromkeys((*STAGE, "beam_shift_x_nm", "beam_shift_y_nm"), 0.0)
            | {"holder.temperature_k": 300.0, "spot_index": 2.0}
        )
    )
    heated_s: float = -math.inf
    time_s: float = 0.0
    is_lost: bool = False
    is_declared: bool = False
    is_held: bool = False
    arrived: int = 0
    spent: float = 0.0
    dose: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])
    violations: list[str] = field(default_factory=list[str])

    def capabilities(self) -> Capabilities:
        return DECLARED if self.is_declared else CARD

    def read_state(self) -> MicroscopeState:
        numbers = self.numbers
        return MicroscopeState.model_construct(
            time_s=self.time_s,
            stage=StagePosition.model_construct(None, **{name: numbers[name] for name in STAGE}),
            beam_shift_x_nm=numbers["beam_shift_x_nm"],
            beam_shift_y_nm=numbers["beam_shift_y_nm"],
            optics=optics_at(self.energy_ev, self.current_pa),
            undetermined={"optics.probe_current_pa": "declared"} if self.is_declared else {},
            axes={name: reading(numbers[name]) for name in ("holder.temperature_k", "spot_index")},
        )

    def execute(self, command: Command) -> MicroscopeState:
        self._arrive(command)
        match command:
            case Unblank() | AcquireFrame():
                self._violated(f"{command.kind} through execute")
            case Park():
                self._shift(command.beam_shift_x_nm, command.beam_shift_y_nm)
            case SetAxes():
                self._set(command.values)
            case RunProcedure():
                self._must(command.name == "home", f"procedure {command.name}")
            case Blank():
                self.is_lost = False
        self._fail_sometimes()
        state = self.read_state()
        return state.with_readings(command.values, CARD) if isinstance(command, SetAxes) else state

    def acquire(self, command: AcquireFrame) -> Frame:
        self._arrive(command)
        scan, optics = command.scan, command.optics
        self._move({name: getattr(command.stage, name) for name in STAGE})
        self._shift(scan.beam_shift_x_nm, scan.beam_shift_y_nm)
        self._lens(optics.defocus_nm, self._flows_pa(optics.probe_current_pa))
        self._must(optics.beam_energy_ev == self.energy_ev, f"energy {optics.beam_energy_ev}")
        self._must(not self.is_declared or optics.probe_current_pa == DECLARED_PA, "another current than is fixed")
        self._must(command.mode in ("haadf", "camera"), f"mode {command.mode}")
        self._must(scan.at_once == (command.mode == "camera"), "camera scanned, or a scan exposed at once")
        offset_nm = self.rng.choice((30.0, -90.0)) if self.rng.random() < 0.03 else 0.0
        self.numbers["x_nm"] += offset_nm
        parts = 2 if min(scan.shape_px) > 1 and not scan.at_once and self.rng.random() < 0.03 else 1
        self._expose(command, parts, is_known_after=offset_nm != 0 or parts > 1)
        if parts == 1:  # what came out otherwise is known by the frame alone
            self._fail_sometimes()
        self.is_held = abs(offset_nm) > MAX_ERROR_NM or parts > 1
        return Frame(
            action_id=command.action_id, requested=command, state=self.read_state(), mode=CARD.modes[0],
            counts={"haadf": np.broadcast_to(np.uint16(0), (1, *(side // parts for side in scan.shape_px)))},
            pixel_size_nm=scan.field_of_view_nm / scan.shape_px[1], dose_e_per_a2=0.0,
            electrons=self._electrons(command), started_s=0.0, ended_s=self.time_s, instrument="recorder",
            simulated=True,
        )  # fmt: skip

    def outcome(self, action_id: str) -> Outcome:
        return "unknown"

    def stop(self) -> None:
        pass

    def is_link_lost(self) -> bool:
        return self.is_lost

    def reconnect(self) -> None:
        self.is_lost = False

    # --- what a facility would check, had it only this adapter

    def _arrive(self, command: Command) -> None:
        self.arrived += 1
        self.time_s += self.rng.choice((0.0, 0.1, 1.0, 50.0))
        self._must(not self.is_lost or isinstance(command, Blank), "issued while the link was lost")
        self._must(not self.is_held or isinstance(command, Blank), "issued after a frame taken too far off")

    def _must(self, holds: bool, what: str) -> None:
        if not holds:
            self._violated(what)

    def _violated(self, what: str) -> None:
        self.violations.append(what)

    def _move(self, wanted: dict[str, float]) -> None:
        """One axis after the other, in any order: every corner on the way must be in the table."""
        for name, value in wanted.items():
            self._must(math.isfinite(value), f"{name} = {value}")
        self._must(abs(wanted.get("x_nm", self.numbers["x_nm"]) - self.numbers["x_nm"]) <= STEP_NM, "step of x")
        order = list(wanted)
        self.rng.shuffle(order)
        for name in order:
            self.numbers[name] = wanted[name]
            position = {axis: self.numbers[axis] for axis in STAGE}
            inside = any(all(abs(position[axis]) <= box[axis] for axis in STAGE) for box in TABLE)
            self._must(inside, f"stage at {position}")
        self._must(max(abs(self.numbers["x_nm"]), abs(self.numbers["y_nm"])) <= MAX_X_NM, "stage x or y")
        self._must(max(abs(self.numbers["alpha_deg"]), abs(self.numbers["beta_deg"])) <= MAX_TILT_DEG, "tilt")

    def _shift(self, x_nm: float, y_nm: float) -> None:
        self._must(abs(x_nm) <= MAX_SHIFT_NM and abs(y_nm) <= MAX_SHIFT_NM, f"beam shift {x_nm}, {y_nm}")
        self.numbers |= {"beam_shift_x_nm": x_nm, "beam_shift_y_nm": y_nm}

    def _lens(self, defocus_nm: float, current_pa: float) -> None:
        self._must(abs(defocus_nm) <= MAX_DEFOCUS_NM, f"defocus {defocus_nm}")
        self._must(0 <= current_pa <= MAX_PA, f"current {current_pa}")
        self.current_pa = current_pa

    def _set(self, values: dict[str, Any]) -> None:
        self._must(values.keys() <= {axis.name for axis in CARD.axes}, f"unknown axis in {values}")
        for name in ("column_valves", "beam_energy_ev", "burner"):
            self._must(name not in values, f"{name} set without permission")
        self._move({name: values[name] for name in STAGE if name in values})
        if "beam_shift_x_nm" in values or "beam_shift_y_nm" in values:
            shift = self.numbers | values
            self._shift(shift["beam_shift_x_nm"], shift["beam_shift_y_nm"])
        self._lens(
            values.get("defocus_nm", -values.get("c10_nm", 0.0)), values.get("probe_current_pa", self.current_pa)
        )
        self.numbers["spot_index"] = values.get("spot_index", self.numbers["spot_index"])
        if "holder.temperature_k" in values:
            self._heat(values["holder.temperature_k"])

    def _heat(self, kelvin: float) -> None:
        step, since_s = abs(kelvin - self.numbers["holder.temperature_k"]), self.time_s - self.heated_s
        self._must(0 <= kelvin <= MAX_K, f"{kelvin} K")
        self._must(step <= RATE_K_PER_S * since_s * (1 + 1e-9), f"{step} K in {since_s} s")
        if step:
            self.heated_s = self.time_s
        self.numbers["holder.temperature_k"] = kelvin

    def _seconds(self, command: AcquireFrame) -> float:
        scan = command.scan
        pixels = 1 if scan.at_once else scan.shape_px[0] * scan.shape_px[1]
        lines = 0 if scan.at_once else scan.shape_px[0]
        return command.subframe_count * (pixels * scan.dwell_time_us + lines * scan.flyback_time_us) * 1e-6

    def _flows_pa(self, said_pa: float) -> float:
        return SPOT_PA[self.numbers["spot_index"]] if self.is_declared else said_pa

    def _electrons(self, command: AcquireFrame) -> float:
        current_pa = self._flows_pa(command.optics.probe_current_pa)
        return current_pa * 1e-12 / 1.602176634e-19 * self._seconds(command)

    def _expose(self, command: AcquireFrame, parts: int, *, is_known_after: bool) -> None:
        """`parts`: how many times smaller than commanded the sides of the raster come out, all electrons on it."""
        seconds, count = self._seconds(command), self._electrons(command)
        self._must(seconds <= MAX_EXPOSURE_S * (1 + 1e-12), f"exposure of {seconds} s")
        self.time_s += seconds if math.isfinite(seconds) else 0.0
        self.spent += count
        self._must(self.spent <= MAX_ELECTRONS * (1 + 1e-9), f"{self.spent} electrons")
        scan = command.scan
        rows, columns = scan.shape_px
        width_nm = scan.field_of_view_nm
        height_nm = width_nm / columns * rows
        cell = (
            math.floor(self.numbers["x_nm"] + scan.beam_shift_x_nm),
            math.floor(command.stage.y_nm + scan.beam_shift_y_nm),
        )
        area_nm2 = width_nm * height_nm / parts**2
        if scan.at_once:
            area_nm2 = self._lit_nm2(scan.illuminated_nm, width_nm, height_nm)
        self.dose[cell] = self.dose.get(cell, 0.0) + count / (area_nm2 * 100)  # the point in the middle, always lit
        is_within = self.dose[cell] <= MAX_DOSE * (1 + 1e-9)
        self._must(is_within or is_known_after, f"dose {self.dose[cell]} at {cell}")

    def _lit_nm2(self, said_nm: float | None, width_nm: float, height_nm: float) -> float:
        """The lit area: as commanded, or anything that the facility says the beam can be and that is no wider."""
        if said_nm is None and (self.rng.random() < 0.5 or min(width_nm, height_nm) < NARROWEST_NM):
            return width_nm * height_nm
        widest_nm = said_nm or min(width_nm, height_nm)
        return math.pi / 4 * self.rng.uniform(min(NARROWEST_NM, widest_nm), widest_nm) ** 2

    def _fail_sometimes(self) -> None:
        """After everything was carried out: no answer, a broken link, a lost frame."""
        draw = self.rng.random()
        if draw < 0.02:
            self.is_lost = True
            raise self.rng.choice((LinkLost, ResultUnknown))("the line broke")
        if draw < 0.05:
            raise self.rng.choice((ResultUnknown, AcquisitionFailed))("no answer")


AWKWARD = (
    math.nan, math.inf, -math.inf, 1e300, -1e300, 1.8e308, 5e-324, -5e-324, 0.0, -0.0, 1e-9, 1e12, 2.0**63,
)  # fmt: skip


def near(rng: random.Random, limit: float, signed: bool = True) -> float:
    """A value inside, at, or a hair's breadth beyond a limit; now and then an awkward one."""
    draw = rng.random()
    if draw < 0.04:
        return rng.choice(AWKWARD)
    sign = rng.choice((-1, 1)) if signed else 1
    if draw < 0.25:
        return sign * rng.choice((limit, math.nextafter(limit, math.inf), math.nextafter(limit, 0), limit * 1.01))
    return sign * rng.uniform(0, limit * (0.5 if draw < 0.85 else 1.5))


def made(rng: random.Random, model: Any, **values: Any) -> Any:
    """Validated as at a border, or, sometimes, put together past it."""
    return model.model_construct(**values) if rng.random() < 0.1 else model(**values)


def stage(rng: random.Random) -> StagePosition:
    limits = {"x_nm": 500.0, "y_nm": 500.0, "z_nm": 20.0, "alpha_deg": 60.0, "beta_deg": 2.0}
    named = rng.sample(sorted(limits), rng.choice((0, 0, 1, 2, 5)))
    return made(rng, StagePosition, **{name: near(rng, limits[name]) for name in named})


def frame(rng: random.Random) -> AcquireFrame:
    at_once = rng.random() < 0.2
    optics = made(
        rng,
        Optics,
        beam_energy_ev=200e3 if rng.random() < 0.9 else rng.choice((80e3, 300e3, math.nan, 1e300)),
        semi_convergence_angle_mrad=20.0,
        probe_current_pa=near(rng, MAX_PA, signed=rng.random() < 0.02),
        defocus_nm=near(rng, MAX_DEFOCUS_NM),
    )
    scan = made(
        rng,
        ScanPattern,
        field_of_view_nm=near(rng, 60.0, False) if rng.random() < 0.9 else rng.choice((1e-6, 1e6, 4001.0, 1e-300)),
        shape_px=rng.choice(((64, 64), (1, 1), (512, 512), (1, 4096), (4096, 3), (0, 5), (5, 0), (-1, 8))),
        dwell_time_us=near(rng, 1e6, signed=False)
        if at_once
        else near(rng, rng.choice((1.0, 20.0, 1e3)), signed=False),
        flyback_time_us=rng.choice((0.0, 0.0, 100.0, math.inf)) if rng.random() < 0.3 else 0.0,
        rotation_deg=rng.choice((0.0, 0.0, 30.0, -90.0, math.nan)) if rng.random() < 0.3 else 0.0,
        beam_shift_x_nm=near(rng, MAX_SHIFT_NM),
        beam_shift_y_nm=near(rng, MAX_SHIFT_NM),
        at_once=at_once if rng.random() < 0.95 else not at_once,
        illuminated_nm=rng.choice((None, None, 90.0, 30.0)) if at_once else None,
    )
    return made(
        rng, AcquireFrame, action_id="f", deadline_s=60.0, stage=stage(rng), optics=optics, scan=scan,
        mode=rng.choice(("eels", "camera")) if at_once else rng.choice(("haadf",) * 9 + ("eels",)),
        subframe_count=rng.choice((1, 1, 1, 2, 5, 10_000)),
    )  # fmt: skip


LIMITS = {
    "x_nm": 400.0, "y_nm": 800.0, "z_nm": 300.0, "alpha_deg": 60.0, "beta_deg": 10.0, "beam_shift_x_nm": MAX_SHIFT_NM,
    "beam_shift_y_nm": MAX_SHIFT_NM, "defocus_nm": MAX_DEFOCUS_NM, "c10_nm": MAX_DEFOCUS_NM,
    "probe_current_pa": MAX_PA, "beam_energy_ev": 200e3, "holder.temperature_k": MAX_K, "burner": 0.5, "pump": 1.0,
    "flow_ml_per_min": 1.0,
}  # fmt: skip
WORDS = {"column_valves": ("open", "closed"), "screen": ("up", "sideways"), "x_nm": ("left",)}


def axes(rng: random.Random) -> SetAxes:
    values: dict[str, Any] = {
        name: near(rng, LIMITS[name]) for name in rng.sample(sorted(LIMITS), rng.choice((1, 1, 2, 3)))
    }
    if rng.random() < 0.15:
        name = rng.choice(sorted(WORDS))
        values[name] = rng.choice(WORDS[name])
    if rng.random() < 0.05:
        values = {"spot_index": rng.choice(sorted(SPOT_PA))}
    return made(rng, SetAxes, action_id="s", values=values)


def calm(rng: random.Random) -> Command:
    """A frame that may be taken, or a spot size."""
    if rng.random() < 0.3:
        return SetAxes(action_id="s", values={"spot_index": rng.choice(sorted(SPOT_PA))})
    at_once = rng.random() < 0.5
    current_pa = rng.choice((DECLARED_PA, rng.uniform(50, 90)))
    return AcquireFrame(
        action_id="f", deadline_s=60.0, mode="camera" if at_once else "haadf",
        optics=Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20.0, probe_current_pa=current_pa),
        scan=ScanPattern(
            field_of_view_nm=60.0, shape_px=(128, 128), dwell_time_us=rng.uniform(1, 60) * (16384 if at_once else 1),
            at_once=at_once, illuminated_nm=rng.choice((None, 90.0)) if at_once else None,
        ),
    )  # fmt: skip


def command(rng: random.Random) -> Command:
    draw = rng.random()
    if draw < 0.45:
        return frame(rng)
    if draw < 0.85:
        return axes(rng)
    if draw < 0.92:
        return made(
            rng, Park, action_id="p", beam_shift_x_nm=near(rng, MAX_SHIFT_NM), beam_shift_y_nm=near(rng, MAX_SHIFT_NM)
        )
    kinds = (Blank(action_id="b"), Unblank(action_id="u"), RunProcedure(action_id="r", name="home"))
    return rng.choice((*kinds, RunProcedure(action_id="r", name=rng.choice(("normalise", "bake")))))


def carry_out(
    rng: random.Random, guarded: GuardedMicroscope, recorder: Recorder, made_by: Callable[[random.Random], Command]
) -> None:
    """One command of a plan; refusals and failures are what plans are made of."""
    try:
        wanted = made_by(rng)
    except ValueError:  # refused at the border
        return
    try:
        if isinstance(wanted, AcquireFrame) and rng.random() < 0.97:
            guarded.acquire(wanted)
        else:
            guarded.execute(wanted)
    except InstrumentError:
        if (recorder.is_lost or recorder.is_held) and rng.random() < 0.5:
            with suppress(InstrumentError):  # the link can break again, and then nobody can acknowledge
                if recorder.is_lost:
                    guarded.reconnect()
                guarded.acknowledge("fuzz")
                recorder.is_held = False


@dataclass
class Tried:
    """What became of some plans: what reached the adapter and should not have, and how many commands arrived."""

    violations: list[str] = field(default_factory=list[str])
    sent: int = 0
    arrived: int = 0

    def plan(self, number: int, *, is_calm: bool = False) -> None:
        """Carry out one plan; the same number is the same plan. A calm one is of commands that mostly pass."""
        rng = random.Random(number)
        recorder = Recorder(random.Random(PLANS + number), is_declared=number % 2 == 1)
        guarded = GuardedMicroscope(recorder, ENVELOPE, clock=lambda: 0.0)
        for _ in range(6 if is_calm else rng.choice((1, 2, 3, 6))):
            self.sent += 1
            carry_out(rng, guarded, recorder, calm if is_calm else command)
        self.violations += [f"plan {number}: {what}" for what in recorder.violations]
        self.arrived += recorder.arrived


def violations_of(plans: int) -> tuple[list[str], float]:
    """What reached the adapter and should not have, and the part of all commands that arrived."""
    tried = Tried()
    for number in range(plans):
        tried.plan(number)
    return tried.violations, tried.arrived / tried.sent


def test_of_10000_random_plans_no_violation_reaches_the_adapter() -> None:
    violations, arrived_fraction = violations_of(PLANS)
    assert violations == []
    assert arrived_fraction > 0.2, "nothing was tried"


def nothing(*_: object) -> None:
    """A check that was taken away."""


def nowhere(*_: object) -> dict[str, tuple[float, float]]:
    """A comparison that finds nothing."""
    return {}


@pytest.mark.parametrize(
    "check",
    ["conditions.check_bounds", "conditions.check_steps", "conditions.check_pole_piece", "conditions.check_permissions",
     "conditions.check_dose", "conditions.check_axes_of", "link_watch.LinkWatch.refuse", "link_watch.LinkWatch.hold",
     "beam_knowledge.BeamKnowledge.refuse_unknown", "beam_knowledge.Lit.between",
     "taken.displaced", "taken.raster_taken"],
)  # fmt: skip
def test_without_any_one_of_its_checks_violations_are_seen(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"instruments.{check}", nowhere if check == "taken.displaced" else nothing)
    tried = Tried()
    for number in range(1000):
        tried.plan(number, is_calm=check.startswith(("beam", "taken", "link_watch.LinkWatch.hold")))
        if tried.violations:
            return
    pytest.fail(f"{check} is not missed in 1000 plans")


def test_calm_plans_are_within_the_envelope_too() -> None:
    tried = Tried()
    for number in range(300):
        tried.plan(number, is_calm=True)
    assert tried.violations == []
    assert tried.arrived > 0.3 * tried.sent
