"""How sharp a frame is: the variance its structure adds to Poisson noise, ring by ring of spatial frequency.

Needs no lattice, no model of the specimen. Neighbour: `objectives.focus`, which compares the frames of a series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instruments.frames import Frame
from instruments.units import wavelength_nm
from orchestrator.features.detectors import dark_field, ring_counts
from orchestrator.features.errors import FeatureError
from orchestrator.features.feature_set import Feature, FeatureSet

NAME = "sharpness"
RING_COUNT = 24
_LOWEST_FRACTION = 0.1  # of the probe's limit: slower changes are contamination and edges, not focus
_LEAST_SIDE_PX = 16


@dataclass(frozen=True, slots=True)
class RingPower:
    """Excess normalised variance in rings of spatial frequency; the sum over rings is that of the band.

    `power` (rings,) is free of Poisson noise on average (it may be negative), `noise_variance` (rings,) its variance in
    a frame of the same mean without any structure, `sample_variance` what structure adds to that.
    """

    frequency_per_nm: np.ndarray
    power: np.ndarray
    noise_variance: np.ndarray
    sample_variance: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """(rings,) variance of `power`."""
        return self.noise_variance + self.sample_variance


def ring_power(counts: np.ndarray, pixel_size_nm: float, limit_per_nm: float) -> RingPower:
    """Excess power of raw counts (rows, columns) in `RING_COUNT` equal rings up to the probe's limit.

    Windowed (Hann), so that what lies across the border does not leak into the band. A frequency holds |F|^2, of which
    Poisson noise is the windowed sum of the counts, exactly; it is subtracted. Normalised by the squared mean: the
    variance that structure adds, as a fraction of the squared mean. Variances of |F|^2: N^2 + 2 N S (noise power N,
    structure S), neighbouring frequencies correlated by the window.
    """
    image = np.asarray(counts, dtype=np.float64)
    mean = float(image.mean())
    window = np.outer(np.hanning(image.shape[0] + 2)[1:-1], np.hanning(image.shape[1] + 2)[1:-1])
    w2, w4 = float((window**2).sum()), float((window**4).sum())
    noise = float((window**2 * image).sum())
    power = np.abs(np.fft.fft2(window * (image - mean))) ** 2 - noise
    frequency = np.hypot(
        np.fft.fftfreq(image.shape[0], pixel_size_nm)[:, None], np.fft.fftfreq(image.shape[1], pixel_size_nm)[None, :]
    )
    edges = np.linspace(_LOWEST_FRACTION * limit_per_nm, min(limit_per_nm, 0.5 / pixel_size_nm), RING_COUNT + 1)
    ring = np.digitize(frequency.ravel(), edges) - 1
    inside = (ring >= 0) & (ring < RING_COUNT)
    summed = np.bincount(ring[inside], power.ravel()[inside], RING_COUNT)
    number = np.bincount(ring[inside], minlength=RING_COUNT)
    scale = 1.0 / (image.size * mean**2 * w2)
    correlated = image.size * w4 / w2**2  # frequencies that share one independent draw
    pairs = 2.0  # F(-k) is the conjugate of F(k)
    return RingPower(
        frequency_per_nm=(edges[1:] + edges[:-1]) / 2,
        power=summed * scale,
        noise_variance=pairs * correlated * number * noise**2 * scale**2,
        sample_variance=2 * pairs * correlated * np.maximum(summed, 0.0) * noise * scale**2,
    )


class Sharpness:
    """Extractor `sharpness`: excess normalised variance over Poisson of the dark-field detector, with its error."""

    def extract(self, frame: Frame) -> FeatureSet:
        """Value `sharpness`; arrays ring_frequency_per_nm, ring_power, ring_noise_variance, ring_variance (rings,).

        Raises FeatureError without a dark-field detector, without counts or with too few pixels; NormalisedCounts where
        counts are not raw.
        """
        rings = ring_counts(frame)
        optics = frame.state.optics
        number = dark_field(rings, optics.semi_convergence_angle_mrad)
        if number is None:
            raise FeatureError(
                f"frame {frame.action_id}: focusing needs a detector whose inner angle is at least the convergence "
                f"angle {optics.semi_convergence_angle_mrad:g} mrad; choose a mode with one"
            )
        counts = rings[number].counts.sum(axis=0, dtype=np.float64)
        if min(counts.shape) < _LEAST_SIDE_PX or counts.sum() < counts.size * 1e-3:
            raise FeatureError(
                f"frame {frame.action_id}: {counts.shape[0]} x {counts.shape[1]} px with {counts.sum():.0f} counts in "
                f"{rings[number].name!r} tell no sharpness; at least {_LEAST_SIDE_PX} px a side and a longer dwell"
            )
        limit_per_nm = 2e-3 * optics.semi_convergence_angle_mrad / wavelength_nm(optics.beam_energy_ev)
        found = ring_power(counts, frame.pixel_size_nm, limit_per_nm)
        return FeatureSet(
            extractor=NAME,
            action_id=frame.action_id,
            values={
                "sharpness": Feature(value=float(found.power.sum()), std=float(np.sqrt(found.variance.sum()))),
                "counts_per_px": Feature(value=float(counts.mean())),
                "commanded_defocus_nm": Feature(value=frame.requested.optics.defocus_nm),
            },
            arrays={
                "ring_frequency_per_nm": found.frequency_per_nm,
                "ring_power": found.power,
                "ring_noise_variance": found.noise_variance,
                "ring_variance": found.variance,
            },
        )
