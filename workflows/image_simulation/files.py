"""Simulated images as files: an NXem file with the complete context, and a picture with a scale bar beside it.

Raw counts, where electrons were asked for, stand where those of a measured frame do; the images in fractions of the
beam, without noise, stand beside them. Both files appear whole or not at all.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from instruments import AcquireFrame, Frame, MicroscopeState, ScanPattern, StagePosition
from instruments.capabilities import Detector, Mode
from orchestrator.catalogue.folder import RESERVE_BYTES, check_room, free_bytes
from orchestrator.catalogue.frame_files import put_in_place, write_beside
from orchestrator.catalogue.identifiers import new_id
from orchestrator.catalogue.nexus import EVENT, FrameRecord, encode
from orchestrator.catalogue.nexus_tree import group, write_axis, write_counts, write_text
from orchestrator.errors import DataFolderNotWritable, DiskFull, SpecError, StorageError
from orchestrator.plain_json import plain
from simulation import pictures
from simulation.images import Image
from workflows.image_simulation.imaging import Simulated
from workflows.image_simulation.structures import Built

NEXUS_ENDINGS: Final = (".nxs", ".h5", ".hdf5")
PICTURE_ENDING: Final = ".png"
_INSTRUMENT: Final = "stempilot simulate"
_DPI: Final = 120
_PANELS_ACROSS: Final = 3
_AS_JSON: Final = ("optics", "coherence", "error_estimate_optics", "phonon_sigmas_nm", "clipped_outer_mrad")


@dataclass(frozen=True, slots=True)
class Written:
    """The files that were written; no NXem file where only a picture was asked for."""

    nexus: Path | None
    picture: Path
    sha256: str | None


def targets(out: Path, *, overwrite: bool) -> tuple[Path | None, Path]:
    """Where the NXem file and the picture go. Raises SpecError and StorageError before anything is computed."""
    ending = out.suffix.lower()
    if ending not in (*NEXUS_ENDINGS, PICTURE_ENDING):
        raise SpecError(
            f"--out {out}: end it in {', '.join(NEXUS_ENDINGS)} (a file with everything, and a picture beside it)"
            f" or in {PICTURE_ENDING} (the picture alone)"
        )
    nexus, picture = (None, out) if ending == PICTURE_ENDING else (out, out.with_suffix(PICTURE_ENDING))
    if not out.parent.is_dir():
        raise SpecError(f"--out {out}: there is no folder {out.parent}; make it first")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise DataFolderNotWritable(f"--out {out}: {out.parent} cannot be written; change its rights, or name another")
    for path in (nexus, picture):
        if path is not None and path.is_dir():
            raise SpecError(f"--out {out}: {path} is a folder; name a file")
        if path is not None and path.exists() and not overwrite:
            raise SpecError(f"{path} exists; choose another name, or replace it with --overwrite")
    with _said_of(out):
        check_room(out.parent, 0)
    return nexus, picture


def write(
    places: tuple[Path | None, Path], built: Built, made: Simulated, begun: datetime, asked: dict[str, Any]
) -> Written:
    """Write what `targets` named; `asked` is kept in the file. Raises StorageError, and leaves no part of a file."""
    nexus, picture = places
    data = None if nexus is None else nexus_bytes(built, made, begun, asked)
    drawn, pending = picture_bytes(made), list[tuple[Path, Path]]()
    try:
        with _said_of(nexus or picture):
            if nexus is not None and data is not None:
                pending.append((write_beside(nexus, data), nexus))
            pending.append((write_beside(picture, drawn), picture))
            for temporary, path in pending:
                put_in_place(temporary, path)
    finally:
        for temporary, _ in pending:
            temporary.unlink(missing_ok=True)
    return Written(nexus, picture, None if data is None else sha256(data).hexdigest())


@contextmanager
def _said_of(out: Path) -> Iterator[None]:
    """Errors of storage name the option and its cure; those of a data folder would name a catalogue's."""
    folder = out.parent.resolve()
    try:
        yield
    except DiskFull as error:
        raise DiskFull(
            f"--out {out}: the disk of {folder} is full, {free_bytes(folder)} bytes are free and {RESERVE_BYTES} beside"
            " the files are needed; make room, or name a file on another disk"
        ) from error
    except StorageError as error:
        system = error.__cause__
        why = system.strerror if isinstance(system, OSError) and system.strerror else str(error)
        raise type(error)(f"--out {out}: {folder} cannot be written ({why}); name a file in another folder") from error


