"""Frames and axes in the words of Bluesky's documents: data keys, readings, configuration."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from instruments.axes import unit_of
from instruments.capabilities import Axis, Capabilities
from instruments.frames import Frame
from instruments.limits import SafetyEnvelope

_NUMBERS = {
    "dose_e_per_a2": "e/A2",
    "electrons": "",
    "pixel_size_nm": "nm",
    "instrument_time_s": "s",
}


class Documents:
    """What is said of one microscope; keys begin with its name."""

    def __init__(self, name: str, capabilities: Capabilities, envelope: SafetyEnvelope) -> None:
        self._name = name
        self._capabilities = capabilities
        self._envelope = envelope
        self._source = f"stempilot:{capabilities.name}"

    def mean_names(self, mode_name: str) -> list[str]:
        """Keys of the mean counts of a mode's detectors."""
        mode = self._capabilities.mode(mode_name)
        return [f"{self._name}_{detector.name}_mean" for detector in mode.detectors] if mode else []

    def reading(self, frame: Frame, path: Path | None) -> dict[str, Any]:
        """Raw counts, or the path where they are kept; mean counts; dose; and the whole context as JSON."""
        values: dict[str, Any] = {f"{name}_mean": float(np.mean(counts)) for name, counts in frame.counts.items()}
        values |= {name: float(getattr(frame, name)) for name in _NUMBERS}
        values |= {"action_id": frame.action_id, "context": _context(frame)}
        values |= dict(frame.counts) if path is None else {"path": str(path)}
        now = time.time()
        return {f"{self._name}_{key}": {"value": value, "timestamp": now} for key, value in values.items()}

    def frame_keys(self, frame: Frame, path: Path | None) -> dict[str, Any]:
        """Data keys of `reading`."""
        keys = {f"{name}_mean": self._key("number", units="counts") for name in frame.counts}
        keys |= {name: self._key("number", units=unit) for name, unit in _NUMBERS.items()}
        keys |= {"action_id": self._key("string"), "context": self._key("string")}
        if path is not None:
            keys |= {"path": self._key("string")}
        else:
            keys |= {
                name: {
                    **self._key("array", units="counts"),
                    "shape": list(counts.shape),
                    "dtype_numpy": counts.dtype.str,
                }
                for name, counts in frame.counts.items()
            }
        return {f"{self._name}_{key}": value for key, value in keys.items()}

    def axis_keys(self, name: str, axis: Axis) -> dict[str, Any]:
        """Data keys of an axis' read-back and set point."""
        key = self._key("string") if axis.choices else self._key("number", units=unit_of(axis.name) or "")
        if not axis.choices:
            key["limits"] = {"control": {"low": axis.minimum, "high": axis.maximum}}
        return {name: key, f"{name}_setpoint": dict(key)}

    def configuration(self, mode_name: str) -> dict[str, Any]:
        """Instrument, whether it is simulated, mode, the facility's limits and the instrument's quirks."""
        values = {
            "instrument": self._capabilities.name,
            "simulated": str(self._capabilities.simulated),
            "mode": mode_name,
            "limits": self._envelope.model_dump_json(exclude_none=True),
            "quirks": json.dumps(self._capabilities.quirks),
        }
        now = time.time()
        return {f"{self._name}_{key}": {"value": value, "timestamp": now} for key, value in values.items()}

    def configuration_keys(self) -> dict[str, Any]:
        """Data keys of `configuration`."""
        names = ("instrument", "simulated", "mode", "limits", "quirks")
        return {f"{self._name}_{name}": self._key("string") for name in names}

    def _key(self, dtype: str, units: str | None = None) -> dict[str, Any]:
        key: dict[str, Any] = {"source": self._source, "dtype": dtype, "shape": []}
        return key if units is None else {**key, "units": units}


def _context(frame: Frame) -> str:
    """Everything about a frame but its counts."""
    return json.dumps(
        {
            "requested": frame.requested.model_dump(mode="json"),
            "state": frame.state.model_dump(mode="json"),
            "mode": frame.mode.model_dump(mode="json"),
            "started_s": frame.started_s,
            "ended_s": frame.ended_s,
            "instrument": frame.instrument,
            "simulated": frame.simulated,
            "context": frame.context,
        },
        default=str,
    )
