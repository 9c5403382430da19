"""Where measured images for the report come from: the folder named, files as expected, the cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from workflows.questions.measured import FOLDER, HOW, NAMES, measured_images

NOTES = {
    "material_type": "MoS2",
    "experimental_details": {
        "voltage": "60 kV",
        "probe_current": "30 pA",
        "spatial_info": {"field_of_view_x": 9.0, "field_of_view_y": 9.0, "field_of_view_units": "nm"},
    },
}


def written(folder: Path, notes: object, image: np.ndarray) -> Path:
    (folder / FOLDER).mkdir(parents=True)
    np.save(folder / FOLDER / f"{NAMES[0]}.npy", image)
    (folder / FOLDER / f"{NAMES[0]}.json").write_text(json.dumps(notes), encoding="utf-8")
    return folder


@pytest.mark.parametrize("folder", [None, Path("nowhere")])
def test_without_a_file_one_line_says_how_to_name_it(folder: Path | None) -> None:
    found = measured_images(folder, None)
    assert found.images == ()
    assert found.note == HOW
    assert "STEMPILOT_REAL_DATA" in HOW
    assert "\n" not in HOW


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"voltage": "60 V"}, "'60 V' is not a number of kV"),
        ({"probe_current": "thirty"}, "'thirty' is not a number of pA"),
        ({"spatial_info": {**NOTES["experimental_details"]["spatial_info"], "field_of_view_units": "um"}}, "in nm"),
    ],
)
def test_notes_that_are_not_as_expected_are_named(tmp_path: Path, change: dict, complaint: str) -> None:
    notes = {**NOTES, "experimental_details": {**NOTES["experimental_details"], **change}}
    found = measured_images(written(tmp_path, notes, np.ones((64, 64))), None)
    assert found.images == ()
    assert NAMES[0] in found.note
    assert complaint in found.note


def test_an_image_without_a_lattice_is_named(tmp_path: Path, image_cache: Path) -> None:
    noise = np.random.default_rng(1).normal(size=(128, 128))
    found = measured_images(written(tmp_path, NOTES, noise), image_cache)
    assert found.images == ()
    assert "no lattice of this model in the image" in found.note
