"""Recorded rasters with what their file says of them, from microscope makers' files and from data folders of ours.

Neighbours: `digital_micrograph`, `hdf5_images` and `frame_files` read one kind of file each; `adapters.replay_images`
makes an instrument of what they return.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from instruments.errors import ConfigurationError

_NM: Final[dict[str, float]] = {
    "m": 1e9, "mm": 1e6, "um": 1e3, "µm": 1e3, "μm": 1e3, "nm": 1.0, "å": 0.1, "angstrom": 0.1, "a": 0.1, "pm": 1e-3,
}  # fmt: skip
SUFFIXES: Final = (".dm3", ".dm4", ".emd", ".hspy")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedImage:
    """Detectors read together over one raster, (rows, columns) each, row 0 the lowest y; None: the file does not say.

    Spectra are (rows, columns, 1, channels); channel n has the energy first + n x step of `energies_ev`.

    The middle of the raster lay at `centre_nm` of the specimen. `dwell_time_us` is the exposure of a pixel in all
    passes together. Values of the detectors in `counted` are numbers of quanta (electrons, X-rays); what others mean
    nobody knows.
    """

    name: str
    detectors: Mapping[str, np.ndarray]
    mode: str = "recorded"
    kind: str = "stem"
    centre_nm: tuple[float, float] = (0.0, 0.0)
    pixel_size_nm: float | None = None
    dwell_time_us: float | None = None
    current_pa: float | None = None
    beam_energy_ev: float | None = None
    rotation_deg: float = 0.0
    defocus_nm: float = 0.0
    tilt_deg: tuple[float, float] = (0.0, 0.0)
    counted: frozenset[str] = frozenset()
    simulated: bool = False
    energies_ev: tuple[float, float] | None = None
    hint: str = ""  # what the file says besides that may help with what it does not say

    @property
    def shape_px(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = next(iter(self.detectors.values())).shape[:2]
        return rows, columns

    @property
    def has_spectra(self) -> bool:
        """Whether each point has a spectrum."""
        return any(values.ndim > 2 for values in self.detectors.values())


def nm_per(unit: str) -> float | None:
    """How many nm one of this unit is; None for what is no length.

    >>> nm_per("pm"), nm_per("1/nm"), nm_per("")
    (0.001, None, None)
    """
    return _NM.get(unit.strip().lower())


def square_pixel_nm(name: str, sides: tuple[tuple[float, str], tuple[float, str]]) -> float | None:
    """Pixel size from (length, unit) down and along the rows; None where it is not given. Raises ConfigurationError."""
    lengths = [abs(length) * factor for length, unit in sides if (factor := nm_per(unit)) is not None and length]
    if len(lengths) < 2:
        return None
    if abs(lengths[0] - lengths[1]) > 1e-3 * max(lengths):
        raise ConfigurationError(
            f"{name}: pixels of {lengths[1]:g} nm x {lengths[0]:g} nm; only square ones can be replayed"
        )
    return lengths[1]


def read_images(path: Path) -> tuple[RecordedImage, ...]:
    """Every image, spectrum and spectrum image of a .dm3, .dm4, .emd or .hspy file. Raises ConfigurationError."""
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}; give the recorded image as `file`")
    match path.suffix.lower():
        case ".dm3" | ".dm4":
            from instruments.readers.digital_micrograph import read_digital_micrograph

            images = read_digital_micrograph(path)
        case ".emd" | ".hspy":
            from instruments.readers.hdf5_images import read_hdf5_images

            images = read_hdf5_images(path)
        case other:
            raise ConfigurationError(f"{path.name}: {other or 'no suffix'} is not one of {', '.join(SUFFIXES)}, .npz")
    if not images:
        raise ConfigurationError(
            f"{path.name} holds neither image nor spectrum that can be replayed: no stacks, diffraction patterns "
            "or streams of X-ray events; save what it shows as an image or a spectrum image in .hspy or .dm4"
        )
    return images
