"""A frame back from its NeXus file, exactly. Its neighbour `nexus` wrote it."""

from __future__ import annotations

import io
import json
from typing import Any, BinaryIO, cast

import h5py
import numpy as np
from pydantic import ValidationError

from instruments import AcquireFrame, Frame, MicroscopeState, Mode
from orchestrator.catalogue.nexus import DOCUMENTS, ENTRY, EVENT, FORMAT_VERSION, PATTERNS, RECORD, STACK
from orchestrator.catalogue.nexus_tree import permitted
from orchestrator.errors import FrameDamaged


def decode(data: bytes | BinaryIO, name: str) -> Frame:
    """The frame in a file or its bytes; `name` is what an error calls it. Raises FrameDamaged."""
    try:
        with h5py.File(_opened(data), "r") as file:
            return _frame(file)
    except (OSError, KeyError, ValueError, ValidationError) as error:
        raise FrameDamaged(
            f"{name} is not a whole frame of format {FORMAT_VERSION} ({' '.join(str(error).split())}); restore a copy"
        ) from error


def acquired_at(data: bytes | BinaryIO) -> str:
    """The moment the file says its frame came back, ISO 8601."""
    with h5py.File(_opened(data), "r") as file:
        return cast("h5py.Dataset", file[ENTRY]["end_time"]).asstr()[()]


def _opened(data: bytes | BinaryIO) -> BinaryIO:
    return io.BytesIO(data) if isinstance(data, bytes) else data


def _frame(file: h5py.File) -> Frame:
    record = cast("h5py.Group", file[RECORD])
    exposure = cast("h5py.Group", record["exposure"])
    detectors = exposure.get("detectors")  # an empty list is an empty group
    names = [name.decode() for name in detectors[()]] if isinstance(detectors, h5py.Dataset) else []
    return Frame(
        action_id=_text(record, "ids/action_id"),
        requested=AcquireFrame.model_validate_json(_document(file, "requested")),
        state=MicroscopeState.model_validate_json(_document(file, "read_back")),
        mode=Mode.model_validate_json(_document(file, "mode")),
        counts={name: _counts(file, name) for name in names},
        pixel_size_nm=_number(exposure, "pixel_size_nm"),
        dose_e_per_a2=_number(exposure, "dose_e_per_a2"),
        electrons=_number(exposure, "electrons"),
        started_s=_number(exposure, "started_s"),
        ended_s=_number(exposure, "ended_s"),
        instrument=_text(exposure, "instrument"),
        simulated=bool(cast("h5py.Dataset", exposure["simulated"])[()]),
        context=json.loads(_document(file, "instrument_context")),
    )


def _counts(file: h5py.File, detector: str) -> np.ndarray:
    event = cast("h5py.Group", file[EVENT])
    known = f"image_{permitted(detector)}"
    image = cast("h5py.Group", event[known if known in event else f"image_{detector}"])  # as older files have it
    return cast("h5py.Dataset", image[PATTERNS if PATTERNS in image else STACK]["real"])[()]


def _document(file: h5py.File, name: str) -> str:
    return _text(cast("h5py.Group", file[DOCUMENTS]), name)


def _text(parent: h5py.Group, name: str) -> str:
    return cast("h5py.Dataset", parent[name]).asstr()[()]


def _number(parent: h5py.Group, name: str) -> Any:
    return cast("h5py.Dataset", parent[name])[()].item()
