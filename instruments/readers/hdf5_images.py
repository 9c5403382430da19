"""Images of HDF5 files: Velox .emd, Berkeley (NCEM) .emd and HyperSpy .hspy, read with h5py alone.

Velox keeps images as (rows, columns, frames) with a JSON text beside them, lengths in metres; a Berkeley file marks a
group with `emd_group_type` 1 and gives an axis as `dim1`, `dim2`; HyperSpy gives `scale` and `units` of each axis.
Neighbour: `recorded_images`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from instruments.errors import ConfigurationError
from instruments.readers.recorded_images import RecordedImage, square_pixel_nm

_VELOX: Final = "Data/Image"
_HYPERSPY: Final = "Experiments"
_US_PER_S: Final = 1e6


def read_hdf5_images(path: Path) -> tuple[RecordedImage, ...]:
    """Its images, several of one scan each by itself. Raises ConfigurationError for what cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            if isinstance(file.get(_VELOX), h5py.Group):
                found = _velox(path.name, file)
            elif isinstance(file.get(_HYPERSPY), h5py.Group):
                found = _hyperspy(path.name, file)
            else:
                found = _berkeley(path.name, file)
            return tuple(found)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ConfigurationError(f"{path.name} cannot be read as EMD or HyperSpy: {error}") from error


def _velox(name: str, file: h5py.File) -> Iterator[RecordedImage]:
    for index, one in enumerate(file[_VELOX].values()):
        data: np.ndarray = one["Data"][()]
        if np.iscomplexobj(data) or data.dtype.names:
            continue
        head = bytes(one["Metadata"][:, 0]).split(b"\0")[0]
        said: Mapping[str, Any] = json.loads(head)
        binary, scan, optics = said.get("BinaryResult", {}), said.get("Scan", {}), said.get("Optics", {})
        pixel, unit = binary.get("PixelSize", {}), binary.get("PixelUnitX", "")
        sides = tuple((float(pixel.get(side, 0.0)), unit) for side in ("height", "width"))
        dwell_s = _positive(scan.get("DwellTime"))
        passes = data.shape[2]
        yield RecordedImage(
            name=f"{name}:{index}",
            detectors={_detector(binary.get("Detector"), index): _summed(data)},
            pixel_size_nm=square_pixel_nm(name, (sides[0], sides[1])),
            dwell_time_us=None if dwell_s is None else dwell_s * _US_PER_S * passes,
            beam_energy_ev=_positive(optics.get("AccelerationVoltage")),
            rotation_deg=float(np.degrees(float(scan.get("ScanRotation", 0.0)))),
        )


def _summed(data: np.ndarray) -> np.ndarray:
    """All passes together: whole numbers stay whole."""
    return data.sum(axis=2, dtype=np.int64 if data.dtype.kind in "ui" else np.float64)


def _detector(said: Any, index: int) -> str:
    word = "".join(letter if letter.isalnum() else "_" for letter in str(said or "").lower()).strip("_")
    return word or f"image_{index}"


def _hyperspy(name: str, file: h5py.File) -> Iterator[RecordedImage]:
    for title, signal in file[_HYPERSPY].items():
        data = signal["data"]
        if data.ndim != 2 or data.dtype.kind not in "uif":
            continue
        axes: list[Mapping[str, Any]] = [dict(signal[f"axis-{index}"].attrs) for index in range(2)]
        sides = [(float(axis.get("scale", 0.0)), _word(axis.get("units", ""))) for axis in axes]
        yield RecordedImage(
            name=f"{name}:{title}",
            detectors={"recorded": data[()]},
            pixel_size_nm=square_pixel_nm(name, (sides[0], sides[1])),
            beam_energy_ev=_kilovolts(signal),
        )


def _kilovolts(signal: h5py.Group) -> float | None:
    for place in ("metadata/Acquisition_instrument/TEM", "metadata/Acquisition_instrument/SEM"):
        if isinstance(group := signal.get(place), h5py.Group):
            energy_kev = _positive(group.attrs.get("beam_energy"))
            return None if energy_kev is None else energy_kev * 1e3
    return None


def _berkeley(name: str, file: h5py.File) -> Iterator[RecordedImage]:
    groups: list[tuple[str, h5py.Group]] = []

    def keep(place: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and dict(item.attrs).get("emd_group_type") == 1:
            groups.append((place, item))

    file.visititems(keep)
    for place, group in groups:
        data = group["data"]
        if data.ndim != 2 or data.dtype.kind not in "uif":
            continue
        sides = [_step(group[axis]) for axis in ("dim1", "dim2")]
        yield RecordedImage(
            name=f"{name}:{place}",
            detectors={"recorded": data[()]},
            pixel_size_nm=square_pixel_nm(name, (sides[0], sides[1])),
        )


def _step(axis: h5py.Dataset) -> tuple[float, str]:
    """Distance of neighbours along a Berkeley axis and its unit, written `[n_m]` there."""
    places = np.asarray(axis[()], dtype=float)
    step = float(places[1] - places[0]) if places.size > 1 else 0.0
    return step, _word(axis.attrs.get("units", "")).strip("[]").replace("_", "")


def _word(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _positive(value: Any) -> float | None:
    number = float(value) if value not in (None, "") else 0.0
    return number if number > 0 else None
