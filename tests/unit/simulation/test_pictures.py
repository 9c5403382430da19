"""Results that draw themselves: where pixels lie, how long the scale bar is, what xarray's operations keep."""

import json
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.offsetbox import AnchoredOffsetbox, TextArea
from matplotlib.patches import Rectangle

from instruments.optics import Optics
from simulation import AnnularDetector, GridScan, InvalidParameter, PixelatedDetector, PointScan, SegmentedDetector
from simulation.images import Image, Images
from simulation.results import dataset

OPTICS = Optics(beam_energy_ev=200e3, semi_convergence_angle_mrad=20, defocus_nm=-5)
ATTRIBUTES = {"optics": OPTICS.model_dump_json(), "method": "multislice", "clipped_outer_mrad": json.dumps({})}
SCAN = GridScan(1.0, 2.0, 2.4, 1.2, (6, 12))
"""Pixels of 0.2 nm."""


def images(scan=SCAN, detectors=None, **attributes) -> Images:
    detectors = detectors or {"haadf": AnnularDetector(60, 150)}
    rng, signals, axes_mrad = np.random.default_rng(0), {}, {}
    for name, detector in detectors.items():
        own = {"SegmentedDetector": (1, 4), "PixelatedDetector": (5, 7)}.get(type(detector).__name__, ())
        signals[name] = rng.uniform(0, 1, (*scan.shape, *own))
        axes_mrad[name] = (np.arange(-2, 3) * 4.0, np.arange(-3, 4) * 5.0)
    return dataset(signals, scan, detectors, axes_mrad, ATTRIBUTES | attributes)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def bar_of(axes) -> tuple[float, str]:
    """Length of the scale bar in data units, and its label."""
    (box,) = [artist for artist in axes.get_children() if isinstance(artist, AnchoredOffsetbox)]
    (bar,) = [each for each in box.findobj(Rectangle) if each.get_facecolor() == (1.0, 1.0, 1.0, 1.0)]
    (label,) = [each.get_text() for each in box.findobj(TextArea)]
    return bar.get_width(), label


def test_an_image_has_square_pixels_round_scale_bar_and_units():
    axes = images()["haadf"].plot()
    (shown,) = axes.images
    assert shown.get_extent() == pytest.approx((0.9, 3.3, 1.9, 3.1))
    assert axes.get_ylim() == pytest.approx((1.9, 3.1))
    assert axes.get_aspect() == 1.0
    assert shown.get_cmap().name == "gray"
    assert bar_of(axes) == (0.5, "0.5 nm")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (nm)", "y (nm)")
    assert axes.figure.axes[1].get_ylabel() == "fraction of the incident beam"
    assert axes.get_title(loc="left") == "haadf, 60 to 150 mrad\n200 kV, 20 mrad, defocus -5 nm, multislice"


def test_a_pixel_is_drawn_where_it_is():
    """Row 1, column 3 of the array is the pixel around (1.6, 2.2) nm, whichever side row 0 is on."""
    shown = images()
    shown["haadf"][:] = 0.0
    shown["haadf"][1, 3] = 1.0
    for origin, low in (("upper", 3.1), ("lower", 1.9)):
        axes = shown["haadf"].plot(origin=origin)
        axes.figure.canvas.draw()
        (image,) = axes.images
        assert axes.get_ylim()[0] == pytest.approx(low)
        picture = np.asarray(image.make_image(axes.figure.canvas.get_renderer(), unsampled=True)[0])
        assert picture.shape[:2] == (6, 12)
        event = axes.transData.transform([(1.6, 2.2), (1.8, 2.2), (1.6, 2.4)])
        values = [image.get_cursor_data(_At(x, y)) for x, y in event]
        assert values == [1.0, 0.0, 0.0]


class _At:
    """Where the mouse is, in pixels of the figure."""

    def __init__(self, x, y):
        self.x, self.y = x, y


def test_what_is_clipped_is_said():
    title = images(clipped_outer_mrad=json.dumps({"haadf": 133.33}))["haadf"].plot().get_title(loc="left")
    assert title.startswith("haadf, 60 to 133.3 mrad (clipped)\n")


def test_patterns_are_drawn_over_angles():
    found = images(GridScan(0, 0, 1, 1, (2, 2)), {"4d": PixelatedDetector()})["4d"]
    axes = found.plot()
    (shown,) = axes.images
    assert shown.get_extent() == pytest.approx((-17.5, 17.5, -10, 10))
    np.testing.assert_allclose(np.asarray(shown.get_array()), np.asarray(found).mean(axis=(0, 1)), rtol=1e-6)
    assert isinstance(shown.norm, PowerNorm)
    assert bar_of(axes) == (5.0, "5 mrad")
    assert axes.get_xlabel() == "x (mrad)"
    assert axes.get_title(loc="left").endswith("mean of 4 patterns, grey by square root")
    assert "mean" not in found.isel(y=0, x=1).plot(vmax=1).get_title(loc="left")


def test_segments_are_drawn_as_their_sum():
    found = images(detectors={"dpc": SegmentedDetector(5, 20)})["dpc"]
    axes = found.plot()
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), np.asarray(found).sum(axis=(2, 3)), rtol=1e-6)
    assert axes.get_title(loc="left").endswith("sum of 4 segments")


def test_points_are_drawn_along_their_line_or_where_they_are():
    line = images(PointScan(np.linspace([0, 0], [3, 4], 6)))["haadf"].plot()
    np.testing.assert_allclose(line.lines[0].get_xdata(), np.arange(6))
    assert line.get_xlabel() == "distance along the line (nm)"
    places = np.array([[0.0, 0], [1, 0], [1, 2], [4, 2]])
    strewn = images(PointScan(places))["haadf"].plot()
    np.testing.assert_array_equal(strewn.collections[0].get_offsets(), places)
    assert not strewn.yaxis_inverted()
    turned = images(PointScan(places))["haadf"].plot(origin="upper")
    assert turned.yaxis_inverted()
    assert turned.get_ylabel() == "y (nm), downwards"
    with pytest.raises(InvalidParameter, match=r"haadf is a single value, .* more pixels"):
        images(GridScan(0, 0, 1, 1, (1, 1)))["haadf"].plot()
    with pytest.raises(InvalidParameter, match="origin = 'top': give 'lower'"):
        images()["haadf"].plot(origin="top")


def test_what_xarray_makes_of_images_is_still_drawn():
    found = images()
    for image in (
        found["haadf"] * 2, found.haadf, found["haadf"].isel(x=slice(2, 8)), found.isel(y=slice(3))["haadf"],
        found[["haadf"]]["haadf"], pickle.loads(pickle.dumps(found))["haadf"], dict(found.items())["haadf"],
    ):  # fmt: skip
        assert type(image) is Image
        assert image.plot().images
    assert isinstance(found, xr.Dataset)
    assert type(found.isel(x=1)) is Images


def test_what_is_no_image_is_drawn_by_xarray():
    found = images()["haadf"]
    figure, axes = plt.subplots()
    (line,) = found.isel(x=3).plot(ax=axes)
    assert line.axes is axes
    assert axes.get_xlabel() == "y [nm]"
    assert not found.plot(x="y").axes.images
    uneven = found.isel(x=[0, 1, 5])
    assert not uneven.plot().axes.images
    assert found.plot.hist()
    assert figure.axes
