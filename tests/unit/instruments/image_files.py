"""Small files as microscope programs write them, made from their public descriptions, for tests of the readers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_KINDS = {"i2": 2, "i4": 3, "u2": 4, "u4": 5, "f4": 6, "f8": 7}
_IMAGE_KINDS = {"i2": 1, "f4": 2, "u2": 10, "u4": 11}
Calibrated = tuple[float, str]


def dm_file(path: Path, image: np.ndarray, pixel: Calibrated, tags: dict[str, Any] | None = None) -> Path:
    """A DigitalMicrograph file, version 3 or 4 by its suffix, with a thumbnail before the image."""
    return _dm_written(path, _dm_image(image, pixel, tags or {}))


def _dm_written(path: Path, image: dict[str, Any]) -> Path:
    version = 4 if path.suffix == ".dm4" else 3
    thumbnail = _dm_image(np.zeros((2, 2), "u4"), (1.0, ""), {})
    thumbnail["ImageData"]["DataType"] = np.uint32(23)
    tree = {"ImageList": [thumbnail, image]}
    body = _dm_group(tree, version)
    size = struct.pack(">Q" if version == 4 else ">I", len(body))
    path.write_bytes(struct.pack(">I", version) + size + struct.pack(">I", 1) + body)
    return path


def dm_spectra(
    path: Path, values: np.ndarray, energy: tuple[float, float, str], pixel: Calibrated, tags: dict[str, Any]
) -> Path:
    """A spectrum (channels,) or a spectrum image (rows, columns, channels); energy: (origin, scale, unit)."""
    image = _dm_image(values[..., 0].reshape(-1, 1), pixel, tags)
    origin, scale, unit = energy
    last = {"Origin": np.float32(origin), "Scale": np.float32(scale), "Units": unit}
    data = image["ImageData"]
    data["Calibrations"]["Dimension"] = [*data["Calibrations"]["Dimension"][: values.ndim - 1], last]
    data["Data"] = np.moveaxis(values, -1, 0).ravel()
    data["Dimensions"] = [np.uint32(side) for side in (*reversed(values.shape[:-1]), values.shape[-1])]
    return _dm_written(path, image)


def _dm_image(image: np.ndarray, pixel: Calibrated, tags: dict[str, Any]) -> dict[str, Any]:
    axis = {"Origin": np.float32(0), "Scale": np.float32(pixel[0]), "Units": pixel[1]}
    kind = image.dtype.str[1:]
    return {
        "ImageData": {
            "Calibrations": {"Dimension": [axis, dict(axis)]},
            "Data": image.ravel(),
            "DataType": np.uint32(_IMAGE_KINDS[kind]),
            "Dimensions": [np.uint32(image.shape[1]), np.uint32(image.shape[0])],
        },
        "ImageTags": tags,
    }


def _dm_group(tree: dict[str, Any] | list[Any], version: int) -> bytes:
    named = list(tree.items()) if isinstance(tree, dict) else [("", one) for one in tree]
    parts = [_dm_tag(name, value, version) for name, value in named]
    return b"\x01\x00" + _dm_length(len(parts), version) + b"".join(parts)


def _dm_tag(name: str, value: Any, version: int) -> bytes:
    is_group = isinstance(value, dict | list)
    body = _dm_group(value, version) if is_group else _dm_value(value, version)
    head = struct.pack(">BH", 20 if is_group else 21, len(name)) + name.encode("latin-1")
    return head + (struct.pack(">Q", len(body)) if version == 4 else b"") + body


def _dm_value(value: Any, version: int) -> bytes:
    if isinstance(value, str):
        value = np.frombuffer(value.encode("utf-16-le"), "u2")
    array = np.asarray(value)
    kind = _KINDS[array.dtype.str[1:]]
    kinds = [20, kind, array.size] if array.ndim else [kind]
    described = _dm_length(len(kinds), version) + b"".join(_dm_length(one, version) for one in kinds)
    return b"%%%%" + described + array.astype(array.dtype.newbyteorder("<")).tobytes()


def _dm_length(value: int, version: int) -> bytes:
    return struct.pack(">Q" if version == 4 else ">I", value)


def velox_file(path: Path, frames: np.ndarray, said: dict[str, Any]) -> Path:
    """A Velox file of one image, (rows, columns, frames), with what its JSON says."""
    with h5py.File(path, "w") as file:
        group = file.create_group("Data/Image/0123abcd")
        group["Data"] = frames
        text = json.dumps(said).encode()
        group["Metadata"] = np.frombuffer(text.ljust(len(text) + 40, b"\0"), "u1")[:, None]
    return path


def velox_spectra_file(path: Path, spectra: dict[str, np.ndarray], said: dict[str, Any]) -> Path:
    """A Velox file of one spectrum by each detector, and what its JSON says besides."""
    with h5py.File(path, "w") as file:
        for index, (detector, values) in enumerate(spectra.items()):
            group = file.create_group(f"Data/Spectrum/{index}")
            group["Data"] = values[:, None]
            text = json.dumps(said | {"BinaryResult": {"Detector": detector}}).encode()
            group["Metadata"] = np.frombuffer(text + b"\0", "u1")[:, None]
    return path


def hyperspy_spectra_file(path: Path, values: np.ndarray, detector: dict[str, Any], beam: dict[str, Any]) -> Path:
    """A HyperSpy spectrum image (rows, columns, channels) of 0.5 nm points and 0.1 keV channels from -0.2 keV."""
    axes = [{"scale": 0.5, "units": "nm"}, {"scale": 0.5, "units": "nm"}]
    with h5py.File(path, "w") as file:
        group = file.create_group("Experiments/map")
        group["data"] = values
        for index, axis in enumerate([*axes, {"scale": 0.1, "offset": -0.2, "units": "keV"}]):
            group.create_group(f"axis-{index}").attrs.update(axis)
        group.create_group("metadata/Acquisition_instrument/TEM").attrs.update(beam)
        for name, words in detector.items():
            group.create_group(f"metadata/Acquisition_instrument/TEM/Detector/{name}").attrs.update(words)
    return path


def berkeley_file(path: Path, image: np.ndarray, pixel: Calibrated) -> Path:
    """An EMD file as openNCEM writes it."""
    with h5py.File(path, "w") as file:
        group = file.create_group("data/image")
        group.attrs["emd_group_type"] = 1
        group["data"] = image
        for name, side in zip(("dim1", "dim2"), image.shape, strict=True):
            group[name] = np.arange(side) * pixel[0]
            group[name].attrs["units"] = np.bytes_(f"[{pixel[1]}]")
    return path


def hyperspy_file(path: Path, image: np.ndarray, pixel: Calibrated) -> Path:
    """A HyperSpy file of one signal."""
    with h5py.File(path, "w") as file:
        group = file.create_group("Experiments/gold")
        group["data"] = image
        for index in range(2):
            axis = group.create_group(f"axis-{index}")
            axis.attrs.update({"scale": pixel[0], "units": pixel[1], "size": image.shape[index]})
        group.create_group("metadata/Acquisition_instrument/TEM").attrs["beam_energy"] = 200.0
    return path
