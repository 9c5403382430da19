"""What the ophyd adapter decides without a device: configuration, limits, refusals, counts, paths in a tree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from instruments import AcquireFrame, AcquisitionFailed, CommandRefused, ConfigurationError, Optics, ScanPattern
from instruments.adapters.ophyd.card import card_of, frame_values, limits_of
from instruments.adapters.ophyd.config import AxisConfig, OphydConfig
from instruments.adapters.ophyd.readings import raw_counts
from instruments.adapters.ophyd.things import resolved

MODE = {"trigger": "go", "images": {"adf": "image"}, "detectors": [{"name": "adf"}], "dtype": "uint16"}
CONFIG: dict[str, Any] = {
    "devices": "tem:tree",
    "axes": {
        "x_nm": {"signal": "x", "scale": -1e-3, "minimum": -1000, "maximum": 500},
        "beam_energy_ev": {"fixed": 200_000},
        "semi_convergence_angle_mrad": {"fixed": 20},
        "probe_current_pa": {"fixed": 50},
        "field_of_view_nm": {"fixed": 10},
        "dwell_time_us": {"signal": "dwell"},
    },
    "rows": {"fixed": 2},
    "columns": {"fixed": 3},
    "blanker": {"signal": "blanker"},
    "modes": {"adf": MODE},
}
FACTS = {"x": {"low": -0.4, "high": 5.0}, "dwell": {"low": 1.0, "high": 100.0}}


def config(**changes: Any) -> OphydConfig:
    return OphydConfig.checked({**CONFIG, **changes})


def frame(**changes: Any) -> AcquireFrame:
    scan = {"field_of_view_nm": 10, "shape_px": (2, 3), "dwell_time_us": 10, **changes.pop("scan", {})}
    optics = {"beam_energy_ev": 200_000, "semi_convergence_angle_mrad": 20, "probe_current_pa": 50}
    optics |= changes.pop("optics", {})
    return AcquireFrame(
        action_id="a", deadline_s=10, mode="adf", optics=Optics(**optics), scan=ScanPattern(**scan), **changes
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blanker": None}, "needs a blanker"),
        ({"axes": {"field_of_view_nm": {"fixed": 1}, "dwell_time_us": {"fixed": 1}}}, "axes lacks beam_energy_ev"),
        ({"axes": {**CONFIG["axes"], "y_nm": {"signal": "y", "fixed": 1}}}, "axes.y_nm: give either fixed, or signal"),
        ({"axes": {**CONFIG["axes"], "y_nm": {"signal": "y", "scale": 0}}}, "axes.y_nm: scale 0"),
        ({"modes": {"adf": {**MODE, "images": {"bf": "image"}}}}, "detectors adf and images bf"),
        ({"devices": "tem"}, "devices = 'tem': "),
        ({"no_such_key": 1}, "no_such_key = 1: "),
    ],
)
def test_a_wrong_configuration_names_its_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        config(**changes)


def test_the_tighter_limit_holds_whatever_the_sign_of_the_scale() -> None:
    assert limits_of("x_nm", config().axes["x_nm"], FACTS) == pytest.approx((-1000, 400))
    with pytest.raises(ConfigurationError, match="nothing in common"):
        limits_of("x_nm", AxisConfig(signal="x", minimum=10, maximum=20), FACTS)
    with pytest.raises(ConfigurationError, match="set minimum, maximum"):
        limits_of("y_nm", AxisConfig(signal="y"), FACTS)


def test_units_there_and_back() -> None:
    axis = AxisConfig(signal="x", scale=-1e-3, offset=2.0)
    assert axis.to_device(500.0) == 1.5
    assert axis.to_house(1.5) == pytest.approx(500.0)
    screen = AxisConfig(signal="screen", choices={"up": 0, "down": 1})
    assert screen.to_house(screen.to_device("down")) == "down"
    with pytest.raises(ConfigurationError, match="none of the choices"):
        screen.to_house(7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": {"x_nm": 401}}, "x_nm 401 is outside -1000 to 400"),
        ({"stage": {"y_nm": 1}}, "y_nm 1: this instrument has no such axis"),
        ({"optics": {"probe_current_pa": 51}}, "probe_current_pa 51 is outside 50 to 50"),
        ({"optics": {"aberrations": {"c12_nm": 5}}}, "c12_nm 5"),
        ({"optics": {"camera_length_mm": 80}}, "camera length 80 mm"),
        ({"scan": {"shape_px": (2, 4)}}, "4 columns are outside 3 to 3"),
        ({"scan": {"rotation_deg": 90}}, "rotation_deg 90"),
        ({"scan": {"at_once": True}}, "at_once must be False"),
        ({"subframe_count": 2}, "subframe_count 2"),
    ],
)
def test_a_frame_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CommandRefused, match=words):
        frame_values(frame(**changes), config(), card_of(config(), FACTS), FACTS)


def test_a_frame_sets_what_there_is() -> None:
    values = frame_values(
        frame(stage={"x_nm": 7}, optics={"aberrations": {"phi12_deg": 30}}), config(), card_of(config(), FACTS), FACTS
    )
    assert values["x_nm"] == 7
    assert "phi12_deg" not in values  # the azimuth of nothing


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(5, np.int32), "gave 5 values"),
        (np.array([0, 1, 2, 3, 4, -1]), "from -1 to 4"),
        (np.array([0, 1, 2, 3, 4, 70_000]), "raw counts are uint16"),
        (np.array([0, 1, 2, 3, 4, 0.5]), "parts of counts"),
        (np.array([0, 1, 2, 3, 4, np.nan]), "from nan"),
    ],
)
def test_what_are_no_counts_is_no_frame(values: np.ndarray, words: str) -> None:
    with pytest.raises(AcquisitionFailed, match=words):
        raw_counts("adf", values, config().modes["adf"], frame())


def test_counts_have_their_place() -> None:
    counts = raw_counts("adf", np.arange(6.0), config().modes["adf"], frame())
    assert counts.dtype == np.uint16
    assert counts.tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_paths_lead_through_attributes_mappings_and_indices() -> None:
    tree = {"stage": SimpleNamespace(x="motor"), "channel": {1: "first"}, "list": ["zeroth"]}
    assert [resolved(tree, path) for path in ("stage.x", "channel.1", "list.0")] == ["motor", "first", "zeroth"]
    with pytest.raises(LookupError, match=r"no 'stage\.y': nothing is called 'y' there"):
        resolved(tree, "stage.y")
