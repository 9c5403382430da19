"""The self-contained, absolute commands a microscope takes; each with its id and its deadline.

Neighbours: `axes` names what `SetAxes` can set, `deadlines` says how long a command may take.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from instruments.models import Record
from instruments.optics import Optics
from instruments.scans import ScanPattern, StagePosition


class AcquireFrame(Record):
    """One exposure, self-contained: go there, set this, read these detectors together.

    `dwell_time_us` of the scan is the dwell per pixel of *one* sub-frame; the whole frame exposes each pixel
    `subframe_count` times. The beam is unblanked before and blanked after the exposure.
    """

    kind: Literal["acquire_frame"] = "acquire_frame"
    action_id: str = Field(min_length=1)
    deadline_s: float = Field(gt=0)
    stage: StagePosition = StagePosition()
    optics: Optics
    scan: ScanPattern
    mode: str = Field(min_length=1)
    subframe_count: int = Field(default=1, ge=1, le=10_000)
    purpose: str = "frame"


class Park(Record):
    """Put the unblanked or blanked beam at this beam shift; an unblanked parked beam exposes what lies there."""

    kind: Literal["park"] = "park"
    action_id: str = Field(min_length=1)
    deadline_s: float = Field(default=5.0, gt=0)
    beam_shift_x_nm: float = 0.0
    beam_shift_y_nm: float = 0.0
    duration_s: float = Field(default=0.0, ge=0, description="how long to stay there before the command is done")


class Blank(Record):
    """Take the beam off the specimen."""

    kind: Literal["blank"] = "blank"
    action_id: str = Field(min_length=1)
    deadline_s: float = Field(default=5.0, gt=0)


class Unblank(Record):
    """Let the beam fall on the specimen where it is parked; it stays on until blanked."""

    kind: Literal["unblank"] = "unblank"
    action_id: str = Field(min_length=1)
    deadline_s: float = Field(default=5.0, gt=0)


AxisValue = Annotated[float, Field(strict=True)] | Annotated[str, Field(strict=True, min_length=1)]
"""A number in the unit its axis ends in, or one of the axis' choices."""


class SetAxes(Record):
    """Bring each of these axes to this value, and say what was read back; axes that are not named stay.

    Absolute: sent twice it does what it does once. A value is refused if it is outside the axis; an axis that the
    instrument does not have is Unsupported, and then none of them moves.
    """

    kind: Literal["set_axes"] = "set_axes"
    action_id: str = Field(min_length=1)
    deadline_s: float = Field(default=60.0, gt=0)
    values: dict[str, AxisValue] = Field(min_length=1)


class RunProcedure(Record):
    """Let the instrument do something of its own by name: normalise, autofocus, flash; never repeated alone."""

    kind: Literal["run_procedure"] = "run_procedure"
    action_id: str = Field(min_length=1)
    deadline_s: float = Field(default=300.0, gt=0)
    name: str = Field(min_length=1)


Command = Annotated[
    AcquireFrame | Park | Blank | Unblank | SetAxes | RunProcedure,
    Field(discriminator="kind"),
]
COMMANDS: Final = (AcquireFrame, Park, Blank, Unblank, SetAxes, RunProcedure)
"""Every class of command."""
