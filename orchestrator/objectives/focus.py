"""Where this microscope has its best contrast on this specimen now: the objective of a defocus series.

Best contrast is what is asked for, not Gaussian focus: with spherical aberration and astigmatism left over, the image
is sharpest beside it. Neighbours: `focus_fit` has the statistics, `features.sharpness` what a frame tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from orchestrator.features.feature_set import FeatureSet
from orchestrator.features.sharpness import NAME as SHARPNESS
from orchestrator.objectives.focus_fit import FocusFit, fit_focus
from orchestrator.objectives.objective import FrameFacts, Score

LEAST_FRAMES = 3
_SKEW_FRACTION = 0.02  # of the curve's width: it is not quite a Gaussian (aberrations left over)
_CURVE_POINTS = 161


class FocusSearch:
    """Objective `focus`: the defocus of best contrast with its standard error, from all frames of a series together.

    `width_nm` is the standard deviation of the sharpness curve to expect of the optics (`focus_fit.expected_width_nm`),
    `step_nm` that of the lens. The standard error is that of the focus as it will be set: it holds counting noise, what
    rounding to that step leaves, and 2 % of the curve's width.
    """

    def __init__(self, width_nm: float, step_nm: float = 0.0) -> None:
        self.width_nm = width_nm
        self.step_nm = step_nm
        self.action_ids: list[str] = []
        self.electrons = 0.0
        self._defocus_nm: list[float] = []
        self._power: list[np.ndarray] = []
        self._variance: list[np.ndarray] = []
        self._dose_e_per_a2: list[float] = []
        self._exposed_at_s: list[float] = []
        self._fit: FocusFit | None = None

    def update(self, point: Mapping[str, Any], facts: FrameFacts, features: FeatureSet) -> Score:
        """Take in one frame; the score is the precision of the focus (one over its standard error), 0 without one."""
        del point
        self.electrons += facts.electrons
        if features.extractor != SHARPNESS:
            reason = next((feature.reason for feature in features.values.values() if feature.reason), None)
            return Score(value=0.0, std=0.0, statement=f"no sharpness: {reason or features.extractor}")
        self.action_ids.append(facts.action_id)
        self._defocus_nm.append(features.values["commanded_defocus_nm"].value)
        self._power.append(features.arrays["ring_power"])
        self._variance.append(features.arrays["ring_variance"])
        self._dose_e_per_a2.append(facts.dose_e_per_a2)
        self._exposed_at_s.append(facts.exposed_at_s)
        self._fit = self._fitted()
        sharp = features.values["sharpness"]
        outcomes = {"sharpness": (sharp.value, sharp.std or 0.0)}
        if (fit := self.significant) is None:
            return Score(value=0.0, std=0.0, statement="no peak yet", outcomes=outcomes)
        std_nm = self.std_nm(fit)
        outcomes |= {"best_defocus_nm": (fit.defocus_nm, std_nm), "focus_width_nm": (fit.width_nm, 0.0)}
        return Score(
            value=1.0 / std_nm,
            std=0.0,
            statement=f"best contrast at {fit.defocus_nm:+.2f} nm of defocus, standard error {std_nm:.2f} nm",
            outcomes=outcomes,
        )

    def _fitted(self) -> FocusFit | None:
        if len(set(self._defocus_nm)) < LEAST_FRAMES:
            return None
        return fit_focus(
            np.array(self._defocus_nm), np.array(self._power), np.array(self._variance), width_nm=self.width_nm
        )

    def std_nm(self, fit: FocusFit) -> float:
        """The standard error of a fit, with what the fit does not know."""
        return sqrt(fit.std_nm**2 + self.step_nm**2 / 12 + (_SKEW_FRACTION * fit.width_nm) ** 2)

    @property
    def significant(self) -> FocusFit | None:
        """The fit, where its peak is more than noise."""
        return self._fit if self._fit is not None and self._fit.is_significant else None

    @property
    def found_nm(self) -> float | None:
        """The defocus of best contrast; None while there is no peak inside the range tried."""
        fit = self.significant
        if fit is None or not min(self._defocus_nm) <= fit.defocus_nm <= max(self._defocus_nm):
            return None
        return fit.defocus_nm

    def outcome(self) -> str:
        """`found`, `outside` (the best is beyond the range tried) or `nothing` (no peak above noise)."""
        if self.significant is None:
            return "nothing"
        return "outside" if self.found_nm is None else "found"

    def stop_reason(self) -> str | None:
        """The policy of a series ends it."""
        return None

    def summary(self) -> dict[str, Any]:
        """The answer under `focus`: outcome, defocus_nm with std_nm, and what it took."""
        fit = self.significant
        values = self._defocus_nm
        return {
            "focus": {
                "outcome": self.outcome(),
                "defocus_nm": self.found_nm,
                "std_nm": self.std_nm(fit) if fit is not None else None,
                "width_nm": fit.width_nm if fit is not None else None,
                "chi2_ratio": fit.chi2_ratio if fit is not None else None,
                "frames": len(values),
                "tried_low_nm": min(values, default=None),
                "tried_high_nm": max(values, default=None),
                "dose_e_per_a2": float(sum(self._dose_e_per_a2)),
                "electrons": self.electrons,
                "measured_at_s": float(np.mean(self._exposed_at_s)) if values else None,
                "action_ids": list(self.action_ids),
            }
        }

    def maps(self) -> dict[str, np.ndarray]:
        """`focus_tried_nm`, `focus_sharpness`, `focus_sharpness_std` (frames,); `focus_curve_nm`, `focus_curve`.

        With a peak the rings are weighted as the fit weighted them, 1 at the peak; without one they are summed.
        """
        if not self._defocus_nm:
            return {}
        tried, power = np.array(self._defocus_nm), np.array(self._power)
        fit = self.significant
        weights = fit.weights if fit is not None else np.ones(power.shape[1])
        found = {
            "focus_tried_nm": tried,
            "focus_sharpness": power @ weights,
            "focus_sharpness_std": np.sqrt(np.array(self._variance) @ weights**2),
        }
        if fit is not None:
            axis = np.linspace(tried.min() - self.width_nm, tried.max() + self.width_nm, _CURVE_POINTS)
            found |= {"focus_curve_nm": axis, "focus_curve": fit.curve(axis)}
        return found
