"""A survey: many squares of a grid, one experiment each from one template, under one budget and one end.

Neighbours: `spec` is what each square becomes; `workflows.flows.survey` runs them.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from instruments.models import Record
from orchestrator.errors import SpecError
from orchestrator.spec import Budget, Calibration, ExperimentSpec
from orchestrator.spec_file import apply_overrides, fault_lines, load_mapping, parse_spec

SQUARE_LABEL = "square"
OVERVIEW_NAME = "overview"
_TOUCHING_NM = 1e-6  # areas side by side do not overlap by a rounding error


class Square(Record):
    """One place to look at: its name, centre and side."""

    name: str = Field(min_length=1, max_length=80)
    x_nm: float = Field(ge=-1e7, le=1e7)
    y_nm: float = Field(ge=-1e7, le=1e7)
    side_nm: float = Field(gt=0, le=4000)

    @property
    def bounds_nm(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """((x low, x high), (y low, y high))."""
        half = self.side_nm / 2
        return (self.x_nm - half, self.x_nm + half), (self.y_nm - half, self.y_nm + half)


class SquareGrid(Record):
    """Squares in rows and columns about a centre; named A1, A2, ... B1, the row first, from the lowest y."""

    rows: int = Field(ge=1, le=26)
    columns: int = Field(ge=1, le=1000)
    side_nm: float = Field(gt=0, le=4000)
    gap_nm: float = Field(default=0.0, ge=0, le=1e6)
    x_nm: float = Field(default=0.0, ge=-1e7, le=1e7, description="centre of the whole grid")
    y_nm: float = Field(default=0.0, ge=-1e7, le=1e7)

    def squares(self) -> tuple[Square, ...]:
        """All of them."""
        pitch = self.side_nm + self.gap_nm
        return tuple(
            Square(
                name=f"{chr(ord('A') + row)}{column + 1}",
                x_nm=self.x_nm + (column - (self.columns - 1) / 2) * pitch,
                y_nm=self.y_nm + (row - (self.rows - 1) / 2) * pitch,
                side_nm=self.side_nm,
            )
            for row in range(self.rows)
            for column in range(self.columns)
        )


class Overview(Record):
    """A cheap frame of every square before any is looked at closely, which says how clean it is.

    10 to 20 e/A2 are enough; with much more, pixels that do not resolve the lattice make a texture like dirt.
    """

    mode: str = Field(min_length=1, description="with a dark-field detector")
    probe_current_pa: float = Field(gt=0, le=1e6)
    pixel_size_nm: float = Field(default=0.2, gt=0, le=100)
    dwell_time_us: float = Field(default=0.7, gt=0, le=1e6)
    defocus_nm: float = Field(default=0.0, ge=-1e5, le=1e5)


class SquareBudget(Record):
    """What may be spent: by one square, or by all of them and the overview together."""

    electrons: float | None = Field(default=None, gt=0, le=1e18)
    instrument_time_s: float | None = Field(default=None, gt=0, le=1e7)


class SurveySpec(Record):
    """One survey, whole. `template` is the experiment every square becomes, checked like any other."""

    name: str = Field(min_length=1, max_length=200)
    template: ExperimentSpec
    squares: tuple[Square, ...] = ()
    grid: SquareGrid | None = None
    overview: Overview | None = Field(default=None, description="None: no frame before the experiments")
    order: Literal["listed", "cleanest"] = "listed"
    least_clean_fraction: float = Field(default=0.0, ge=0, le=1, description="squares below are left out")
    square_budget: SquareBudget = SquareBudget()
    total_budget: SquareBudget = SquareBudget()
    least_budget_fraction: float = Field(
        default=0.25, gt=0, le=1, description="no square is begun with less than this of its budget"
    )
    until: datetime | None = Field(default=None, description="no square begins after this moment; with a time zone")
    for_s: float | None = Field(default=None, gt=0, le=1e7, description="the same, counted from the start")
    sacrificial_offset_nm: tuple[float, float] | None = Field(
        default=None, description="where each square calibrates, from its centre; None: where the template says"
    )
    seed: int = Field(default=0, ge=0)
    baselines: bool = False
    reports: bool = Field(default=True, description="a report of each square; else only the page of all")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.squares) == (self.grid is not None):
            raise ValueError("give either squares (a list) or grid, one of them")
        twice = [name for name, count in Counter(square.name for square in self.places).items() if count > 1]
        if twice or any(square.name == OVERVIEW_NAME for square in self.places):
            raise ValueError(f"names of squares must differ, and none be {OVERVIEW_NAME!r}: {twice or OVERVIEW_NAME}")
        if self.until is not None and self.until.tzinfo is None:
            raise ValueError(f"until {self.until.isoformat()} has no time zone; add one, for example +00:00")
        if self.overview is None and (self.order == "cleanest" or self.least_clean_fraction > 0):
            raise ValueError("order: cleanest and least_clean_fraction need an overview; add one")
        if not {"x_nm", "y_nm"} <= set(self.template.search_space):
            raise ValueError("template.search_space lacks x_nm or y_nm, so it cannot be moved from square to square")
        if self.sacrificial_offset_nm is not None and self.template.calibrate is None:
            raise ValueError("sacrificial_offset_nm is of no use: the template has no section calibrate")
        places = self.places
        for square in places:
            self._check_sacrificial_area(square, places)
        return self

    def _check_sacrificial_area(self, square: Square, places: tuple[Square, ...]) -> None:
        """A square's series may burn no other square; its own is checked with its experiment (`allow_overlap`)."""
        calibrate = self._calibrate(square)
        if calibrate is None:
            return
        half_nm = calibrate.field_of_view_nm / 2
        for other in places:
            sides = zip((calibrate.x_nm, calibrate.y_nm), other.bounds_nm, strict=True)
            gap_nm = max(max(low - (at + half_nm), (at - half_nm) - high) for at, (low, high) in sides)
            if other.name != square.name and gap_nm < -_TOUCHING_NM:
                raise ValueError(
                    f"square {square.name} calibrates on {calibrate.field_of_view_nm:g} nm at ({calibrate.x_nm:g}, "
                    f"{calibrate.y_nm:g}) nm, which reaches {-gap_nm:.4g} nm into square {other.name}; change "
                    "sacrificial_offset_nm (or calibrate.x_nm, y_nm of the template), or set the squares farther apart"
                )

    def _calibrate(self, square: Square) -> Calibration | None:
        """The template's calibration, moved along with this square where the survey says so."""
        calibrate = self.template.calibrate
        if calibrate is None or self.sacrificial_offset_nm is None:
            return calibrate
        dx_nm, dy_nm = self.sacrificial_offset_nm
        return calibrate.model_copy(update={"x_nm": square.x_nm + dx_nm, "y_nm": square.y_nm + dy_nm})

    @classmethod
    def from_yaml(cls, path: Path | str, overrides: dict[str, Any] | None = None) -> SurveySpec:
        """Read a survey; `template` is a file beside it, `set` overrides of it. Raises SpecError with every fault."""
        path = Path(path)
        document = apply_overrides(load_mapping(path), overrides or {})
        named, changes = document.pop("template", None), document.pop("set", None) or {}
        if not isinstance(named, str) or not isinstance(changes, dict):
            raise SpecError(f"{path}: template: name the spec of an experiment; set: KEY: VALUE overrides of it")
        template = path.resolve().parent / named
        experiment = parse_spec(
            apply_overrides(load_mapping(template), changes), template.parent, f"{path}: template {named}"
        )
        return cls.checked({**document, "template": experiment.model_dump(mode="json")}, str(path))

    @classmethod
    def checked(cls, document: dict[str, Any], source: str = "survey") -> SurveySpec:
        """A survey from its plain form. Raises SpecError with every fault."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            lines = fault_lines(error, cls.model_json_schema())
            raise SpecError(f"{source}: {len(lines)} fault(s)\n  " + "\n  ".join(lines)) from error

    @property
    def places(self) -> tuple[Square, ...]:
        """All squares, as listed or as the grid makes them."""
        return self.squares or (self.grid.squares() if self.grid is not None else ())

    def square_experiment(self, square: Square, budget: Budget) -> ExperimentSpec:
        """The template moved to one square, with what it may spend."""
        space = {name: dict(variable) for name, variable in self.template.search_space.items()}
        for axis, (low, high) in zip(("x_nm", "y_nm"), square.bounds_nm, strict=True):
            space[axis] |= {"low": low, "high": high}
        return self.template.model_copy(
            update={
                "name": f"{self.name}: {square.name}"[:200],
                "search_space": space,
                "budget": budget,
                "calibrate": self._calibrate(square),
                "labels": {**self.template.labels, SQUARE_LABEL: square.name},
            }
        )

    def overview_experiment(self) -> ExperimentSpec:
        """One frame of every square, in the listed order, and nothing else. Raises SpecError without an overview."""
        if self.overview is None:
            raise SpecError("this survey has no overview")
        taken = self.overview.model_dump()
        points = [
            {"purpose": "survey", "x_nm": square.x_nm, "y_nm": square.y_nm, "field_of_view_nm": square.side_nm, **taken}
            for square in self.places
        ]
        space = {name: dict(variable) for name, variable in self.template.search_space.items()}
        for axis, number in (("x_nm", 0), ("y_nm", 1)):
            ends = [square.bounds_nm[number] for square in self.places]
            space[axis] |= {"low": min(low for low, _ in ends), "high": max(high for _, high in ends)}
        policy = self.template.policy.model_copy(update={"name": "listed", "options": {"points": points}})
        total = self.total_budget
        budget = Budget(frames=len(points), electrons=total.electrons, instrument_time_s=total.instrument_time_s)
        return self.template.model_copy(
            update={
                "name": f"{self.name}: {OVERVIEW_NAME}"[:200],
                "search_space": space,
                "policy": policy,
                "budget": budget,
                "calibrate": None,
                "labels": {**self.template.labels, SQUARE_LABEL: OVERVIEW_NAME},
            }
        )
