"""The census's extractor on images that somebody measured, and the report's box about it."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from orchestrator.report import render_report
from orchestrator.report.measured_image import Measured, MeasuredImage
from tests.unit.orchestrator.census_report import census_data
from workflows.questions.measured import NAMES, measured_images


@pytest.fixture(scope="module")
def measured(real_data: Path, image_cache: Path) -> Measured:
    return measured_images(real_data, image_cache)


def brightness(image: MeasuredImage) -> tuple[np.ndarray, np.ndarray]:
    """The image itself, smoothed by 40 pm, at metal and at chalcogen columns, over its mean."""
    smooth = gaussian_filter(image.image, 0.04 / image.pixel_size_nm) / image.image.mean()
    arrays, centre = image.features.arrays, (np.array(image.image.shape) - 1) / 2
    row = np.round(arrays["site_y_nm"] / image.pixel_size_nm + centre[0]).astype(int)
    column = np.round(arrays["site_x_nm"] / image.pixel_size_nm + centre[1]).astype(int)
    metal = arrays["site_column"] == 0
    return smooth[row, column][metal], smooth[row, column][~metal]


@pytest.mark.real_data
@pytest.mark.parametrize("number", [0, 1])
def test_metal_columns_are_where_the_image_is_bright(measured: Measured, number: int) -> None:
    """The second image is bent by a third of a row, and a contrast-reversed model far from focus would fit it too."""
    image = measured.images[number]
    metal, chalcogen = brightness(image)
    print(f"{image.name}: metal {metal.mean():.3f}, chalcogen {chalcogen.mean():.3f} of the mean")
    assert metal.mean() > 1.2
    assert chalcogen.mean() < 0.85 * metal.mean()
    # A column that slipped to the hollow beside it, 0.18 nm away, has no brightness of its own.
    of_metal = image.features.arrays["intensity"][image.features.arrays["site_column"] == 0]
    assert np.mean(of_metal > 0.5) > 0.94
    assert image.features.values["orientation_log_likelihood_margin"].value > 2


@pytest.mark.real_data
def test_files_are_described_once(
    measured: Measured, real_data: Path, image_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [image.name for image in measured.images] == list(NAMES)
    assert measured.note == ""
    first = measured.images[0]
    assert first.told == "1% V-doped MoS2 monolayer, 60 kV, 30 pA, 9 nm across"
    assert "declares raw_counts false; Poisson statistics need raw counts" in first.refusal
    assert 0.2 < first.substitute.brightness_ratio < 0.6  # (23 / 42) ** 1.7 is 0.36
    monkeypatch.setattr("orchestrator.features.sites.describe", None)  # a second description would fail
    again = measured_images(real_data, image_cache)
    assert again.images[0].processor_s == first.processor_s
    assert np.array_equal(again.images[0].features.arrays["intensity"], first.features.arrays["intensity"])


@pytest.mark.real_data
def test_the_page_shows_images_and_refusals(measured: Measured) -> None:
    page = render_report(census_data(measured=measured))
    text = html.unescape(re.sub(r"<[^>]+>", " ", page.split("</style>")[1]))
    assert measured.headline in text
    box = page[page.index('id="measured"') : page.index('id="dose"')]
    assert box.count("<img alt=") == 2
    assert box.count("Probabilities, species, a false discovery rate, a density") == 2
    assert box.count("Poisson statistics need raw counts") == 2
    assert 'href="#measured"' in page