def nexus_bytes(built: Built, made: Simulated, begun: datetime, asked: dict[str, Any]) -> bytes:
    """The NXem file: marked as simulated, with the structure, all parameters and the versions that made it."""
    attributes = {key: json.loads(value) if key in _AS_JSON else value for key, value in made.images.attrs.items()}
    material = built.unit.get_chemical_formula()
    context = {
        "experiment": f"simulated images of {material}",
        "specimen": {
            "material": material,
            "atom_types": sorted(set(built.unit.get_chemical_symbols())),
            "thickness_nm": built.cell_nm[2] - 2 * built.vacuum_nm,
        },
        "structure": {
            "source": built.source,
            "unit_cell_extxyz": _as_text(built.unit),
            "repeat": list(built.repeat),
            "vacuum_nm": built.vacuum_nm,
            "cell_nm": list(built.cell_nm),
            "atom_count": len(built.atoms),
            "notes": list(built.notes),
        },
        "simulation": attributes,
        "asked": asked,
        "electrons_e_per_px": made.electrons_e_per_px,
        "assumed": list(made.assumed),
    }
    record = FrameRecord(
        frame_id=new_id(), experiment_id="simulation", decision_id="simulation", suggestion_id="simulation", ordinal=1,
        intended_at=begun, acquired_at=datetime.now(UTC), context=plain(context),
    )  # fmt: skip
    return _with_fractions(encode(_frame(made), record), made)


def _frame(made: Simulated) -> Frame:
    """As an instrument would deliver it: raw counts, none where no electrons were asked for."""
    rows, columns = made.scan.shape_px
    x_nm, y_nm = made.centre_nm
    stage = StagePosition(x_nm=x_nm, y_nm=y_nm)
    scan = ScanPattern(
        field_of_view_nm=made.scan.width_nm, shape_px=(rows, columns), dwell_time_us=made.dwell_time_us
    )  # fmt: skip
    duration_s = scan.duration_s()
    names = [str(name) for name in made.images.data_vars]
    detectors = tuple(
        Detector(
            name=name,
            inner_mrad=float(made.images[name].attrs["inner_mrad"]),
            outer_mrad=float(made.images[name].attrs["outer_mrad"]),
            gain_counts_per_electron=1.0,
        )
        for name in names
    )
    per_px = made.electrons_e_per_px
    return Frame(
        action_id="simulation",
        requested=AcquireFrame(
            action_id="simulation", deadline_s=max(duration_s, 1.0), stage=stage, optics=made.optics, scan=scan,
            mode="stem", purpose="simulation",
        ),
        state=MicroscopeState(time_s=duration_s, stage=stage, optics=made.optics, coherence=made.coherence),
        mode=Mode(name="stem", detectors=detectors),
        counts={name: values[None] for name, values in made.counts.items()},
        pixel_size_nm=made.pixel_nm,
        dose_e_per_a2=per_px / (made.pixel_nm**2 * 100),
        electrons=per_px * rows * columns,
        started_s=0.0,
        ended_s=duration_s,
        instrument=_INSTRUMENT,
        simulated=True,
        context={"instrument": {"name": _INSTRUMENT, "vendor": "stempilot", "model": made.images.attrs["method"]}},
    )  # fmt: skip


def _with_fractions(data: bytes, made: Simulated) -> bytes:
    """The file with an image in fractions of the beam for every detector."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+", libver=("v110", "v110")) as file:
        event = file[EVENT]
        assert isinstance(event, h5py.Group)
        for name in map(str, made.images.data_vars):
            image = group(event, f"image_{name}_fraction", "NXimage", default="image_2d")
            shown = group(image, "image_2d", "NXdata", signal="real", axes=["axis_j", "axis_i"])
            write_text(shown, "title", f"{made.images[name].attrs['long_name']}: fraction of the incident beam")
            values = np.asarray(made.images[name])
            write_counts(shown, "real", values, long_name=f"{name} (fraction of the incident beam)")
            for index, (axis, count) in enumerate(zip(("j", "i"), values.shape, strict=True)):
                positions_nm = (np.arange(count) - (count - 1) / 2) * made.pixel_nm
                long_name = f"{'yx'[index]} from the centre (nm)"
                write_axis(shown, f"axis_{axis}", positions_nm, "nm", long_name, index)
        if "default" not in event.attrs:
            event.attrs["default"] = f"image_{next(iter(made.images.data_vars))}_fraction"
    return buffer.getvalue()


def picture_bytes(made: Simulated) -> bytes:
    """A PNG of all detectors: counts where there are any, else fractions of the beam."""
    from matplotlib.figure import Figure

    images = [_shown(made, str(name)) for name in made.images.data_vars]
    across = min(len(images), _PANELS_ACROSS)
    down = ceil(len(images) / across)
    figure = Figure(figsize=(5.2 * across, 4.6 * down), dpi=_DPI, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, image in zip(panels, images, strict=False):
        pictures.draw(image, axes)
    for axes in panels[len(images) :]:
        axes.set_axis_off()
    packed = io.BytesIO()
    figure.savefig(packed, format="png")
    return packed.getvalue()


def _shown(made: Simulated, name: str) -> Image:
    image = made.images[name]
    if name not in made.counts:
        return image
    unit = f"counts, {made.electrons_e_per_px:.4g} electrons on a pixel"
    return Image(image.copy(data=made.counts[name]).assign_attrs(units=unit))


def _as_text(atoms: Any) -> str:
    import ase.io

    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz", write_info=False)
    return text.getvalue()
