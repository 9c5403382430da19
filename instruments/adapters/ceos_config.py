"""What a corrector beside a microscope is configured with, and the capabilities that both have together.

Neighbour: `ceos` opens it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from instruments.adapters.adapter_config import AdapterConfig
from instruments.adapters.ceos_aberrations import TERMS, Frame
from instruments.capabilities import Axis, Capabilities, Procedure
from instruments.errors import ConfigurationError
from instruments.models import Record

AberrationName = Literal[
    "defocus_nm", "c12_nm", "c21_nm", "c23_nm", "c30_nm", "c32_nm", "c34_nm", "c41_nm", "c43_nm", "c45_nm", "c50_nm",
    "c52_nm", "c54_nm", "c56_nm",
]  # fmt: skip
C1A1 = "measure_c1a1"
_EVERY_DIRECTION_DEG = 360.0


class Beside(Record):
    """The microscope that the corrector belongs to, as any instrument: it has the beam, its blanker and its dose."""

    adapter: str = Field(min_length=1)
    config: dict[str, Any] = Field(default_factory=dict)


class Tableau(Record):
    """A measurement at tilted beams, in the corrector's own words."""

    tab_type: str = Field(min_length=1, description="as the gateway spells it: Fast, Standard, Enhanced")
    angle_mrad: float = Field(gt=0, le=200)
    max_duration_s: float = Field(
        gt=0, le=3600, description="the beam is on for so long at most, and so much is booked"
    )
    illuminated_nm: float | None = Field(
        default=None, gt=0, le=1e6, description="diameter of the disc that it lights; None: a spot"
    )


class CeosConfig(AdapterConfig):
    """Where the gateway listens, what may be measured and corrected, and how its axes lie in the scan."""

    adapter_name = "ceos"

    host: str = "127.0.0.1"
    port: int = Field(default=7072, ge=1, le=65_535)
    beside: Beside
    max_magnitude_nm: dict[AberrationName, float] = Field(
        min_length=1, description="what may be commanded, as magnitude; an aberration that is not here is not offered"
    )
    tableaus: dict[str, Tableau] = Field(default_factory=dict, description="a procedure tableau_NAME for each")
    c1a1_max_duration_s: float = Field(default=20.0, gt=0, le=600)
    c1a1_illuminated_nm: float | None = Field(default=None, gt=0, le=1e6, description="as of a tableau")
    correction_s: float = Field(default=60.0, gt=0, le=600, description="a correction takes so long at most")
    max_age_s: float = Field(default=300.0, gt=0, le=86_400, description="what was measured earlier corrects nothing")
    rotation_deg: float = Field(default=0.0, description="of the corrector's axes in the scan, from +x towards +y")
    is_mirrored: bool = False
    confidence_member: str = Field(default="confidence", description="where a reply has its 95 % intervals, if it has")
    answer_s: float = Field(default=5.0, gt=0, le=60)

    @field_validator("max_magnitude_nm")
    @classmethod
    def _above_zero(cls, limits: dict[AberrationName, float]) -> dict[AberrationName, float]:
        if wrong := [name for name, limit in limits.items() if limit <= 0]:
            raise ValueError(f"{', '.join(wrong)} must be above 0; leave out what must not be corrected")
        return limits

    @field_validator("beside")
    @classmethod
    def _is_a_microscope(cls, beside: Beside) -> Beside:
        if beside.adapter == "ceos":
            raise ValueError("beside a corrector stands a microscope; name its adapter")
        return beside

    @property
    def frame(self) -> Frame:
        """The corrector's axes in the scan."""
        return Frame(self.rotation_deg, self.is_mirrored)


def corrector_axes(config: CeosConfig) -> tuple[Axis, ...]:
    """Magnitude, azimuth and 95 % interval of each aberration that may be corrected."""
    axes: list[Axis] = []
    for name, limit_nm in config.max_magnitude_nm.items():
        term = TERMS[name]
        low_nm = 0.0 if term.symmetry else -limit_nm
        axes.append(Axis(name=name, minimum=low_nm, maximum=limit_nm, settle_s=config.correction_s))
        if term.azimuth is not None:
            half_deg = _EVERY_DIRECTION_DEG / 2 / term.symmetry
            axes.append(Axis(name=term.azimuth, minimum=-half_deg, maximum=half_deg))
        axes.append(Axis(name=confidence_axis(name), maximum=limit_nm, read_only=True))
    return tuple(axes)


def confidence_axis(name: str) -> str:
    """The axis that holds how far off a magnitude may be.

    >>> confidence_axis("c12_nm")
    'corrector.c12_within_nm'
    """
    return f"corrector.{name.removesuffix('_nm')}_within_nm"


def capabilities_with(config: CeosConfig, microscope: Capabilities) -> Capabilities:
    """Those of the microscope and the corrector's. Raises ConfigurationError where both claim one."""
    axes, procedures = corrector_axes(config), procedures_of(config, microscope.blanker_settle_s)
    claimed = [axis.name for axis in axes if microscope.axis(axis.name)]
    claimed += [one.name for one in procedures if microscope.procedure(one.name)]
    if claimed:
        raise ConfigurationError(
            f"{microscope.name!r} has {', '.join(claimed)} itself; leave it out of the corrector's max_magnitude_nm"
        )
    return microscope.model_copy(
        update={
            "name": f"{microscope.name} with a CEOS corrector",
            "axes": (*microscope.axes, *axes),
            "procedures": (*microscope.procedures, *procedures),
            "reports_limits": False,
            "quirks": (
                *microscope.quirks,
                "aberrations are known for a while after a measurement, which exposes; a correction uses it up",
                "a correction that was sent cannot be stopped, only darkened",
            ),
        }
    )


def procedures_of(config: CeosConfig, blanker_settle_s: float) -> tuple[Procedure, ...]:
    """Measurements: each has the beam on the specimen for so long at most, the blanker's own time included."""
    measurements = {C1A1: (config.c1a1_max_duration_s, config.c1a1_illuminated_nm)}
    measurements |= {
        f"tableau_{name}": (one.max_duration_s, one.illuminated_nm) for name, one in config.tableaus.items()
    }
    return tuple(
        Procedure(name=name, duration_s=one_s + blanker_settle_s, illuminated_nm=lit_nm)
        for name, (one_s, lit_nm) in measurements.items()
    )
