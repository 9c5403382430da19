"""After a move that failed an axis is sent to its place even if it reads to be there: it may be about to leave it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import pytest

from instruments import AcquireFrame, InstrumentFault, Optics, ScanPattern, SetAxes
from instruments.adapters import autoscript, nion, pyjem, serialem
from instruments.adapters.autoscript_config import STAGE as AUTOSCRIPT_STAGE
from instruments.adapters.autoscript_config import AutoScriptConfig
from instruments.adapters.instamatic import InstamaticMicroscope
from instruments.adapters.instamatic_axes import AxisTable as InstamaticTable
from instruments.adapters.instamatic_axes import capabilities_of as instamatic_card
from instruments.adapters.instamatic_config import InstamaticConfig
from instruments.adapters.nion_config import NionConfig
from instruments.adapters.pyjem_config import STAGE as PYJEM_STAGE
from instruments.adapters.pyjem_config import PyJEMConfig
from instruments.adapters.serialem_config import SerialEMConfig
from instruments.adapters.temscript_axes import AxisTable
from instruments.adapters.temscript_card import ServerFacts, capabilities_of
from instruments.adapters.temscript_column import TemscriptColumn
from instruments.adapters.temscript_config import TemscriptConfig
from instruments.adapters.temscript_exposure import Shot

DECLARED: dict[str, Any] = {"beam_energy_ev": 2e5, "semi_convergence_angle_mrad": 25, "probe_current_pa": 50}
Mover = Callable[[float], None]
Driven = Callable[..., tuple["SlowStage", Mover]]
NION = {"C_Blank": 1.0, "EHT": 1e5, "ConvergenceAngle": 0.03, **dict.fromkeys(("C12.x", "C12.y"), 0.0)}


@dataclass
class SlowStage:
    """A stage at 0; while it `is_stuck` a move fails, and it goes later, so that it reads 0 until then."""

    sent: list[float] = field(default_factory=list[float])
    is_stuck: bool = False

    def close(self) -> None:
        """Nothing is held."""

    def go(self, x: float) -> None:
        self.sent.append(x)
        if self.is_stuck:
            raise InstrumentFault("the stage still moved when its time was over")


class FarStage(SlowStage):
    """What the devices of three libraries would answer, of a stage that reads 0."""

    def __call__(self, *opening: Any) -> FarStage:
        return self

    def read(self, name: str, deadline_s: float | None = None, /, *, names: tuple[str, ...] = ()) -> dict[str, Any]:
        if name == "describe":
            limits = {axis: [-1e-6, 1e-6] for axis in "xyzab"}
            return {"versions": {}, "limits": limits, "is_offline": True, "holder": "one"}
        if names:
            return {one: NION.get(one, 0.0) for one in names}
        return {
            "position": dict.fromkeys((*(there for there, _ in AUTOSCRIPT_STAGE.values()), *PYJEM_STAGE.values()), 0.0),
            "voltage_v": 2e5, "shift": [0, 0], "tilt": [0, 0], "focus": 0, "spot": 1, "is_blanked": True,
            "defocus_m": 0.0, "column_valves": "Closed",
        }  # fmt: skip

    def do(self, name: str, deadline_s: float | None = None, /, *, values: dict[str, float], **more: Any) -> None:
        assert name in ("move", "write")
        (x,) = values.values()
        self.go(x)

    put = do


class SerialEMStage(SlowStage):
    """SerialEM's commands for a stage that reads 0."""

    def __call__(self, *opening: Any) -> SerialEMStage:
        return self

    def run(self, name: str, *arguments: float, within_s: float = 0.0) -> list[float]:
        if name == "MoveStageTo":
            self.go(arguments[0])
        return {"ReportStageXYZ": [0.0] * 3, "ReportTiltAngle": [0.0]}.get(name, [200.0])


class TemscriptStage(SlowStage):
    """A temscript server's stage, which reads 0."""

    def get(self, endpoint: str, until_s: float | None = None) -> Any:
        return {
            "stage_status": "READY",
            "state": {
                "stage_position": dict.fromkeys("xyzab", 0.0),
                "beam_blanked": True,
                "voltage(kV)": 200.0,
                "projection_mode": "IMAGING",
                "instrument_mode": "TEM",
            },
        }.get(endpoint, {})

    def put(self, endpoint: str, body: Any, **more: Any) -> None:
        self.go(body["x"])


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driven]:
    """Opens a driver over a stage, in place of a worker or a connection."""
    opened: list[Any] = []

    def open_driver(module: Any, driver: type[Any], config: Any, stage: SlowStage) -> tuple[SlowStage, Mover]:
        for name in {"FarDevice", "SerialEMLink"} & vars(module).keys():
            monkeypatch.setattr(module, name, stage)
        opened.append(driver(config))
        return stage, lambda x_nm: opened[-1].set_axes({"x_nm": x_nm}, 1.0)

    yield open_driver
    for one in opened:
        one.close()


