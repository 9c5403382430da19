"""What libraries of microscopes told in another shape than expected: an error of the house, and never a frame."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from instruments import AcquisitionFailed, AxisValue, Blank, InstrumentFault, MicroscopeState, SetAxes
from instruments.adapters import micromanager, nion
from instruments.adapters.devices.micromanager_device import CommandRefused as DeviceRefused
from instruments.adapters.devices.micromanager_device import MicroManagerDevice
from instruments.adapters.devices.nion_device import AcquisitionFailed as DeviceFailed
from instruments.adapters.devices.nion_device import NionDevice
from instruments.adapters.driven import DrivenMicroscope
from instruments.adapters.driver import Exposed
from instruments.adapters.micromanager_config import MicroManagerConfig
from instruments.adapters.nion_config import NionConfig
from instruments.capabilities import Mode
from instruments.commands import AcquireFrame
from tests.unit.instruments.test_driven import StubbornDriver, frame


class OfAnotherVersion(StubbornDriver):
    """Takes replies apart that have no such parts, from when it `has_changed`."""

    has_changed = False

    def told(self) -> dict[str, Any]:
        return {} if self.has_changed else {"stage": self.places, "image": np.zeros((2, 4, 4), np.uint16)}

    def read_state(self, time_s: float, deadline_s: float) -> MicroscopeState:
        self.told()["stage"]
        return super().read_state(time_s, deadline_s)

    def set_axes(self, values: Mapping[str, AxisValue], deadline_s: float) -> None:
        super().set_axes({name: value + self.told().get("stage") for name, value in values.items()}, deadline_s)

    def expose(self, command: AcquireFrame, mode: Mode, until_s: float, *, is_lit: bool) -> Exposed:
        self.has_changed = True
        return Exposed({"haadf": self.told().get("image").astype("u2")}, 1.0)  # type: ignore[union-attr]


def test_what_cannot_be_taken_apart_is_a_fault_and_costs_the_dose_of_an_exposure() -> None:
    driver = OfAnotherVersion()
    microscope = DrivenMicroscope(driver)
    with pytest.raises(InstrumentFault, match=r"on the way cannot be understood: TypeError.* version that is expected"):
        microscope.execute(SetAxes(action_id="s", values={"x_nm": 5.0}))
    driver.set_axes = lambda values, deadline_s: driver.places.update(x_nm=5.0, y_nm=7.0)
    with pytest.raises(AcquisitionFailed, match="what came of the exposure cannot be understood: AttributeError"):
        microscope.acquire(frame())
    assert microscope.outcome("a") == "unknown"
    with pytest.raises(InstrumentFault, match=r"what was read back cannot be understood: KeyError\('stage'\)"):
        microscope.read_state()


def test_a_blank_that_reads_as_lit_is_a_fault() -> None:
    driver = StubbornDriver()
    lit = driver.read_state(0.0, 1.0).model_copy(update={"beam_blanked": False})
    driver.read_state = lambda time_s, deadline_s: lit  # type: ignore[method-assign]
    with pytest.raises(InstrumentFault, match="reads as not blanked; assume that the beam is on"):
        DrivenMicroscope(driver).execute(Blank(action_id="b"))


class Told:
    """A far device that answers with these, by call."""

    def __init__(self, **replies: Any) -> None:
        self.replies = replies

    def read(self, name: str, deadline_s: float | None = None, /, **arguments: Any) -> Any:
        return self.replies[name]

    def close(self) -> None:
        """Nothing is held."""


def test_a_nion_without_a_control_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [control.name for control in nion.controls_of(NionConfig.checked({"python": "python"}))]
    values = dict.fromkeys([*names, *nion._BESIDES], 1.0) | {"C30": None}
    monkeypatch.setattr(nion, "FarDevice", lambda *opening: Told(describe={"versions": {}}, read=values))
    with pytest.raises(InstrumentFault, match="no control C30"):
        nion.NionDriver(NionConfig.checked({"python": "python"}))


@pytest.mark.parametrize(
    "image",
    [
        np.ones((4, 4), bool), np.ones((4, 4), complex), np.full((4, 4), np.nan), np.full((4, 4), np.inf),
        np.full((4, 4), -1e9), np.ones((4, 3)), np.ones((0, 0)), np.full((4, 4), "a"), np.ones((4, 4), object),
    ],
)  # fmt: skip
def test_what_is_no_image_of_numbers_is_no_frame_of_a_nion(image: np.ndarray) -> None:
    with pytest.raises(AcquisitionFailed, match="haadf"):
        nion._unsigned("haadf", image, (4, 4), 1000.0, 0.0)


def test_two_images_of_one_channel_are_no_scan() -> None:
    image = SimpleNamespace(data=np.ones((4, 4)), metadata={"hardware_source": {"channel_name": "HAADF"}})
    controls = SimpleNamespace(SetVal=lambda name, value: True, TryGetVal=lambda name: (True, 1.0))
    scan = SimpleNamespace(
        channel_count=0,
        is_recording=False,
        get_frame_parameters=lambda index: SimpleNamespace(),
        start_recording=lambda frame_parameters: SimpleNamespace(grab_xdatas=lambda timeout: [image, image]),
    )
    with pytest.raises(DeviceFailed, match="2 images came of 1 channels"):
        NionDevice(controls, scan, {}).scan({}, ["HAADF", "MAADF"], 1.0, is_lit=False)


def test_a_stage_that_tells_no_place_is_not_at_0_and_an_exposure_of_no_number_is_refused() -> None:
    about = {"stage": "XY", "focus": "", "shutter": "S", "camera": "C", "shape_px": [8, 8], "versions": {}}
    read = {"x_nm": 5.0, "y_nm": None, "z_nm": None, "shutter_open": 0.0, "pixel_size_nm": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micromanager, "FarDevice", lambda *opening: Told(describe=about, read=read))
        driver = micromanager.MicroManagerDriver(MicroManagerConfig.checked({"python": "python", "demo": True}))
    with pytest.raises(InstrumentFault, match="a stage device that does not tell y_nm"):
        driver.read_state(0.0, 1.0)
    read["y_nm"] = 7.0
    assert (driver.read_state(0.0, 1.0).stage.y_nm, driver.read_state(0.0, 1.0).stage.z_nm) == (7.0, 0.0)
    core = SimpleNamespace(
        setAutoShutter=id, getShutterDevice=str, setExposure=lambda ms: None, getExposure=lambda: float("nan")
    )
    with pytest.raises(DeviceRefused, match="would expose for nan s"):
        MicroManagerDevice(core).prepare(0.1)
