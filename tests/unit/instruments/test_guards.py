"""The guard: nothing beyond the envelope reaches the instrument, and every electron is in the books."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    Axis,
    Blank,
    Capabilities,
    Command,
    CommandRefused,
    Detector,
    Frame,
    GuardedMicroscope,
    InstrumentBusy,
    InstrumentError,
    InstrumentFault,
    MicroscopeState,
    Mode,
    Optics,
    Outcome,
    Park,
    ResultUnknown,
    SafetyEnvelope,
    ScanPattern,
    StagePosition,
    Unblank,
    Unsupported,
)
from instruments.footprints import footprint
from instruments.guards import worst_charge
from instruments.units import electrons

MODE = Mode(name="maadf", detectors=(Detector(name="maadf", inner_mrad=40, outer_mrad=100),))
CARD = Capabilities(
    name="recorder",
    simulated=True,
    axes=(
        Axis(name="defocus_nm", minimum=-1e6, maximum=1e6),
        *(
            Axis(name=name, minimum=-1e9, maximum=1e9, frame="stage")
            for name in ("x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg")
        ),
        *(Axis(name=f"beam_shift_{way}_nm", minimum=-1e9, maximum=1e9, frame="beam_shift") for way in "xy"),
        Axis(name="flyback_time_us", maximum=1e9, frame="scan"),
        Axis(name="rotation_deg", minimum=-360, maximum=360, frame="scan"),
    ),
    modes=(MODE,),
    blanker_settle_s=2e-6,
    current_uncertainty_fraction=0.02,
)


@dataclass
class Recorder:
    """A microscope that does whatever it is told and remembers it; its current is a little below the commanded one."""

    card: Capabilities = CARD
    true_current: float = 0.97
    error: InstrumentError | None = None
    blanked: bool = True
    time_s: float = 0.0
    settling_s: float = 0.0
    acquired: list[AcquireFrame] = field(default_factory=list)
    executed: list[Command] = field(default_factory=list)
    stops: int = 0

    def capabilities(self) -> Capabilities:
        return self.card

    def read_state(self) -> MicroscopeState:
        last = self.acquired[-1] if self.acquired else None
        return MicroscopeState(
            time_s=self.time_s,
            stage=last.stage if last else StagePosition(),
            beam_shift_x_nm=last.scan.beam_shift_x_nm if last else 0.0,
            beam_shift_y_nm=last.scan.beam_shift_y_nm if last else 0.0,
            optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=30),
            undetermined={"optics.beam_energy_ev": "it believes what it is told"},
            beam_blanked=self.blanked,
        )

    def execute(self, command: Command) -> MicroscopeState:
        self.executed.append(command)
        return self.read_state()

    def acquire(self, command: AcquireFrame) -> Frame:
        if self.error is not None:
            raise self.error
        self.acquired.append(command)
        started_s = self.time_s
        self.time_s += self.settling_s + command.scan.duration_s(command.subframe_count)
        amount = self.true_current * worst_charge(command, self.card).electrons
        return Frame(
            action_id=command.action_id,
            requested=command,
            state=self.read_state(),
            mode=MODE,
            counts={"maadf": np.broadcast_to(np.uint16(0), (1, *command.scan.shape_px))},
            pixel_size_nm=command.scan.pixel_size_nm,
            dose_e_per_a2=amount / (command.scan.area_nm2 * 100),
            electrons=amount,
            started_s=started_s,
            ended_s=self.time_s,
            instrument="recorder",
            simulated=True,
        )

    def outcome(self, action_id: str) -> Outcome:
        return "delivered" if any(done.action_id == action_id for done in self.acquired) else "not_started"

    def stop(self) -> None:
        self.stops += 1


@dataclass
class Forecaster(Recorder):
    """The same, and it can say that it settles for long."""

    def forecast(self, command: AcquireFrame) -> tuple[float, float]:
        duration_s = command.scan.duration_s(command.subframe_count)
        return electrons(command.optics.probe_current_pa, duration_s), self.settling_s + duration_s


def command(action_id: str = "a", **changes: Any) -> AcquireFrame:
    optics = {"beam_energy_ev": 60e3, "semi_convergence_angle_mrad": 30, "probe_current_pa": 30.0}
    scan = {"field_of_view_nm": 20.0, "shape_px": (512, 512), "dwell_time_us": 1.0}
    return AcquireFrame(
        action_id=action_id,
        deadline_s=60,
        stage=StagePosition(**changes.get("stage", {})),
        optics=Optics(**(optics | changes.get("optics", {}))),
        scan=ScanPattern(**(scan | changes.get("scan", {}))),
        mode=changes.get("mode", "maadf"),
        subframe_count=changes.get("subframe_count", 1),
    )


ENVELOPE = SafetyEnvelope(
    min_stage_x_nm=-50, max_stage_x_nm=50, min_stage_y_nm=-40, max_stage_y_nm=40, max_stage_tilt_deg=2,
    max_beam_shift_nm=30, min_defocus_nm=-15, max_defocus_nm=15, max_current_pa=60, max_beam_energy_ev=80e3,
    max_exposure_s=2, max_park_s=1, max_dose_e_per_a2=1e4, max_electrons=2e9, max_instrument_time_s=40,
)  # fmt: skip

wide = st.floats(-100, 100, allow_nan=False)


@st.composite
def commands(draw: st.DrawFn) -> AcquireFrame:
    rows, columns = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    return command(
        "x",
        stage={"x_nm": draw(wide), "y_nm": draw(wide), "alpha_deg": draw(st.sampled_from([0, 0, 0, 1.0, -2.5]))},
        optics={
            "probe_current_pa": draw(st.floats(0, 100)),
            "defocus_nm": draw(st.floats(-20, 20)),
            "beam_energy_ev": draw(st.sampled_from([60e3, 80e3, 200e3])),
        },
        scan={
            "field_of_view_nm": draw(st.floats(0.1, 60)),
            "shape_px": (rows, columns),
            "dwell_time_us": draw(st.floats(0.1, 40)),
            "flyback_time_us": draw(st.sampled_from([0.0, 100.0])),
            "rotation_deg": draw(st.sampled_from([0.0, 0.0, 30.0, 90.0, -135.0])),
            "beam_shift_x_nm": draw(st.floats(-40, 40)),
            "beam_shift_y_nm": draw(st.floats(-40, 40)),
        },
        mode=draw(st.sampled_from(["maadf"] * 4 + ["eels"])),
        subframe_count=draw(st.integers(1, 3)),
    )


def assert_inside(done: AcquireFrame) -> None:
    assert done.mode == "maadf"
    assert -50 <= done.stage.x_nm <= 50
    assert -40 <= done.stage.y_nm <= 40
    assert abs(done.stage.alpha_deg) <= 2
    assert max(abs(done.scan.beam_shift_x_nm), abs(done.scan.beam_shift_y_nm)) <= 30
    assert -15 <= done.optics.defocus_nm <= 15
    assert done.optics.probe_current_pa <= 60
    assert done.optics.beam_energy_ev <= 80e3
    assert done.scan.duration_s(done.subframe_count) <= 2


@settings(max_examples=20)
@given(st.lists(commands(), min_size=20, max_size=20))
def test_of_400_random_commands_none_beyond_the_envelope_arrives(batch: list[AcquireFrame]) -> None:
    recorder = Recorder()
    guarded = GuardedMicroscope(recorder, ENVELOPE)
    spent = 0.0
    for n, wanted in enumerate(batch):
        attempt = wanted.model_copy(update={"action_id": f"x{n}"})
        arrived, books = len(recorder.acquired), guarded.ledger.electrons
        try:
            spent += guarded.acquire(attempt).electrons
        except CommandRefused:
            assert len(recorder.acquired) == arrived
            assert guarded.ledger.electrons == books
    for done in recorder.acquired:
        assert_inside(done)
    assert guarded.ledger.electrons == pytest.approx(spent, rel=1e-9)
    assert guarded.ledger.electrons <= 2e9
    assert guarded.ledger.max_e_per_a2 <= 1e4 * (1 + 1e-9)
    assert recorder.time_s <= 40
    assert independent_peak(recorder.acquired) <= 1e4


def independent_peak(done: list[AcquireFrame]) -> float:
    """Highest true dose at random points, counted without the ledger."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-110, 110, (2, 3000))
    dose = np.zeros(len(x))
    for frame in done:
        scan = frame.scan
        angle = np.radians(scan.rotation_deg)
        dx, dy = x - frame.stage.x_nm - scan.beam_shift_x_nm, y - frame.stage.y_nm - scan.beam_shift_y_nm
        along, across = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
        inside = (np.abs(along) <= scan.field_of_view_nm / 2) & (np.abs(across) <= scan.height_nm / 2)
        amount = electrons(frame.optics.probe_current_pa, scan.duration_s(frame.subframe_count))
        dose[inside] += amount / (scan.area_nm2 * 100)
    return float(dose.max(initial=0.0)) * 0.97


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": {"x_nm": 51}}, ["stage x", "51 nm", "above", "50 nm"]),
        ({"stage": {"y_nm": -41}}, ["stage y", "-41 nm", "below", "-40 nm"]),
        ({"stage": {"beta_deg": -3}}, ["stage beta", "-3 deg", "-2 deg"]),
        ({"scan": {"beam_shift_y_nm": 31}}, ["beam shift y", "31 nm", "30 nm"]),
        ({"optics": {"defocus_nm": 16}}, ["defocus", "16 nm", "15 nm"]),
        ({"optics": {"probe_current_pa": 61}}, ["probe current", "61 pA", "60 pA"]),
        ({"optics": {"beam_energy_ev": 100e3}}, ["beam energy", "100000 eV", "80000 eV"]),
        ({"scan": {"dwell_time_us": 8}}, ["exposure", "2.09715 s", "2 s"]),
        ({"scan": {"field_of_view_nm": 4}}, ["dose of a 1 nm2 cell", "10000 e/A2"]),
        ({"mode": "eels"}, ["mode 'eels'", "maadf"]),
    ],
)
def test_a_refusal_names_value_limit_and_unit(changes: dict[str, Any], words: list[str]) -> None:
    guarded = GuardedMicroscope(Recorder(), ENVELOPE)
    with pytest.raises(CommandRefused) as refusal:
        guarded.acquire(command(**changes))
    assert [word for word in words if word not in str(refusal.value)] == []
    assert guarded.ledger.electrons == 0


