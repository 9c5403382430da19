"""What an experiment wants to know: the Objective protocol, and the score every frame gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from instruments import Frame
from orchestrator.features.feature_set import FeatureSet


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFacts:
    """What an objective may know of a frame besides its features; small enough to live in the journal."""

    action_id: str
    purpose: str
    mode: str
    x_nm: float
    y_nm: float
    width_nm: float
    height_nm: float
    pixel_size_nm: float
    subframe_count: int
    dose_e_per_a2: float
    electrons: float
    started_s: float
    ended_s: float
    exposure_s: float

    @property
    def exposed_at_s(self) -> float:
        """The middle of the exposure; moves and settling come before it."""
        return self.ended_s - self.exposure_s / 2

    @classmethod
    def of(cls, frame: Frame) -> FrameFacts:
        """The facts of a frame; nominal coordinates (stage plus beam shift)."""
        command = frame.requested
        return cls(
            action_id=frame.action_id,
            purpose=command.purpose,
            mode=command.mode,
            x_nm=command.stage.x_nm + command.scan.beam_shift_x_nm,
            y_nm=command.stage.y_nm + command.scan.beam_shift_y_nm,
            width_nm=command.scan.field_of_view_nm,
            height_nm=command.scan.height_nm,
            pixel_size_nm=frame.pixel_size_nm,
            subframe_count=command.subframe_count,
            dose_e_per_a2=frame.dose_e_per_a2,
            electrons=frame.electrons,
            started_s=frame.started_s,
            ended_s=frame.ended_s,
            exposure_s=command.scan.duration_s(command.subframe_count),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far the question is answered after a frame, and what the policy is told of it."""

    value: float
    std: float
    statement: str
    outcomes: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    arrays: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


class Objective(Protocol):
    """The question. Its state is a function of the observations it was updated with, in order."""

    def update(self, point: Mapping[str, Any], facts: FrameFacts, features: FeatureSet) -> Score:
        """Take in one frame's features; the score so far."""
        ...

    def summary(self) -> dict[str, Any]:
        """The answer so far, JSON-able (arrays as nested lists are kept small)."""
        ...

    def stop_reason(self) -> str | None:
        """Why the question is answered, or None."""
        ...

    def maps(self) -> dict[str, np.ndarray]:
        """Arrays for the report: maps with their axes."""
        ...
