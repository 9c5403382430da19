"""What can honestly be said of an image that is no longer counts: the lattice, and how bright its columns are.

The same lattice and the same forward model as `sites`, but no Poisson statistics: no likelihood ratio of any species.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instruments.optics import Coherence, Optics
from orchestrator.features.bending import Bending
from orchestrator.features.cell_fit import rotation_deg
from orchestrator.features.columns import fit_columns
from orchestrator.features.detectors import RingCounts
from orchestrator.features.errors import FeatureError
from orchestrator.features.evidence import Exposure
from orchestrator.features.feature_set import Feature, FeatureSet
from orchestrator.features.forward import Forward
from orchestrator.features.lattice import Picture
from orchestrator.features.lattice_model import FourierTerms
from orchestrator.features.laying import FrameView, Laying, predicted_sites

NAME = "lattice_description"
_START_SIGMA_NM = 0.06
_BINS = 48
_SCALE_RANGE_FRACTION = 0.15  # files of unknown origin are often badly calibrated


def describe(
    forward: Forward,
    near_rotation_deg: float,
    image: np.ndarray,
    pixel_size_nm: float,
    ring_mrad: tuple[float, float],
    optics: Optics,
    coherence: Coherence,
) -> FeatureSet:
    """Lattice and column intensities of an image (rows, columns) in any unit.

    Arrays: site_x_nm, site_y_nm (n,) fitted places about the image's centre; site_column (n,); intensity and
    intensity_std (n,) of each column in units of its kind's median; intensity_edges (bins + 1,) and
    intensity_histogram (columns, bins); lattice_origin_nm, lattice_basis_nm. Raises FeatureError without a lattice.
    """
    image = np.asarray(image, dtype=float)
    if image.ndim != 2 or not np.isfinite(image).all():
        raise FeatureError(
            f"an image of shape {image.shape} cannot be described; give one finite (rows, columns) array"
        )
    pixel_std = _noise_std(image)
    # In units in which the noise has the variance of counts, so the significance of the lattice means the same.
    level = max(float(image.mean() - image.min()), 1e-12)
    scaled = ((image - image.min()) * (level / pixel_std**2)).astype(np.float32)
    rings = [RingCounts("image", *ring_mrad, scaled[None])]
    terms = forward.terms(rings, optics, coherence)
    view = FrameView(rings, [Picture(scaled, pixel_size_nm)], optics, coherence, terms, None, 0.0)
    laying = Laying(forward, near_rotation_deg, _SCALE_RANGE_FRACTION)
    period = laying.periodicity(view, None)
    if not period.is_significant:
        raise FeatureError(
            f"no lattice of this model in the image: its peaks are {period.power:.1f} times the noise, 12 are needed; "
            "check pixel_size_nm (15 % is tolerated) and the structure"
        )
    g_per_nm = _shortest(terms) @ np.linalg.inv(period.matrix)
    bending = Bending.of(image, pixel_size_nm, g_per_nm)
    straight = bending.straightened(scaled, pixel_size_nm)
    view = replace(
        view, rings=[RingCounts("image", *ring_mrad, straight[None])], pictures=[Picture(straight, pixel_size_nm)]
    )
    period = laying.periodicity(view, None)
    fit = laying.fit(view, period.matrix, [Exposure(straight[None], 1.0, np.zeros(2))], None)
    margin_nm = 3 * _START_SIGMA_NM + 2 * pixel_size_nm
    flat_nm, number = predicted_sites(forward.cell, fit, view.half_nm)
    xy_nm = bending.bent(flat_nm)
    inside = (np.abs(xy_nm) < view.half_nm - margin_nm).all(axis=1)
    flat_nm, xy_nm, kind = flat_nm[inside], xy_nm[inside], forward.cell.site_columns[number[inside]]
    centre = (np.array(image.shape[::-1]) - 1) / 2
    x_px, y_px = (xy_nm / pixel_size_nm + centre).T
    columns = fit_columns(image, x_px, y_px, _START_SIGMA_NM / pixel_size_nm, pixel_std=pixel_std)
    intensity, intensity_std = columns.amplitude.copy(), columns.std[:, 0].copy()
    for column in np.unique(kind):
        median = float(np.median(columns.amplitude[kind == column]))
        intensity[kind == column] /= median
        intensity_std[kind == column] /= abs(median)
    edges = np.linspace(0.0, 2.0, _BINS + 1)
    histogram = [np.histogram(intensity[kind == column], edges)[0] for column in range(len(forward.cell.column_names))]
    fitted_nm = (np.stack([columns.x_px, columns.y_px], axis=1) - centre) * pixel_size_nm
    stray_nm = fitted_nm - xy_nm
    values = {
        "lattice_power_ratio": Feature(value=period.power),
        "lattice_rms_nm": Feature(value=float(np.sqrt((np.median(np.abs(stray_nm), axis=0) ** 2).sum()) * 1.4826)),
        "bending_max_nm": Feature(
            value=float(np.linalg.norm(xy_nm - flat_nm, axis=1).max()), reason="distortion of the scan, cubic in place"
        ),
        "rotation_deg": Feature(value=rotation_deg(fit.basis_nm, forward.cell)),
        "scale_ratio": Feature(value=float(np.sqrt(abs(np.linalg.det(fit.basis_nm)) / forward.cell.area_nm2))),
        "orientation_log_likelihood_margin": Feature(value=fit.log_likelihood_margin),
        "pixel_std": Feature(value=pixel_std, reason="from the highest spatial frequencies; smoothing hides noise"),
        "poisson_statistics": Feature(value=0.0, reason="not raw counts: no probabilities are given"),
    }
    arrays = {
        "site_x_nm": fitted_nm[:, 0],
        "site_y_nm": fitted_nm[:, 1],
        "site_column": kind.astype(np.int8),
        "intensity": intensity.astype(np.float32),
        "intensity_std": intensity_std.astype(np.float32),
        "intensity_edges": edges,
        "intensity_histogram": np.array(histogram),
        "lattice_origin_nm": fit.origin_nm,
        "lattice_basis_nm": fit.basis_nm,
    }
    return FeatureSet(extractor=NAME, action_id="", values=values, arrays=arrays)


def _shortest(terms: FourierTerms) -> np.ndarray:
    """The shortest reciprocal vectors (k, 2) of the undistorted crystal: the fringes that any image shows best."""
    length = np.linalg.norm(terms.q_per_nm, axis=1)
    return terms.q_per_nm[(length > 0) & (length < 1.2 * np.min(length[1:]))]


def _noise_std(image: np.ndarray) -> float:
    """Standard deviation of white noise, from the spectrum beyond 80 % of Nyquist in either direction."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2 / image.size
    row, column = (np.abs(np.fft.fftfreq(length)) > 0.4 for length in image.shape)
    return float(max(np.sqrt(np.median(power[np.ix_(row, column)]) / np.log(2)), 1e-9 * np.abs(image).max()))