def test_limits_themselves_are_allowed() -> None:
    edge = {"x_nm": 50, "y_nm": -40, "alpha_deg": 2, "beta_deg": -2}
    recorder = Recorder()
    GuardedMicroscope(recorder, ENVELOPE).acquire(
        command(stage=edge, optics={"probe_current_pa": 60, "defocus_nm": -15, "beam_energy_ev": 80e3})
    )
    assert len(recorder.acquired) == 1


def test_without_limits_everything_passes() -> None:
    recorder = Recorder()
    GuardedMicroscope(recorder, SafetyEnvelope()).acquire(command(stage={"x_nm": 1e5}, scan={"dwell_time_us": 1e4}))
    assert len(recorder.acquired) == 1


def test_worst_charge_counts_flyback_settling_and_uncertainty() -> None:
    wanted = command(scan={"shape_px": (100, 200), "dwell_time_us": 2.0, "flyback_time_us": 50.0}, subframe_count=3)
    charge = worst_charge(wanted, CARD)
    assert charge.settling_electrons == pytest.approx(electrons(30 * 1.02, 2e-6))
    assert charge.electrons == pytest.approx(electrons(30 * 1.02, 3 * 100 * (200 * 2e-6 + 50e-6) + 2e-6))
    dark = CARD.model_copy(update={"flyback_exposes": False})
    assert worst_charge(wanted, dark).electrons == pytest.approx(electrons(30 * 1.02, 3 * 100 * 200 * 2e-6 + 2e-6))


