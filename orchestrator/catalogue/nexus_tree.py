"""Groups, texts, numbers with units and images of a NeXus file; its neighbour `nexus` builds a frame's file of them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from math import prod
from typing import Any, Final

import h5py
import numpy as np
from h5py import h5a, h5d, h5p, h5s, h5t

# What a name ends in -> the unit NeXus readers (pint, UDUNITS) understand. The longest ending wins.
UNITS: Final = {
    "_nm": "nm", "_nm2": "nm^2", "_mm": "mm", "_mrad": "mrad", "_deg": "deg", "_ev": "eV", "_pa": "pA", "_us": "us",
    "_s": "s", "_ns": "ns", "_e_per_a2": "1/angstrom^2", "_e_per_a2_s": "1/(angstrom^2*s)", "_per_nm2": "1/nm^2",
    "_px": "pixel", "_barn": "barn", "_per_s": "1/s", "_nm_per_s": "nm/s", "_nm_per_min": "nm/min",
    "counts_per_electron": "count/electron", "offset_counts": "count", "electrons": "electron",
    "_e_per_px": "electron/pixel", "_hz": "Hz", "_a": "A", "_v": "V", "_k": "K",
    "_ua": "uA", "_mbar": "mbar", "_ml_per_min": "mL/min",
}  # fmt: skip
UNITLESS: Final = ""

# A frame's file has hundreds of small fields; h5py's low-level calls write them in a third of the time.
_TEXT: Final = h5t.py_create(h5py.string_dtype(), logical=True)
_SCALAR: Final = h5s.create(h5s.SCALAR)
_SMALL: Final = h5p.create(h5p.DATASET_CREATE)
_SMALL.set_layout(h5d.COMPACT)
_SMALL.set_obj_track_times(False)
_CHUNK_BYTES: Final = 1 << 20
_COMPACT_BYTES: Final = 32_768  # HDF5 keeps at most 64 KiB inside an object's header


def unit_of(name: str) -> str:
    """The unit a field's name ends in; empty for a number without a dimension.

    >>> unit_of("dwell_time_us"), unit_of("dose_e_per_a2"), unit_of("subframe_count")
    ('us', '1/angstrom^2', '')
    """
    endings = [ending for ending in UNITS if name.endswith(ending)]
    return UNITS[max(endings, key=len)] if endings else UNITLESS


def permitted(name: str) -> str:
    """A name as NeXus permits it, the same for the same name and for no other: letters, digits, underscores.

    >>> permitted("haadf"), permitted("ccd-2")
    ('haadf', 'ccd_2_9600cafe')
    """
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return name if plain == name else f"{plain}_{zlib.crc32(name.encode()):08x}"


def group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    """A new group of a NeXus class."""
    made = parent.create_group(name)
    _label(made.id, {"NX_class": nx_class})
    for key, value in attributes.items():
        made.attrs[key] = value
    return made


def _label(target: Any, texts: Mapping[str, str]) -> None:
    for key, value in texts.items():
        h5a.create(target, key.encode(), _TEXT, _SCALAR).write(np.array(value.encode(), dtype=object))


def write_text(parent: h5py.Group, name: str, value: str, **attributes: str) -> None:
    """A UTF-8 text of variable length; HDF5 has no NUL inside one, so it becomes the replacement character."""
    made = h5d.create(parent.id, name.encode(), _TEXT, _SCALAR)
    made.write(_SCALAR, _SCALAR, np.array(value.replace("\0", "\ufffd").encode(), dtype=object))
    _label(made, attributes)


def number(parent: h5py.Group, name: str, value: Any, unit: str, **attributes: str) -> None:
    """A number or an array of numbers, with its unit."""
    array = np.asarray(value)
    space = h5s.create_simple(array.shape) if array.ndim else _SCALAR
    layout = _SMALL if 0 < array.nbytes <= _COMPACT_BYTES else None
    made = h5d.create(parent.id, name.encode(), h5t.py_create(array.dtype), space, dcpl=layout)
    if array.size:
        made.write(space, space, np.ascontiguousarray(array).reshape(array.shape))
    _label(made, {"units": unit, **attributes})


def write_values(parent: h5py.Group, values: Mapping[str, Any], unit: str = UNITLESS) -> None:
    """A JSON mapping as fields: numbers with the unit their name ends in, texts, truth values, mappings as groups.

    A name without a unit has that of the mapping it is in (`unit`). None is written as an empty field with `missing`,
    of numbers where there is a unit and else of text, so that it differs from zero and from not being there.
    """
    for key, value in values.items():
        name = _free_name(parent, key)
        own_unit = unit_of(key) or unit
        match value:
            case bool():
                parent.create_dataset(name, data=np.bool_(value))
            case int() | float():
                number(parent, name, value, own_unit)
            case str():
                write_text(parent, name, value)
            case None:
                empty = parent.create_dataset(name, data=h5py.Empty("f8" if own_unit else h5py.string_dtype()))
                if own_unit:
                    empty.attrs["units"] = own_unit
                empty.attrs["missing"] = "not known"
            case Mapping():
                write_values(group(parent, name, "NXcollection"), value, own_unit)
            case list() if _are_numbers(value):
                number(parent, name, value, own_unit)
            case list() if value and all(isinstance(item, str) for item in value):
                texts = [item.replace("\0", "\ufffd") for item in value]
                parent.create_dataset(name, data=texts, dtype=h5py.string_dtype())
            case _:
                listed = {f"{index:04d}": item for index, item in enumerate(value)}
                write_values(group(parent, name, "NXcollection"), listed)


def _free_name(parent: h5py.Group, key: str) -> str:
    """A name HDF5 takes and the group does not have: no slash, not only dots."""
    name = key.replace("/", "_").replace("\0", "_")
    name = name if name.strip(".") else f"_{name}"
    while name in parent:
        name += "_"
    return name


def _are_numbers(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(item, int | float) and not isinstance(item, bool) for item in values)


def write_counts(parent: h5py.Group, name: str, counts: np.ndarray, **attributes: str) -> None:
    """Counts, losslessly compressed; a chunk is one image, or patterns of a part of a line: each is read alone."""
    chunks = (*(1,) * (counts.ndim - 2), *counts.shape[-2:])
    if counts.ndim > 3:  # small patterns share a chunk
        together = min(max(_CHUNK_BYTES // (prod(chunks) * counts.itemsize), 1), counts.shape[-3])
        chunks = (*chunks[:-3], together, *chunks[-2:])
    made = parent.create_dataset(
        name, data=counts, chunks=chunks, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True
    )
    made.attrs["units"] = UNITLESS
    for key, text in attributes.items():
        made.attrs[key] = text


def write_axis(parent: h5py.Group, name: str, values: np.ndarray, unit: str, long_name: str, index: int) -> None:
    """An axis of an NXdata group, and the dimension of the signal it belongs to."""
    number(parent, name, values, unit, long_name=long_name)
    parent.attrs[f"{name}_indices"] = np.uint32(index)
