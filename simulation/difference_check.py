"""How far an image made by local differences is from multislice.

The waves left out are judged for every probe of every image, by leaving out more. Against what that cannot show
(potentials, symmetries, rounding) the probes where the changed sites show most are compared with multislice, once for
each source: errors are largest there, so that their rms stands for more than the image's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from instruments.optics import Optics
from simulation.detectors import Detector
from simulation.local_difference import LocalDifferenceSource

COMPARED_POINT_COUNT = 3
_DOUBT_MARGIN = 2.0

Signals = Mapping[str, NDArray[np.float64]]


def doubt_ratio(
    source: LocalDifferenceSource,
    optics: Optics,
    points: NDArray[np.float64],
    detectors: Mapping[str, Detector],
    spreads: Mapping[str, float],
) -> float:
    """Rms change of the image when twice as much is left out, over its spread, worst detector; with a margin."""
    doubts = source.doubts(optics, points, detectors)
    return _DOUBT_MARGIN * max(float(np.sqrt(np.mean(doubts[name] ** 2))) / spreads[name] for name in detectors)


def compared_ratio(
    source: LocalDifferenceSource,
    optics: Optics,
    points: NDArray[np.float64],
    detectors: Mapping[str, Detector],
    spreads: Mapping[str, float],
    reference: Callable[[NDArray[np.float64]], Signals],
) -> float:
    """Rms difference from `reference` where changed sites show most, over the image's spread; worst detector."""
    made = source.differences(optics, points, detectors)
    shown = np.max([np.abs(made[name]).max(axis=1) / spreads[name] for name in detectors], axis=0)
    chosen = points[np.argsort(shown, kind="stable")[-COMPARED_POINT_COUNT:]]
    own, exact = source.signals(optics, chosen, detectors), reference(chosen)
    return max(float(np.sqrt(np.mean((own[name] - exact[name]) ** 2))) / spreads[name] for name in detectors)
