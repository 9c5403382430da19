"""Stage, optics and beam shift together, and what they become when axes are set: for adapters that keep them.

Neighbour: `axes` names the axes, `state` reports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from instruments.commands import AxisValue
from instruments.errors import CommandRefused, Unsupported
from instruments.optics import Aberrations, Optics
from instruments.scans import StagePosition


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Where the specimen, the lenses and the beam stand."""

    stage: StagePosition
    optics: Optics
    beam_shift_nm: tuple[float, float] = (0.0, 0.0)

    def with_values(self, values: Mapping[str, AxisValue]) -> Arrangement:
        """With these axes set. Raises Unsupported for a name that is none of theirs, CommandRefused for a word."""
        stage: dict[str, float] = {}
        optics: dict[str, float] = {}
        aberrations: dict[str, float] = {}
        shift = {"beam_shift_x_nm": self.beam_shift_nm[0], "beam_shift_y_nm": self.beam_shift_nm[1]}
        places: tuple[tuple[Any, dict[str, float]], ...] = (
            (StagePosition.model_fields, stage),
            (Optics.model_fields.keys() - {"aberrations"}, optics),
            (Aberrations.model_fields, aberrations),
            (tuple(shift), shift),
        )
        for name, value in values.items():
            if isinstance(value, str):
                raise CommandRefused(f"{name} takes a number, not {value!r}")
            for names, place in places:
                if name in names:
                    place[name] = value
                    break
            else:
                raise Unsupported(f"{name} is neither of the stage, the optics nor the beam shift")
        return replace(
            self,
            stage=StagePosition.model_validate(self.stage.model_dump() | stage),
            optics=Optics.model_validate(
                self.optics.model_dump() | optics | {"aberrations": self.optics.aberrations.model_dump() | aberrations}
            ),
            beam_shift_nm=(shift["beam_shift_x_nm"], shift["beam_shift_y_nm"]),
        )
