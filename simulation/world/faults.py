"""What is wrong with the twin, where its configuration says so.

A stage that sticks, slips, plays or is calibrated wrongly, frames that get lost, answers that take their time. How the
specimen drifts and by how much moves miss is configured for every twin. Neighbour: `clock` moves the stage.
"""

from __future__ import annotations

from math import copysign
from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from instruments.models import Record
from instruments.scans import StagePosition
from simulation.world.randomness import Purpose, generator

StageAxis = Literal["x_nm", "y_nm", "z_nm", "alpha_deg", "beta_deg"]
_STAGE_AXES: Final[tuple[StageAxis, ...]] = get_args(StageAxis)


class Faults(Record):
    """None of them unless it is named."""

    stuck_axes: tuple[StageAxis, ...] = Field(default=(), description="do not move, and are read back where they stand")
    slipping_axes: tuple[StageAxis, ...] = Field(default=(), description="are read back as moved; the specimen stays")
    factor_by_axis: dict[StageAxis, float] = Field(
        default_factory=dict[StageAxis, float], description="how far an axis goes for each unit that is read back"
    )
    play_by_axis: dict[StageAxis, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict[StageAxis, float], description="by how much a move ends short; the unit of the axis"
    )
    lost_frame_fraction: float = Field(default=0.0, ge=0, le=1, description="of frames that are exposed and never come")
    latency_s: float = Field(default=0.0, ge=0, le=60, description="of every command, on the wall's clock")

    def arrived(
        self, standing: StagePosition, shown: StagePosition, wanted: StagePosition
    ) -> tuple[StagePosition, StagePosition]:
        """Where the stage stands after a move, and where it is read back."""
        stands, reads = dict[str, float](), wanted.model_dump()
        for axis in _STAGE_AXES:
            before, moved = getattr(standing, axis), getattr(wanted, axis) - getattr(shown, axis)
            is_still = moved == 0 or axis in self.stuck_axes or axis in self.slipping_axes
            short = copysign(self.play_by_axis.get(axis, 0.0), moved)
            stands[axis] = before if is_still else getattr(wanted, axis) * self.factor_by_axis.get(axis, 1.0) - short
            if axis in self.stuck_axes:
                reads[axis] = before
        return StagePosition.model_validate(stands), StagePosition.model_validate(reads)

    def loses(self, seed: int, ordinal: int) -> bool:
        """Whether the frame of that ordinal gets lost."""
        return bool(generator(seed, Purpose.LOST_FRAME, ordinal).random() < self.lost_frame_fraction)


NO_FAULTS: Final = Faults()
