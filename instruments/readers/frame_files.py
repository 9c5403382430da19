"""Frames of a data folder of ours as recorded rasters: their files are plain HDF5, `orchestrator.catalogue` wrote them.

Nothing but the files is needed: which experiment a frame belongs to stands in it. Neighbour: `recorded_images`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from pydantic import ValidationError

from instruments.capabilities import Detector, Mode
from instruments.commands import AcquireFrame
from instruments.errors import ConfigurationError
from instruments.readers.recorded_images import RecordedImage
from instruments.state import MicroscopeState

_RECORD: Final = "entry1/stempilot"
_EVENT: Final = "entry1/measurement/event1"
_STACK, _PATTERNS = "stack_2d", "patterns"  # by sub-frame, and by sub-frame and scan point
_REPLAYED: Final = ("stem", "eds", "eels")
_FORMAT: Final = 1


def read_experiment(folder: Path, experiment: str) -> tuple[RecordedImage, ...]:
    """All its frames, in the order of their files. Raises ConfigurationError where there are none, or a broken one."""
    if not folder.is_dir():
        raise ConfigurationError(f"there is no data folder {folder}; give one that holds experiments as `folder`")
    known: set[str] = set()
    images: list[RecordedImage] = []
    for path in sorted(folder.rglob("*.nxs")):
        try:
            with h5py.File(path, "r") as file:
                named = _text(file, "ids/experiment_id")
                known.add(named)
                if named == experiment:
                    images.append(_image(path.name, file))
        except (OSError, KeyError, ValueError, ValidationError) as error:
            raise ConfigurationError(f"{path} is not a whole frame ({error}); restore a copy") from error
    if not images:
        there = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(f"{folder} holds no frame of experiment {experiment!r}; experiments there: {there}")
    return tuple(images)


def _image(name: str, file: h5py.File) -> RecordedImage:
    version = file[_RECORD].attrs.get("format_version")
    if version != _FORMAT:
        raise ConfigurationError(f"{name} is of format {version}, this reader knows {_FORMAT}; use a newer stempilot")
    command = AcquireFrame.model_validate_json(_text(file, "documents/requested"))
    state = MicroscopeState.model_validate_json(_text(file, "documents/read_back"))
    mode = Mode.model_validate_json(_text(file, "documents/mode"))
    if mode.kind not in _REPLAYED:
        kinds = ", ".join(_REPLAYED)
        raise ConfigurationError(f"{name}: mode {mode.name!r} of kind {mode.kind} is not replayed; {kinds} are")
    scan = command.scan
    counts = {one.name: _total(file, one.name) for one in mode.detectors}
    return RecordedImage(
        name=name,
        detectors=counts,
        mode=mode.name,
        kind=mode.kind,
        centre_nm=_centre_nm(command, state),
        pixel_size_nm=float(file[_RECORD]["exposure"]["pixel_size_nm"][()]),
        dwell_time_us=scan.dwell_time_us * command.subframe_count,
        current_pa=command.optics.probe_current_pa,
        beam_energy_ev=command.optics.beam_energy_ev,
        rotation_deg=scan.rotation_deg,
        defocus_nm=command.optics.defocus_nm,
        tilt_deg=(state.stage.alpha_deg, state.stage.beta_deg),
        energies_ev=_energies_ev(file),
        simulated=bool(file[_RECORD]["exposure"]["simulated"][()]),
        counted=frozenset(one.name for one in mode.detectors if _is_counted(mode, one, counts[one.name])),
    )


def _centre_nm(command: AcquireFrame, state: MicroscopeState) -> tuple[float, float]:
    """Where the middle lay: as read back, as commanded where that is not known."""
    places = {**dict(command.stage), "beam_shift_x_nm": command.scan.beam_shift_x_nm}
    places["beam_shift_y_nm"] = command.scan.beam_shift_y_nm
    places |= {name: value for name in places if isinstance(value := state.axis_value(name), float)}
    return places["x_nm"] + places["beam_shift_x_nm"], places["y_nm"] + places["beam_shift_y_nm"]


def _is_counted(mode: Mode, detector: Detector, counts: np.ndarray) -> bool:
    """Whether a count is a quantum: X-rays are, electrons where the gain is known to be 1 and nothing was added."""
    is_plain = detector.gain_counts_per_electron == 1.0 or mode.kind == "eds"
    return detector.raw_counts and is_plain and detector.offset_counts == 0 and counts.dtype.kind in "ui"


def _total(file: h5py.File, detector: str) -> np.ndarray:
    image = file[f"{_EVENT}/image_{detector}"]
    stack: np.ndarray = image[_PATTERNS if _PATTERNS in image else _STACK]["real"][()]
    return stack.sum(axis=0, dtype=np.int64 if stack.dtype.kind in "ui" else np.float64)


def _energies_ev(file: h5py.File) -> tuple[float, float] | None:
    """What the instrument said of its channels; None where they have no energies."""
    said = json.loads(_text(file, "documents/instrument_context")).get("energies_ev")
    return None if said is None else (float(said["first"]), float(said["step"]))


def _text(file: h5py.File, place: str) -> str:
    found: Any = file[_RECORD][place]
    return found.asstr()[()]
