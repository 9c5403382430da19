"""What the pyjem and autoscript adapters convert and refuse, without their libraries."""

from __future__ import annotations

import numpy as np
import pytest

from instruments import AcquireFrame, AcquisitionFailed, ConfigurationError, InstrumentFault, Optics, ScanPattern
from instruments.adapters.autoscript import _part, _unsigned
from instruments.adapters.autoscript_config import AutoScriptConfig, capabilities_of
from instruments.adapters.pyjem import _decoded
from instruments.adapters.pyjem_config import Converters, Lens, PyJEMConfig
from instruments.adapters.scanned_beam import check_beam_on

PAIR = Converters(neutral=(32768, 30000), scale=((0.05, 0.01), (-0.012, 0.048)), maximum=200.0)
OF_BOTH = {"python": "python", "beam_energy_ev": 2e5, "semi_convergence_angle_mrad": 25, "probe_current_pa": 50}
OF_PYJEM = {
    **OF_BOTH,
    "detectors": {"adf": {"name": "ADF1", "raw_type": "<u2"}},
    "fields": [{"selector": 1, "magnification": 1e6, "field_of_view_nm": 100}],
}
ABOUT = {"is_offline": True, "limits": {axis: [-1e-6, 2e-6] for axis in "xyzab"}}
SCAN = AcquireFrame(
    action_id="scan",
    deadline_s=10.0,
    optics=Optics(beam_energy_ev=2e5, semi_convergence_angle_mrad=25),
    scan=ScanPattern(field_of_view_nm=10, shape_px=(100, 100), dwell_time_us=100),
    mode="adf",
    subframe_count=2,
)


@pytest.mark.parametrize("values", [(0.0, 0.0), (200.0, -200.0), (-33.3, 150.2)])
def test_a_place_comes_back_within_one_step_of_the_converters(values: tuple[float, float]) -> None:
    off = np.abs(np.subtract(PAIR.place(list(PAIR.numbers(values))), values))
    assert np.all(off <= np.asarray(PAIR.steps) / 2 + 1e-9)


def test_a_lens_goes_by_its_sign() -> None:
    lens = Lens(neutral=32768, scale_nm=-0.5, limit_nm=1000)
    assert (lens.number(100.0), lens.defocus_nm(32568)) == (32568, 100.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"beam_shift": {"neutral": (0, 0), "scale": PAIR.scale, "maximum": 1.0}}, "lower it"),
        ({"beam_shift": {"neutral": (9, 9), "scale": ((1, 1), (1, 1)), "maximum": 1.0}}, "measure both directions"),
        ({"focus": {"neutral": 32768, "scale_nm": 0.0, "limit_nm": 1.0}}, "cannot be 0"),
        ({"focus": {"neutral": 10, "scale_nm": 1.0, "limit_nm": 11.0}}, "lower it"),
        ({"limits": {"x_nm": (5, -5)}}, "x_nm are not in order"),
        ({"detectors": {"adf": {"name": "ADF1"}}}, "detectors.adf.raw_type"),
    ],
)
def test_a_configuration_that_cannot_be_is_told_by_its_key(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        PyJEMConfig.checked({**OF_PYJEM, **wrong})


@pytest.mark.parametrize("raw_type", ["u1", "<u2", ">u2", "<i2", ">i2"])
def test_bytes_become_counts_whichever_way_they_lie(raw_type: str) -> None:
    counts = np.arange(24).reshape(2, 3, 4)
    data = np.stack([np.frombuffer(one.astype(raw_type).tobytes(), np.uint8) for one in counts])
    found = _decoded(data, raw_type, (2, 3, 4))
    assert found.dtype.kind == "u"
    assert np.array_equal(found, counts)
    with pytest.raises(AcquisitionFailed, match="bytes a scan came"):
        _decoded(data[:, :-1], raw_type, (2, 3, 4))


def test_counts_below_zero_and_floats_are_refused_not_cut() -> None:
    below = np.full((1, 2, 2), -1, "<i2")
    with pytest.raises(AcquisitionFailed, match="counts of -1"):
        _decoded(np.frombuffer(below.tobytes(), np.uint8)[None], "<i2", (1, 2, 2))
    for images in (below, np.ones((1, 2, 2)), np.ones((1, 2, 3), np.uint16)):
        with pytest.raises(AcquisitionFailed):
            _unsigned("haadf", images, (1, 2, 2))


def test_the_middle_of_a_full_scan() -> None:
    config = AutoScriptConfig.checked({**OF_BOTH, "detectors": {"haadf": {"name": "HAADF"}}})
    assert [config.full_side_px(shape) for shape in ((128, 128), (100, 300), (1, 5000))] == [128, 512, None]
    assert _part((128, 128), 128) is None
    assert _part((64, 32), 128) == [48 / 128, 32 / 128, 0.25, 0.5]


def test_the_narrower_limits_are_the_card_s_whichever_way_the_stage_counts() -> None:
    limits = {"x_nm": (-5000, 500), "y_nm": (-5000, 5000)}
    config = AutoScriptConfig.checked(
        {**OF_BOTH, "detectors": {"haadf": {"name": "HAADF"}}, "limits": limits, "stage_signs": (1, -1)}
    )
    card = capabilities_of(config, ABOUT)
    x, y = card.axis("x_nm"), card.axis("y_nm")
    assert x is not None
    assert y is not None
    assert (x.minimum, x.maximum) == pytest.approx((-1000, 500))
    assert (y.minimum, y.maximum) == pytest.approx((-2000, 1000))
    assert card.simulated


def test_a_beam_is_on_for_as_long_as_a_scan_takes() -> None:
    config = PyJEMConfig.checked({**OF_PYJEM, "beam_overhead_s": 0.2, "least_duration_fraction": 0.9})
    check_beam_on(SCAN, 2.1, config)
    with pytest.raises(InstrumentFault, match=r"2\.2 s were counted"):
        check_beam_on(SCAN, 2.3, config)
    with pytest.raises(AcquisitionFailed, match=r"after 1\.7 s"):
        check_beam_on(SCAN, 1.7, config)
    check_beam_on(SCAN, 0.1, config.model_copy(update={"least_duration_fraction": 0.0}))
