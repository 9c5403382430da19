"""Images and spectra of HDF5 files: Velox .emd, Berkeley (NCEM) .emd and HyperSpy .hspy, read with h5py alone.

Velox keeps images as (rows, columns, frames) with a JSON text beside them, lengths in metres; a Berkeley file marks a
group with `emd_group_type` 1 and gives an axis as `dim1`, `dim2`; HyperSpy gives `scale` and `units` of each axis.
Neighbour: `recorded_images`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from instruments.errors import ConfigurationError
from instruments.readers.recorded_images import RecordedImage, square_pixel_nm
from instruments.readers.spectra import as_points, ev_per, parts_of

_VELOX: Final = "Data/Image"
_VELOX_SPECTRA: Final = "Data/Spectrum"
_HYPERSPY: Final = "Experiments"
_US_PER_S: Final = 1e6
_PICOAMPERE_PER_NANOAMPERE: Final = 1000.0
_TEM: Final = "metadata/Acquisition_instrument/TEM"


def read_hdf5_images(path: Path) -> tuple[RecordedImage, ...]:
    """Its images, several of one scan each by itself. Raises ConfigurationError for what cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            if any(isinstance(file.get(place), h5py.Group) for place in (_VELOX, _VELOX_SPECTRA)):
                found = (*_velox(path.name, file), *_velox_spectra(path.name, file))
            elif isinstance(file.get(_HYPERSPY), h5py.Group):
                found = _hyperspy(path.name, file)
            else:
                found = _berkeley(path.name, file)
            return tuple(found)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ConfigurationError(f"{path.name} cannot be read as EMD or HyperSpy: {error}") from error


def _velox(name: str, file: h5py.File) -> Iterator[RecordedImage]:
    for index, one in enumerate(_groups(file, _VELOX)):
        data: np.ndarray = one["Data"][()]
        if np.iscomplexobj(data) or data.dtype.names:
            continue
        said = _said(one)
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


def _velox_spectra(name: str, file: h5py.File) -> Iterator[RecordedImage]:
    """The spectra of all X-ray detectors together, of one exposure of one place."""
    spectra: dict[str, np.ndarray] = {}
    said: Mapping[str, Any] = {}
    for index, one in enumerate(_groups(file, _VELOX_SPECTRA)):
        said = _said(one)
        spectra[_detector(said.get("BinaryResult", {}).get("Detector"), index)] = one["Data"][:, 0]
    if not spectra:
        return
    optics: Mapping[str, Any] = said.get("Optics", {})
    cards = [card for card in said.get("Detectors", {}).values() if _positive(card.get("RealTime"))]
    exposure_s = max((float(card["RealTime"]) for card in cards), default=None)
    screen_a = _positive(optics.get("LastMeasuredScreenCurrent"))
    parts = parts_of(spectra)
    yield RecordedImage(
        name=f"{name}:spectrum",
        detectors={detector: as_points(values) for detector, values in parts.items()},
        kind="eds",
        dwell_time_us=None if exposure_s is None else exposure_s * _US_PER_S,
        beam_energy_ev=_positive(optics.get("AccelerationVoltage")),
        counted=frozenset(parts),
        energies_ev=_velox_energies_ev(cards),
        hint="" if screen_a is None else f"the current of the screen was last measured as {screen_a * 1e12:.4g} pA",
    )


def _velox_energies_ev(cards: list[Mapping[str, Any]]) -> tuple[float, float] | None:
    """(first, step) where all detectors have the same."""
    axes = {(float(card["OffsetEnergy"]), float(card["Dispersion"])) for card in cards if "Dispersion" in card}
    return axes.pop() if len(axes) == 1 else None


def _groups(file: h5py.File, place: str) -> list[h5py.Group]:
    found = file.get(place)
    return list(found.values()) if isinstance(found, h5py.Group) else []


def _said(one: h5py.Group) -> Mapping[str, Any]:
    return json.loads(bytes(one["Metadata"][:, 0]).split(b"\0")[0])


def _summed(data: np.ndarray) -> np.ndarray:
    """All passes together: whole numbers stay whole."""
    return data.sum(axis=2, dtype=np.int64 if data.dtype.kind in "ui" else np.float64)


def _detector(said: Any, index: int) -> str:
    word = "".join(letter if letter.isalnum() else "_" for letter in str(said or "").lower()).strip("_")
    return word or f"image_{index}"


def _hyperspy(name: str, file: h5py.File) -> Iterator[RecordedImage]:
    for title, signal in file[_HYPERSPY].items():
        data = signal["data"]
        if data.dtype.kind not in "uif" or data.ndim not in (1, 2, 3):
            continue
        axes: list[Mapping[str, Any]] = [dict(signal[f"axis-{index}"].attrs) for index in range(data.ndim)]
        factor = ev_per(_word(axes[-1].get("units", "")))
        if (factor is None) != (data.ndim == 2):
            continue
        sides = [(float(axis.get("scale", 0.0)), _word(axis.get("units", ""))) for axis in axes]
        image = RecordedImage(
            name=f"{name}:{title}",
            detectors={"recorded": data[()]},
            pixel_size_nm=square_pixel_nm(name, (sides[0], sides[1])) if data.ndim > 1 else None,
            beam_energy_ev=_kilovolts(signal),
        )
        yield image if factor is None else _hyperspy_spectra(image, signal, axes[-1], factor)


def _hyperspy_spectra(
    image: RecordedImage, signal: h5py.Group, axis: Mapping[str, Any], factor: float
) -> RecordedImage:
    """The same as spectra, with the exposure of a point and the current that its metadata tell."""
    seconds = {"eels": ("EELS", "dwell_time"), "eds": ("EDS", "real_time")}
    kind = "eds" if isinstance(signal.get(f"{_TEM}/Detector/EDS"), h5py.Group) else "eels"
    place, word = seconds[kind]
    exposure_s = _told(signal, f"{_TEM}/Detector/{place}", word)
    current_na = _told(signal, _TEM, "beam_current")
    return replace(
        image,
        detectors={"spectrum": as_points(image.detectors["recorded"])},
        kind=kind,
        dwell_time_us=None if exposure_s is None else exposure_s * _US_PER_S,
        current_pa=None if current_na is None else current_na * _PICOAMPERE_PER_NANOAMPERE,
        energies_ev=(float(axis.get("offset", 0.0)) * factor, float(axis.get("scale", 0.0)) * factor),
    )


def _told(signal: h5py.Group, place: str, word: str) -> float | None:
    group = signal.get(place)
    return _positive(group.attrs.get(word)) if isinstance(group, h5py.Group) else None


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
