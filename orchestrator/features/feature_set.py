"""What an extractor says of one frame: named values with their uncertainty, and arrays; stored as npz.

Neighbour: `registry`, which finds extractors by name.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Protocol, Self

import numpy as np

from instruments.frames import Frame

_HEADER = "features.json"
_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same features are the same bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One number with its standard error, the probability that it is what it claims, and why it is missing or odd."""

    value: float
    std: float | None = None
    probability: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSet:
    """Features of one frame; `action_id` says which. Names carry units as everywhere."""

    extractor: str
    action_id: str
    values: dict[str, Feature]
    arrays: dict[str, np.ndarray]

    def to_bytes(self) -> bytes:
        """A compressed npz that `numpy.load` reads; equal features give equal bytes."""
        values = {name: _plain(asdict(feature)) for name, feature in sorted(self.values.items())}
        header = {"extractor": self.extractor, "action_id": self.action_id, "values": values}
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            archive.writestr(_entry(_HEADER), json.dumps(header, sort_keys=True, allow_nan=False))
            for name, array in sorted(self.arrays.items()):
                content = io.BytesIO()
                np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(_entry(f"{name}.npy"), content.getvalue())
        return target.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The features that `to_bytes` wrote."""
        arrays: dict[str, np.ndarray] = {}
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            header = json.loads(archive.read(_HEADER))
            for name in archive.namelist():
                if name != _HEADER:
                    stored = io.BytesIO(archive.read(name))
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(stored, allow_pickle=False)
        values = {name: Feature(**_restored(fields)) for name, fields in header["values"].items()}
        return cls(extractor=header["extractor"], action_id=header["action_id"], values=values, arrays=arrays)

    def _repr_html_(self) -> str:
        from orchestrator import showing

        return showing.features_card(self)


class FeatureExtractor(Protocol):
    """Turns a frame into features; the same frame gives the same features."""

    def extract(self, frame: Frame) -> FeatureSet:
        """The features of one frame."""
        ...


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinities: a number that is not finite is written as its name."""
    return {
        key: str(value) if isinstance(value, float) and not isfinite(value) else value for key, value in fields.items()
    }


def _restored(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: float(value) if isinstance(value, str) and key != "reason" else value for key, value in fields.items()}