def test_the_debit_is_corrected_to_the_read_back_dose() -> None:
    guarded = GuardedMicroscope(Recorder(), ENVELOPE)
    frame = guarded.acquire(command())
    assert guarded.ledger.electrons == pytest.approx(frame.electrons, rel=1e-12)
    cells = guarded.ledger.mean_map(-15, -15, 30, 30)
    assert cells.sum() * 100 == pytest.approx(frame.electrons, rel=1e-9)
    silent = GuardedMicroscope(Recorder(card=CARD.model_copy(update={"reports_dose": False})), ENVELOPE)
    silent.acquire(command())
    assert silent.ledger.electrons == pytest.approx(worst_charge(command(), CARD).electrons)


@pytest.mark.parametrize("error", [AcquisitionFailed, ResultUnknown, InstrumentFault])
def test_a_lost_exposure_stays_debited_in_full(error: type[InstrumentError]) -> None:
    guarded = GuardedMicroscope(Recorder(error=error("lost")), ENVELOPE)
    with pytest.raises(error):
        guarded.acquire(command())
    assert guarded.ledger.electrons == worst_charge(command(), CARD).electrons


@pytest.mark.parametrize("error", [CommandRefused, Unsupported, InstrumentBusy])
def test_what_did_not_move_costs_nothing(error: type[InstrumentError]) -> None:
    guarded = GuardedMicroscope(Recorder(error=error("no")), ENVELOPE)
    with pytest.raises(error):
        guarded.acquire(command())
    assert guarded.ledger.electrons == pytest.approx(0, abs=1e-3)
    assert guarded.ledger.max_e_per_a2 == pytest.approx(0, abs=1e-9)


