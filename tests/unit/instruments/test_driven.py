"""What a driver refuses on the way: only what is read back unmoved is told as refused, and no dose is given back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    AxisValue,
    CommandRefused,
    GuardedMicroscope,
    InstrumentBusy,
    InstrumentFault,
    MicroscopeState,
    Optics,
    SafetyEnvelope,
    ScanPattern,
    SetAxes,
    StagePosition,
)
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed, InThisProcess
from instruments.capabilities import Axis, Capabilities, Detector, Mode

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20.0, probe_current_pa=50.0)
CARD = Capabilities(
    name="stubborn",
    simulated=True,
    axes=(
        *(Axis(name=name, minimum=-100.0, maximum=100.0, tolerance=0.1, frame="stage") for name in ("x_nm", "y_nm")),
        *(
            Axis(name=name, minimum=value, maximum=value)
            for name, value in OPTICS
            if isinstance(value, float) and name.endswith(("_ev", "convergence_angle_mrad", "_pa"))
        ),
        Axis(name="field_of_view_nm", minimum=1.0, maximum=100.0),
        Axis(name="pixel_size_nm", minimum=0.01, maximum=100.0),
        Axis(name="dwell_time_us", minimum=0.1, maximum=1000.0),
        Axis(name="subframe_count", minimum=1.0, maximum=8.0),
    ),
    modes=(Mode(name="stem", detectors=(Detector(name="haadf", without_references="none"),)),),
)


@dataclass
class StubbornDriver:
    """A stage whose y may refuse after x has moved, and a camera that may refuse its second sub-frame."""

    refused_axis: str = ""
    refused_subframe: int = 99
    places: dict[str, float] = field(default_factory=lambda: {"x_nm": 0.0, "y_nm": 0.0})
    exposed_count: int = 0
    capabilities: Capabilities = CARD
    worker: InThisProcess = field(default_factory=InThisProcess)

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        return MicroscopeState(time_s=time_s, stage=StagePosition(**self.places), optics=OPTICS, beam_blanked=True)

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        for name in self.places:
            if name in values:
                if name == self.refused_axis:
                    raise CommandRefused(f"{name}: not today")
                self.places[name] = float(values[name])

    def set_blanked(self, is_blanked: bool, deadline_s: float) -> None:
        """It is read back blanked between frames."""

    def check(self, command: AcquireFrame, mode: Mode) -> None:
        """Nothing more to refuse."""

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        for number in range(command.subframe_count):
            if number == self.refused_subframe:
                raise InstrumentBusy("the camera is busy; nothing was done")
            self.exposed_count += is_lit
        counts = np.zeros((command.subframe_count, *command.scan.shape_px), np.uint16)
        return Exposed({"haadf": counts}, command.scan.pixel_size_nm)

    def interrupt(self) -> None:
        """Nothing runs."""

    def release(self) -> None:
        """Nothing was stopped."""

    def close(self) -> None:
        """Nothing is held."""


def frame(action_id: str = "a", x_nm: float = 5.0, y_nm: float = 7.0) -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=10.0,
        stage=StagePosition(x_nm=x_nm, y_nm=y_nm),
        optics=OPTICS,
        scan=ScanPattern(field_of_view_nm=10.0, shape_px=(4, 4), dwell_time_us=10.0),
        mode="stem",
        subframe_count=2,
        purpose="test",
    )


def test_what_was_refused_before_anything_moved_is_a_refusal() -> None:
    microscope = DrivenMicroscope(StubbornDriver(refused_axis="x_nm"))
    with pytest.raises(CommandRefused, match="not today"):
        microscope.execute(SetAxes(action_id="s", values={"x_nm": 5.0, "y_nm": 7.0}))
    with pytest.raises(CommandRefused, match="not today"):
        microscope.acquire(frame())
    assert microscope.outcome("a") == "not_started"


def test_what_was_refused_after_another_axis_moved_is_a_fault_with_the_read_back() -> None:
    driver = StubbornDriver(refused_axis="y_nm")
    microscope = DrivenMicroscope(driver)
    with pytest.raises(InstrumentFault, match=r"not today; others were set.* x_nm at 5\.0, y_nm at 0\.0: look"):
        microscope.execute(SetAxes(action_id="s", values={"x_nm": 5.0, "y_nm": 7.0}))
    with pytest.raises(InstrumentFault, match=r"x_nm at 9\.0, y_nm at 0\.0"):
        microscope.acquire(frame(x_nm=9.0))
    assert driver.exposed_count == 0


def test_an_exposure_that_is_refused_on_the_way_keeps_its_debit_and_is_not_made_again() -> None:
    driver = StubbornDriver(refused_subframe=1)
    microscope = GuardedMicroscope(DrivenMicroscope(driver), SafetyEnvelope())
    with pytest.raises(AcquisitionFailed, match=r"dose counts as spent.* x_nm at 5\.0, y_nm at 7\.0"):
        microscope.acquire(frame())
    spent = microscope.ledger.electrons
    assert spent == pytest.approx(2 * 16 * 10e-6 * 50e-12 / 1.602176634e-19)
    assert (driver.exposed_count, microscope.outcome("a")) == (1, "unknown")
    with pytest.raises(AcquisitionFailed, match="not exposed again"):
        microscope.acquire(frame())
    assert driver.exposed_count == 1


def test_a_stage_at_no_number_is_a_fault_of_the_instrument_behind_a_guard_too() -> None:
    driver = StubbornDriver(places={"x_nm": float("nan"), "y_nm": 0.0})
    with pytest.raises(InstrumentFault, match="what was read back is no state: x_nm nan; look at the instrument"):
        DrivenMicroscope(driver).read_state()

    class Undriven(DrivenMicroscope):
        def read_state(self) -> MicroscopeState:
            return driver.read_state(0.0, 1.0)

    with pytest.raises(InstrumentFault, match="what was read back is no state: x_nm nan"):
        GuardedMicroscope(Undriven(driver), SafetyEnvelope()).acquire(frame())
    assert driver.exposed_count == 0
