"""From a displacement in one frame of reference to the same in another, with its uncertainty.

All frames are (x, y). A stage move of +x puts a point further along +x of the specimen under the beam; a beam shift of
+x does the same; so both are carried into the scan frame, unrotated pixels times their size, by the identity where
everything is calibrated. `registration` measures a transform from images.
"""

from __future__ import annotations

from math import atan2, degrees, hypot
from typing import Literal

import numpy as np
from pydantic import Field

from instruments.models import Record

FrameName = Literal["stage", "beam_shift", "scan", "detector"]
Matrix = tuple[tuple[float, float], tuple[float, float]]


class FrameTransform(Record):
    """Displacement in `target` = matrix @ displacement in `source`, both (x, y) in nm (detector: mrad)."""

    source: FrameName
    target: FrameName
    matrix: Matrix
    uncertainty: Matrix = Field(description="standard deviation of each element of the matrix")
    calibration_id: str = Field(min_length=1)

    def carry(self, x_value: float, y_value: float) -> tuple[float, float]:
        """The displacement (x, y) of the source, seen in the target."""
        (a, b), (c, d) = self.matrix
        return a * x_value + b * y_value, c * x_value + d * y_value

    def std(self, x_value: float, y_value: float) -> tuple[float, float]:
        """Standard deviation of what `carry` gives for this displacement."""
        (a, b), (c, d) = self.uncertainty
        return hypot(a * x_value, b * y_value), hypot(c * x_value, d * y_value)

    def inverse(self) -> FrameTransform:
        """From target to source. Raises ValueError where a direction is lost."""
        matrix = np.array(self.matrix)
        if abs(np.linalg.det(matrix)) < 1e-12 * float(np.abs(matrix).max()) ** 2:
            raise ValueError(f"{self.source} to {self.target} loses a direction: {self.matrix}; measure it again")
        back = np.linalg.inv(matrix)
        spread = np.sqrt((back**2) @ (np.array(self.uncertainty) ** 2) @ (back**2))
        return self.model_copy(
            update={
                "source": self.target,
                "target": self.source,
                "matrix": as_matrix(back),
                "uncertainty": as_matrix(spread),
            }
        )

    @property
    def rotation_deg(self) -> float:
        """Direction of the source's +x in the target, from +x towards +y."""
        return degrees(atan2(self.matrix[1][0], self.matrix[0][0]))

    @property
    def scales(self) -> tuple[float, float]:
        """How long a unit of the source's x, and of its y, is in the target."""
        (a, b), (c, d) = self.matrix
        return hypot(a, c), hypot(b, d)

    def disagreements(self, expected: Matrix = ((1.0, 0.0), (0.0, 1.0)), tolerance: float = 0.05) -> list[str]:
        """In words: swapped axes, wrong signs, lengths and angles off by more than `tolerance` and 3 deviations."""
        found, wanted = np.array(self.matrix), np.array(expected)
        if abs(found - wanted).max() <= tolerance + 3 * float(np.array(self.uncertainty).max()):
            return []
        if abs(found - wanted[:, ::-1]).max() <= tolerance * 2:
            return [f"x and y of {self.source} are swapped"]
        along = (wanted * found).sum(axis=0)
        signs = [
            f"{axis} of {self.source} has the wrong sign in {self.target}"
            for axis, value in zip("xy", along, strict=True)
            if value < -0.5 * float((wanted**2).sum(axis=0).mean())
        ]
        lengths = f"lengths {self.scales[0]:.4g} and {self.scales[1]:.4g}, turned by {self.rotation_deg:.3g} deg"
        frames = f"{self.source} to {self.target}"
        return signs or [f"{frames} is {_words(self.matrix)}, expected {_words(expected)}: {lengths}; calibrate it"]


def as_matrix(values: np.ndarray) -> Matrix:
    """A 2 x 2 array as it is stored."""
    (a, b), (c, d) = values.tolist()
    return ((a, b), (c, d))


def _words(matrix: Matrix) -> str:
    (a, b), (c, d) = matrix
    return f"[[{a:.4g}, {b:.4g}], [{c:.4g}, {d:.4g}]]"