def test_the_cell_limit_counts_overlapping_frames_together() -> None:
    recorder = Recorder()
    guarded = GuardedMicroscope(recorder, ENVELOPE)
    refused = 0
    for n in range(30):
        try:
            guarded.acquire(command(f"a{n}", scan={"beam_shift_x_nm": float(n % 5)}))
        except CommandRefused:
            refused += 1
    assert len(recorder.acquired) == 8  # 1,248 e/A2 each, so 8 stay below 10,000 where all overlap
    assert refused == 22


def test_the_first_pixel_counts_the_settling_blanker() -> None:
    slow = Recorder(card=CARD.model_copy(update={"blanker_settle_s": 0.01}))  # 1.9e6 electrons: 1.9e4 e/A2 on 1 nm2
    with pytest.raises(CommandRefused, match="dose of a 1 nm2 cell"):
        GuardedMicroscope(slow, ENVELOPE).acquire(command())


def test_time_limit_counts_moves_where_the_instrument_can_tell() -> None:
    guarded = GuardedMicroscope(Forecaster(settling_s=39.9), ENVELOPE)
    with pytest.raises(CommandRefused, match="microscope time"):
        guarded.acquire(command())
    GuardedMicroscope(Forecaster(settling_s=39.0), ENVELOPE).acquire(command())
    with pytest.raises(CommandRefused, match="microscope time"):
        GuardedMicroscope(Recorder(), ENVELOPE, time_before_s=39.9).acquire(command())


def test_an_enormous_scan_is_refused_and_not_computed() -> None:
    with pytest.raises(CommandRefused, match="dose ledger"):
        GuardedMicroscope(Recorder(), SafetyEnvelope()).acquire(command(scan={"field_of_view_nm": 1e6}))


def test_exposing_while_parked_is_refused() -> None:
    recorder = Recorder()
    guarded = GuardedMicroscope(recorder, ENVELOPE)
    with pytest.raises(CommandRefused, match="burns"):
        guarded.execute(Unblank(action_id="u"))
    with pytest.raises(CommandRefused, match="park time 2 s"):
        guarded.execute(Park(action_id="p", duration_s=2))
    with pytest.raises(CommandRefused, match="beam shift x"):
        guarded.execute(Park(action_id="p", beam_shift_x_nm=31))
    with pytest.raises(CommandRefused, match="acquire"):
        guarded.execute(command())
    assert recorder.executed == []
    guarded.execute(Park(action_id="p", beam_shift_x_nm=3))
    recorder.blanked = False
    with pytest.raises(CommandRefused, match="not blanked"):
        guarded.execute(Park(action_id="q"))
    guarded.execute(Blank(action_id="b"))
    assert [done.action_id for done in recorder.executed] == ["p", "b"]


def test_stop_and_outcome_are_never_refused() -> None:
    recorder = Recorder()
    guarded = GuardedMicroscope(recorder, SafetyEnvelope(max_electrons=1))
    guarded.stop()
    guarded.stop()
    assert recorder.stops == 2
    assert guarded.outcome("a") == "not_started"
    assert guarded.capabilities() is recorder.card
    assert guarded.read_state() == recorder.read_state()


def test_an_instrument_that_cannot_interrupt_gets_short_exposures() -> None:
    deaf = Recorder(card=CARD.model_copy(update={"can_interrupt": False, "stop_latency_s": 0.1}))
    with pytest.raises(CommandRefused, match="cannot interrupt"):
        GuardedMicroscope(deaf, ENVELOPE).acquire(command())


def test_recharge_restores_the_books() -> None:
    live = GuardedMicroscope(Recorder(), ENVELOPE)
    frame = live.acquire(command("a", scan={"rotation_deg": 12.0}))
    restored = GuardedMicroscope(Recorder(), ENVELOPE)
    restored.recharge(command("a", scan={"rotation_deg": 12.0}), frame.electrons)
    assert restored.ledger.electrons == live.ledger.electrons
    assert restored.ledger.max_e_per_a2 == live.ledger.max_e_per_a2
    restored.recharge(command("lost"), None)
    assert restored.ledger.electrons == pytest.approx(frame.electrons + worst_charge(command(), CARD).electrons)


def test_footprint_of_the_check_is_that_of_the_debit() -> None:
    wanted = command(scan={"beam_shift_x_nm": 0.5, "rotation_deg": 33.0})
    marks = footprint(wanted.stage, wanted.scan)
    guarded = GuardedMicroscope(Recorder(), ENVELOPE)
    guarded.acquire(wanted)
    dose = guarded.ledger.mean_map(marks.first_column, marks.first_row, *reversed(marks.overlap_nm2.shape))
    assert dose.sum() * 100 == pytest.approx(guarded.ledger.electrons, rel=1e-3)