def at_nion(driven: Driven) -> tuple[SlowStage, Mover]:
    return driven(nion, nion.NionDriver, NionConfig.checked({"python": "python"}), FarStage())


def at_pyjem(driven: Driven) -> tuple[SlowStage, Mover]:
    detectors = {"adf": {"name": "ADF1", "raw_type": "<u2"}}
    fields = [{"selector": 1, "magnification": 1e6, "field_of_view_nm": 100}]
    config = PyJEMConfig.checked({"python": "python", **DECLARED, "detectors": detectors, "fields": fields})
    return driven(pyjem, pyjem.PyJEMDriver, config, FarStage())


def at_autoscript(driven: Driven) -> tuple[SlowStage, Mover]:
    config = AutoScriptConfig.checked({"python": "python", **DECLARED, "detectors": {"haadf": {"name": "HAADF"}}})
    return driven(autoscript, autoscript.AutoScriptDriver, config, FarStage())


def at_serialem(driven: Driven) -> tuple[SlowStage, Mover]:
    numbers = {
        "TiltTo": 1, "Record": 2, "MoveStageTo": 3, "ReportStageXYZ": 4, "ReportTiltAngle": 5, "ReportHighVoltage": 6,
        "SetExposure": 7, "SetBeamBlank": 8,
    }  # fmt: skip
    chip = {"shape_px": (64, 64), "pixel_size_nm": 1.0, "limits": {"x_nm": (-200, 200)}}
    config = SerialEMConfig.checked({"command_numbers": numbers, **chip, **DECLARED})
    return driven(serialem, serialem.SerialEMDriver, config, SerialEMStage())


def at_temscript(driven: Driven) -> tuple[SlowStage, Mover]:
    """Here it is a frame that leaves alone what stands."""
    config = TemscriptConfig(probe_current_pa=50.0)
    facts = ServerFacts("2.1.0", "NULL", "1", 2e5, "one", {"x": (-1e-6, 1e-6)}, {}, ())
    table, stage = AxisTable(config), TemscriptStage()
    column: Any = TemscriptColumn(config, stage, facts, table, capabilities_of(facts, config, table), Event())  # pyright: ignore[reportArgumentType]
    command = AcquireFrame(
        action_id="a",
        deadline_s=1.0,
        optics=Optics(beam_energy_ev=2e5, semi_convergence_angle_mrad=25),
        scan=ScanPattern(field_of_view_nm=10, shape_px=(8, 8), dwell_time_us=1),
        mode="stem",
    )
    shot = Shot(detectors=(), settings=(), axes={}, exposure_s=0.1, shape_px=(8, 8), pixel_size_nm=1.0, added_counts=0)
    return stage, lambda x_nm: column.arrange(command, shot, {"x_nm": x_nm}, time.monotonic() + 1.0)


@pytest.mark.parametrize("at", [at_nion, at_pyjem, at_autoscript, at_serialem, at_temscript])
def test_a_place_is_sent_again_after_a_move_away_from_it_failed(
    at: Callable[[Driven], tuple[SlowStage, Mover]], driven: Driven
) -> None:
    stage, move = at(driven)
    move(0.0)
    stage.sent.clear()
    move(0.0)
    assert stage.sent == []  # it was sent there, and stands there
    stage.is_stuck = True
    with pytest.raises(InstrumentFault, match="still moved"):
        move(50.0)
    stage.is_stuck = False
    stage.sent.clear()
    move(0.0)
    assert stage.sent == [0.0]  # it reads so, and may still drive to 50 nm


class PassingStage:
    """An instamatic server whose stage, sent to 0 nm on its way from there, reads 0 at once, and turns back later."""

    def __init__(self) -> None:
        self.places_nm = [0.0, 900.0, 400.0]

    def ask(self, function: str, kind: object, *arguments: object, **named: object) -> Any:
        match function:
            case "getStagePosition":
                return [self.places_nm[0], 0.0, 0.0, 0.0, 0.0]
            case "isStageMoving":
                self.places_nm = self.places_nm[1:] or [0.0]
                return len(self.places_nm) > 1 or self.places_nm != [0.0]
            case _:
                return {"getScreenPosition": "up", "isBeamBlanked": True, "getHTValue": 2e5}.get(function, 1.0)


def test_a_stage_that_passes_its_place_has_not_arrived() -> None:
    config = InstamaticConfig.checked({"limits": {"x_nm": (-1000, 1000)}})
    table, stage = InstamaticTable(config), PassingStage()
    microscope = InstamaticMicroscope(config, stage, table, instamatic_card(config, table))  # pyright: ignore[reportArgumentType]
    state = microscope.execute(SetAxes(action_id="s", values={"x_nm": 0.0}))
    assert (stage.places_nm, state.stage.x_nm) == ([0.0], 0.0)
