"""Every number of a landscape; lengths in nm. `terrain` and `objects` make places of it."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from instruments.models import Record
from simulation.builders.crystals import CRYSTALS
from simulation.builders.layers import LAYERS
from simulation.builders.limits import known
from simulation.errors import InvalidParameter


class LandscapeConfig(Record):
    """A grid of squares with a holey carbon film, two-dimensional flakes and particles on it.

    The sizes are those of common products (a grid of 400 mesh has a pitch of 62 um; here squares are smaller, so that a
    survey of several fits into a day); the shares of broken and dirty squares are assumptions. The grid's square (0, 0)
    is centred on (0, 0), and so is one of the holes.
    """

    seed: int = Field(ge=0, lt=2**63)
    square_pitch_nm: float = Field(default=20_000.0, gt=100, le=1e6)
    bar_width_nm: float = Field(default=5_000.0, ge=0)
    bar_thickness_nm: float = Field(default=10_000.0, gt=0, description="copper, opaque to electrons")
    hole_pitch_nm: float = Field(default=2_500.0, gt=10)
    hole_diameter_nm: float = Field(default=1_200.0, ge=0)
    film_thickness_nm: float = Field(default=5.0, gt=0.3, le=100, description="amorphous carbon")
    broken_fraction: float = Field(default=0.15, ge=0, le=1, description="squares whose film is torn")
    dirty_fraction: float = Field(default=0.2, ge=0, le=1, description="squares with thick contamination")
    contamination_nm: float = Field(default=0.5, ge=0, le=20, description="mean thickness on a clean square")
    dirty_contamination_nm: float = Field(default=4.0, ge=0, le=20)
    contamination_limit_nm: float = Field(default=8.0, gt=0, le=100)
    contamination_length_nm: float = Field(default=150.0, gt=1)
    contamination_sigma: float = Field(default=0.6, ge=0, le=2, description="spread of ln(thickness)")
    flake_material: str = "MoS2"
    flakes_per_um2: float = Field(default=0.08, ge=0, le=100)
    flake_radius_min_nm: float = Field(default=200.0, gt=1)
    flake_radius_max_nm: float = Field(default=900.0, gt=1, le=5e3)
    flake_layers_max_count: int = Field(default=3, ge=1, le=20)
    flake_vacancy_fraction: float = Field(default=0.01, ge=0, le=0.5, description="missing atoms of the last species")
    particle_material: str = "Au"
    particles_per_um2: float = Field(default=300.0, ge=0, le=1e5)
    particle_diameter_min_nm: float = Field(default=2.0, gt=0.5)
    particle_diameter_max_nm: float = Field(default=6.0, gt=0.5, le=100)

    def __init__(self, **numbers: Any) -> None:
        """Raise `InvalidParameter` with the name, value and limits of every number that is out of range."""
        try:
            super().__init__(**numbers)
        except ValidationError as error:
            raise InvalidParameter(str(error)) from None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        known("flake_material", self.flake_material, LAYERS)
        known("particle_material", self.particle_material, CRYSTALS)
        for low, high in (
            ("bar_width_nm", "square_pitch_nm"),
            ("hole_diameter_nm", "hole_pitch_nm"),
            ("contamination_nm", "contamination_limit_nm"),
            ("dirty_contamination_nm", "contamination_limit_nm"),
        ):
            small_nm, large_nm = getattr(self, low), getattr(self, high)
            if small_nm >= large_nm:
                raise ValueError(f"{low} = {small_nm} nm must be below {high} = {large_nm} nm; change one of them")
        for name in ("flake_radius", "particle_diameter"):
            if getattr(self, f"{name}_min_nm") > getattr(self, f"{name}_max_nm"):
                raise ValueError(f"{name}_min_nm must not be above {name}_max_nm; exchange them")
        return self
