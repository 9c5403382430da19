"""The serialem adapter against a double of its protocol, written from public sources; SerialEM itself has not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from instruments import (
    AcquireFrame,
    AcquisitionFailed,
    CommandRefused,
    ConfigurationError,
    InstrumentBusy,
    InstrumentFault,
    LinkLost,
    Optics,
    ResultUnknown,
    ScanPattern,
    SetAxes,
    StagePosition,
    Unsupported,
    registry,
)
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.serialem_link import command_bytes
from instruments.conformance import Conditions
from tests.integration.instruments.anywhere import check, run_anywhere
from tests.integration.instruments.conformed import conformed, names
from tests.integration.instruments.double_targets import DoubleTarget
from tests.integration.instruments.serialem_double import NUMBERS, SerialEMDouble
from tests.integration.instruments.server_process import Otherwise


@pytest.fixture
def double() -> Iterator[SerialEMDouble]:
    with SerialEMDouble() as double:
        yield double


@pytest.fixture
def microscope(double: SerialEMDouble) -> Iterator[DrivenMicroscope]:
    opened = registry.open("serialem", **config(double))
    assert isinstance(opened, DrivenMicroscope)
    yield opened
    opened.close()


def config(double: SerialEMDouble, **more: Any) -> dict[str, Any]:
    limits = {"x_nm": (-200, 200), "y_nm": (-200, 200), "alpha_deg": (-30, 30)}
    return {
        "port": double.port, "command_numbers": NUMBERS, "limits": limits, "settle_s": 0.0, "shape_px": (64, 64),
        "pixel_size_nm": 1.0, "tolerances": {"x_nm": 0.01, "y_nm": 0.01}, "probe_current_pa": 50.0,
        "beam_energy_ev": 60e3, "semi_convergence_angle_mrad": 31.5, "answer_s": 8.0, "min_exposure_s": 0.001,
        "max_exposure_s": 0.5, "readout_s": 8.0, **more,
    }  # fmt: skip


def frame(action_id: str, x_nm: float = 0.0, count: int = 1, exposure_s: float = 0.01) -> AcquireFrame:
    return AcquireFrame(
        action_id=action_id,
        deadline_s=30.0,
        stage=StagePosition(x_nm=x_nm),
        optics=Optics(beam_energy_ev=60e3, semi_convergence_angle_mrad=31.5, probe_current_pa=50.0),
        scan=ScanPattern(field_of_view_nm=64, shape_px=(64, 64), dwell_time_us=exposure_s * 1e6, at_once=True),
        mode="record",
        subframe_count=count,
    )


def going(**values: float | str) -> SetAxes:
    return SetAxes(action_id=f"set {values}", values=values)


def test_bytes_of_a_command() -> None:
    """A command without arguments has an array of one word; with them, slot 0 stays empty."""
    bare = [24, 1, 293, 0, 1, 0]
    assert np.frombuffer(command_bytes(293, ()), "<i4").tolist() == bare
    one = command_bytes(42, ("7",))
    assert np.frombuffer(one[:20], "<i4").tolist() == [len(one), 1, 42, 1, (len(one) - 20) // 4]
    assert np.frombuffer(one[20:28], "<i4").tolist() == [0, 0]
    assert one[44:47] == b"\x007\x00"


def test_it_conforms(double: SerialEMDouble) -> None:
    conditions = Conditions(shape_px=(64, 64), field_of_view_nm=64.0, dwell_time_us=1e4)
    target = DoubleTarget("serialem", config(double), double, None)
    report = conformed(target, conditions, hasty=Otherwise(target, answer_s=2.0))
    of_a_server = {"mute_server", "call_after_timeout", "lost_answer", "server_killed", "concurrent_clients"}
    assert {"stage_motion", "blank", "counts"} | of_a_server <= names(report, "passed"), report.table()


def test_what_is_outside_is_refused_and_nothing_is_sent(double: SerialEMDouble, microscope: DrivenMicroscope) -> None:
    sent = len(double.seen)
    for values in ({"x_nm": 1e12}, {"alpha_deg": 31.0}):
        with pytest.raises(CommandRefused):
            microscope.execute(going(**values))
    with pytest.raises(Unsupported):
        microscope.execute(going(z_nm=1.0))
    assert len(double.seen) == sent
    state = microscope.execute(going(x_nm=100.0, y_nm=-50.0, alpha_deg=5.0))
    assert (double.stage_um, double.tilt_deg) == ([0.1, -0.05, 0.0], 5.0)
    assert all(state.axes[name].is_reached for name in ("x_nm", "y_nm", "alpha_deg"))


def test_an_exposure_is_lit_once_and_its_image_comes_in_pieces(
    double: SerialEMDouble, microscope: DrivenMicroscope
) -> None:
    taken = microscope.acquire(frame("one", 20.0, count=2))
    assert taken.counts["record"].shape == (2, 64, 64)
    assert taken.counts["record"].dtype.kind == "u"
    assert "tells the time" in taken.state.undetermined["column.clocks"]
    assert (double.exposure_s, double.is_blanked, double.handshakes) == (0.01, True, 4)
    names = double.names()
    first = names.index("Record")
    assert double.seen[first - 1][:2] == ("SetBeamBlank", [0.0])
    assert double.seen[first + 1][:2] == ("SetBeamBlank", [1.0])
    _, (_, exposure_s), texts = double.seen[names.index("SetExposure")]
    assert (exposure_s, texts[0]) == (0.01, "R")
    again = microscope.acquire(frame("one", 20.0, count=2))
    assert np.array_equal(again.counts["record"], taken.counts["record"])
    assert double.names().count("Record") == 2


def test_its_errors_are_named_by_what_follows(double: SerialEMDouble, microscope: DrivenMicroscope) -> None:
    double.fails = "MoveStageTo"
    with pytest.raises(InstrumentFault, match="SerialEM's MoveStageTo failed"):
        microscope.execute(going(x_nm=10.0))
    double.fails, double.busy = "", True
    with pytest.raises(InstrumentBusy, match="SerialEM is busy"):
        microscope.execute(going(x_nm=20.0))
    double.busy = False
    microscope.reconnect()
    assert microscope.execute(going(x_nm=20.0)).stage.x_nm == 20.0


def test_a_lost_exposure_is_unknown_and_never_repeated(double: SerialEMDouble) -> None:
    hasty = registry.open("serialem", **config(double, answer_s=1.0))
    assert isinstance(hasty, DrivenMicroscope)
    double.is_mute = True
    with pytest.raises(LinkLost):
        hasty.read_state()
    double.is_mute = False
    hasty.close()
    microscope = registry.open("serialem", **config(double))
    recorded = double._recorded  # the double falls silent in the middle of its exposure

    def silent() -> np.ndarray:
        double.hang_up()
        return recorded()

    double._recorded = silent  # type: ignore[method-assign]
    with pytest.raises(ResultUnknown, match="dose counts as spent"):
        microscope.acquire(frame("lost"))
    assert microscope.outcome("lost") == "unknown"
    with pytest.raises(AcquisitionFailed, match="not exposed again"):
        microscope.acquire(frame("lost"))
    assert double.names().count("Record") == 1
    assert isinstance(microscope, DrivenMicroscope)
    microscope.close()


def test_numbers_of_another_version_are_found_out_before_anything_is_set(double: SerialEMDouble) -> None:
    swapped = {
        **NUMBERS,
        "ReportHighVoltage": NUMBERS["ReportTiltAngle"],
        "ReportTiltAngle": NUMBERS["ReportHighVoltage"],
    }
    with pytest.raises(ConfigurationError, match="command_numbers do not fit this SerialEM"):
        registry.open("serialem", **config(double, command_numbers=swapped))
    assert set(double.names()) <= {"ReportStageXYZ", "ReportTiltAngle", "ReportHighVoltage"}
    numbers = {name: number for name, number in NUMBERS.items() if name != "Record"}
    with pytest.raises(ConfigurationError, match="no number of Record"):
        registry.open("serialem", **config(double, command_numbers=numbers))


def test_the_experiment_that_runs_anywhere(double: SerialEMDouble) -> None:
    answer = run_anywhere("serialem", config(double))
    check(answer)
    assert answer.brightness["counts_per_px"] > 0
