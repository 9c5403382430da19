"""Maps of one measured spectrum image from an .npz file: a survey image and counts of X-ray lines, point by point.

The file holds `survey` (rows, columns), `pixel_size_nm` and one `counts_<line>` (rows, columns) for each line, whole
numbers all but the pixel size, and maybe `survey_dwell_time_us`; other arrays are left alone. `adapters.replay` makes
an instrument of it.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from instruments.errors import ConfigurationError

_PREFIX = "counts_"
_SURVEY_DWELL = "survey_dwell_time_us"
_MAX_ARRAY_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumMaps:
    """Row 0 is the lowest y. `survey`: unsigned integers in the file's own unit; `counts`: X-rays per point, int64.

    `survey_dwell_time_us` is the survey's exposure of a point; None: the file does not say.
    """

    survey: np.ndarray
    counts: dict[str, np.ndarray]
    pixel_size_nm: float
    file_name: str
    sha256: str
    survey_dwell_time_us: float | None = None

    @property
    def shape_px(self) -> tuple[int, int]:
        """(rows, columns) of recorded points."""
        rows, columns = self.survey.shape
        return rows, columns

    def binned(self, bin_px: int) -> SpectrumMaps:
        """Sums over blocks of `bin_px` x `bin_px` points. Raises ConfigurationError if it does not divide."""
        if bin_px == 1:
            return self
        if any(side % bin_px for side in self.shape_px):
            rows, columns = self.shape_px
            raise ConfigurationError(
                f"bin_px {bin_px} px does not divide the {rows} x {columns} points of {self.file_name}; "
                f"choose a common divisor of {rows} and {columns}"
            )
        return SpectrumMaps(
            survey=block_sum(self.survey, bin_px).astype(np.uint32),
            counts={line: block_sum(counts, bin_px) for line, counts in self.counts.items()},
            pixel_size_nm=self.pixel_size_nm * bin_px,
            file_name=self.file_name,
            sha256=self.sha256,
            survey_dwell_time_us=None if self.survey_dwell_time_us is None else self.survey_dwell_time_us * bin_px**2,
        )


def block_sum(values: np.ndarray, bin_px: int) -> np.ndarray:
    """Sums over blocks of `bin_px` x `bin_px`, (rows/bin, columns/bin), int64; both sides must divide."""
    rows, columns = values.shape
    blocks = values.reshape(rows // bin_px, bin_px, columns // bin_px, bin_px)
    return blocks.sum(axis=(1, 3), dtype=np.int64)


def read_spectrum_maps(path: Path | str, lines: Sequence[str] = ()) -> SpectrumMaps:
    """The survey and the counts of `lines` (all lines of the file if empty).

    Raises ConfigurationError naming the file and what is wrong with it: missing, not an .npz, an array missing, of
    another shape, negative, not finite or not whole.
    """
    path = Path(path)
    arrays, digest = _load(path)
    if "survey" not in arrays or "pixel_size_nm" not in arrays:
        missing = [name for name in ("survey", "pixel_size_nm") if name not in arrays]
        raise ConfigurationError(f"{path.name} holds no {' and no '.join(missing)}; it holds {_listed(arrays)}")
    available = sorted(name.removeprefix(_PREFIX) for name in arrays if name.startswith(_PREFIX))
    if not available:
        raise ConfigurationError(f"{path.name} holds no counts_<line> array; it holds {_listed(arrays)}")
    for line in lines:
        if line not in available:
            raise ConfigurationError(f"{path.name} has no line {line!r}; available: {', '.join(available)}")
    survey = _whole_numbers(path.name, "survey", arrays["survey"])
    counts = {line: _whole_numbers(path.name, _PREFIX + line, arrays[_PREFIX + line]) for line in lines or available}
    for line, values in counts.items():
        if values.shape != survey.shape:
            raise ConfigurationError(
                f"{path.name}: counts_{line} has shape {values.shape}, survey {survey.shape}; they must be equal"
            )
    dwell = arrays.get(_SURVEY_DWELL)
    return SpectrumMaps(
        survey=survey.astype(np.min_scalar_type(int(survey.max()))),
        counts=counts,
        pixel_size_nm=_one_number(path.name, "pixel_size_nm", arrays["pixel_size_nm"], "nm"),
        file_name=path.name,
        sha256=digest,
        survey_dwell_time_us=None if dwell is None else _one_number(path.name, _SURVEY_DWELL, dwell, "us"),
    )


def _load(path: Path) -> tuple[dict[str, np.ndarray], str]:
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}; give the spectrum image's .npz as `file`")
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            largest = max((entry.file_size for entry in archive.infolist()), default=0)
        if largest > _MAX_ARRAY_BYTES:
            raise ConfigurationError(
                f"{path.name} holds an array of {largest} bytes; the limit is {_MAX_ARRAY_BYTES} bytes, bin it first"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(
            f"{path.name} is not a readable .npz file ({error}); save it with numpy.savez"
        ) from error
    return arrays, sha256(content).hexdigest()


def _listed(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _whole_numbers(file_name: str, name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or values.size == 0:
        raise ConfigurationError(f"{file_name}: {name} has shape {values.shape}; it must be (rows, columns)")
    if values.dtype.kind not in "uif":
        raise ConfigurationError(f"{file_name}: {name} holds {values.dtype} values; it must hold numbers")
    wrong = ~np.isfinite(values) | (values < 0) | (values > 2**32 - 1) | (values != np.rint(values))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ConfigurationError(
            f"{file_name}: {name} is {values[row, column]} at row {row}, column {column} (one of {int(wrong.sum())});"
            f" it must be whole, finite, 0 to {2**32 - 1}"
        )
    return values.astype(np.int64)


def _one_number(file_name: str, name: str, value: np.ndarray, unit: str) -> float:
    if value.size != 1 or value.dtype.kind not in "uif" or not np.isfinite(value).all() or value.item() <= 0:
        raise ConfigurationError(f"{file_name}: {name} is {value}; it must be one number above 0 {unit}")
    return float(value.item())
