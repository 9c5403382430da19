"""Images and spectra of DigitalMicrograph files, versions 3 and 4, as far as their tags are publicly described.

A file is a tree of tags: groups, and values with a description of their type. Its header and lengths are big-endian,
values mostly little-endian. Neighbour: `recorded_images`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from instruments.errors import ConfigurationError
from instruments.readers.recorded_images import RecordedImage, square_pixel_nm
from instruments.readers.spectra import as_points, ev_per

_GROUP, _VALUE = 20, 21
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_NUMBERS: Final = {
    2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "i1", 10: "u1", 11: "i8", 12: "u8",
}  # fmt: skip
_IMAGES: Final = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 39: "i8", 40: "u8"}
_DEPTH, _TAGS = 64, 1_000_000  # of a file that is in order, by far
_PICOAMPERE_PER_NANOAMPERE = 1000.0
_US_PER_S: Final = 1e6
Tree = Mapping[str, Any]


@dataclass
class _Tags:
    """Reads the tree from the bytes of a file."""

    data: memoryview
    version: int
    order: str
    at: int
    read: int = 0

    def group(self, depth: int = 0) -> dict[str, Any]:
        self.take(2)
        tree: dict[str, Any] = {}
        for index in range(self.length()):
            self.read += 1
            if depth > _DEPTH or self.read > _TAGS:
                raise ValueError("tags within tags without an end")
            kind, name_bytes = struct.unpack(">BH", self.take(3))
            name = bytes(self.take(name_bytes)).decode("latin-1") or str(index)
            if self.version == 4:
                self.take(8)
            if kind == _GROUP:
                tree[name] = self.group(depth + 1)
            elif kind == _VALUE:
                tree[name] = self.value()
            else:
                raise ValueError(f"a tag of unknown kind {kind}")
        return tree

    def value(self) -> Any:
        if bytes(self.take(4)) != b"%%%%":
            raise ValueError("a value does not begin where it should")
        kinds = [self.length() for _ in range(self.length())]
        if kinds[0] == _ARRAY:
            return self.array(kinds[1:-1], kinds[-1])
        if kinds[0] == _STRING:
            return bytes(self.take(2 * kinds[1])).decode("utf-16-le", "replace")
        return self.array(kinds, 1)[0].item()

    def array(self, element: list[int], count: int) -> np.ndarray:
        kind = np.dtype([(str(index), self.order + _NUMBERS[one]) for index, one in enumerate(element[4::2])])
        if element[0] != _STRUCT:
            kind = np.dtype(self.order + _NUMBERS[element[0]])
        return np.frombuffer(self.take(count * kind.itemsize), kind)

    def length(self) -> int:
        size, form = (8, ">Q") if self.version == 4 else (4, ">I")
        return struct.unpack(form, self.take(size))[0]

    def take(self, size: int) -> memoryview:
        if self.at + size > len(self.data):
            raise ValueError("it ends in the middle")
        piece = self.data[self.at : self.at + size]
        self.at += size
        return piece


def read_digital_micrograph(path: Path) -> tuple[RecordedImage, ...]:
    """Its images and spectra of real numbers, no thumbnail. Raises ConfigurationError for what is no such file."""
    try:
        tree = _tree(memoryview(path.read_bytes()))
    except (ValueError, KeyError, IndexError, struct.error, OSError) as error:
        raise ConfigurationError(f"{path.name} is not a whole DigitalMicrograph file ({error})") from error
    images = (_image(f"{path.name}:{name}", one) for name, one in tree.get("ImageList", {}).items())
    return tuple(image for image in images if image is not None)


def _tree(data: memoryview) -> dict[str, Any]:
    (version,) = struct.unpack_from(">I", data)
    if version not in (3, 4):
        raise ValueError(f"version {version}, not 3 or 4")
    head = 16 if version == 4 else 12
    (is_little,) = struct.unpack_from(">I", data, head - 4)
    return _Tags(data, version, "<" if is_little else ">", head).group()


def _image(name: str, tree: Tree) -> RecordedImage | None:
    data: Tree = tree.get("ImageData", {})
    kind, sides, raw = _IMAGES.get(data.get("DataType", 0)), list(data.get("Dimensions", {}).values()), data.get("Data")
    if kind is None or raw is None:
        return None
    if (energies_ev := _energies_ev(data)) is not None:
        return _spectra(name, tree, np.frombuffer(raw.tobytes(), raw.dtype.str[0] + kind), energies_ev)
    if len([side for side in sides if side > 1]) != 2:
        return None
    columns, rows = [side for side in sides if side > 1]
    values = np.frombuffer(raw.tobytes(), raw.dtype.str[0] + kind)
    if values.size != rows * columns:
        raise ConfigurationError(f"{name}: {values.size} values for {rows} x {columns} px")
    scales = _scales(data)[:2]
    tags: Tree = tree.get("ImageTags", {})
    microscope: Tree = tags.get("Microscope Info", {})
    return RecordedImage(
        name=name,
        detectors={"recorded": values.reshape(rows, columns)},
        pixel_size_nm=square_pixel_nm(name, (scales[1], scales[0])) if len(scales) == 2 else None,
        dwell_time_us=_number(tags.get("DigiScan", {}), "Sample Time"),
        current_pa=_probe_pa(microscope),
        beam_energy_ev=_number(microscope, "Voltage"),
    )


def _axes(data: Tree) -> list[Tree]:
    return list(data.get("Calibrations", {}).get("Dimension", {}).values())


def _scales(data: Tree) -> list[tuple[float, str]]:
    return [(float(axis.get("Scale", 0.0)), _text(axis.get("Units", ""))) for axis in _axes(data)]


def _energies_ev(data: Tree) -> tuple[float, float] | None:
    """(first, step) of an energy axis, which comes last of one or three; None where it has none."""
    axes = _axes(data)
    factor = ev_per(_text(axes[-1].get("Units", ""))) if len(axes) in (1, 3) else None
    if factor is None:
        return None
    step_ev = float(axes[-1].get("Scale", 0.0)) * factor
    return -float(axes[-1].get("Origin", 0.0)) * step_ev, step_ev


def _spectra(name: str, tree: Tree, values: np.ndarray, energies_ev: tuple[float, float]) -> RecordedImage:
    """A spectrum, or a spectrum image, whose values are written energy by energy."""
    data: Tree = tree["ImageData"]
    sides, scales, tags = list(data["Dimensions"].values()), _scales(data), tree.get("ImageTags", {})
    if values.size != np.prod(sides):
        raise ConfigurationError(f"{name}: {values.size} values for {' x '.join(map(str, sides))}")
    values = np.moveaxis(values.reshape(sides[::-1]), 0, -1)
    microscope, eels = tags.get("Microscope Info", {}), tags.get("EELS", {})
    if len(sides) == 3:
        dwell_s = _number(tags.get("SI", {}).get("Acquisition", {}), "Pixel time (s)")
    else:
        dwell_s = _number(eels.get("Acquisition", {}), "Integration time (s)")
    return RecordedImage(
        name=name,
        detectors={"spectrum": as_points(values)},
        kind="eds" if "EDS" in tags and not eels else "eels",
        pixel_size_nm=square_pixel_nm(name, (scales[1], scales[0])) if len(sides) == 3 else None,
        dwell_time_us=None if dwell_s is None else dwell_s * _US_PER_S,
        current_pa=_probe_pa(microscope),
        beam_energy_ev=_number(microscope, "Voltage"),
        energies_ev=energies_ev,
    )


def _probe_pa(microscope: Tree) -> float | None:
    current_na = _number(microscope, "Probe Current (nA)")
    return None if current_na is None else current_na * _PICOAMPERE_PER_NANOAMPERE


def _number(tree: Tree, name: str) -> float | None:
    """A positive number of this name; zero is what a program writes that does not know."""
    value = tree.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _text(value: Any) -> str:
    return value.tobytes().decode("utf-16-le", "replace") if isinstance(value, np.ndarray) else str(value)
